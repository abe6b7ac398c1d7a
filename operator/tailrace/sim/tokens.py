"""What a token is here: about four bytes of prompt, or one numbered word of the answer."""

BYTES_PER_TOKEN = 4
BLOCK_TOKENS = 16
BLOCK_BYTES = BLOCK_TOKENS * BYTES_PER_TOKEN


def count_tokens(text: bytes) -> int:
    """Return the number of prompt tokens of `text`, at least one."""
    return max(1, -(-len(text) // BYTES_PER_TOKEN))


def token_text(index: int) -> str:
    """Return the text of the answer's token `index` (from 0): the reader can see a gap."""
    return f"t{index} "


def answer_text(count: int) -> str:
    """Return the first `count` tokens of an answer."""
    return "".join(map(token_text, range(count)))
