"""Words for people that every command and log line uses in the same way. Pure."""


def counted(count: int, what: str) -> str:
    """Return how many there are of what: `1 pod`, `2 pods`."""
    return f"{count} {what}" + ("" if count == 1 else "s")
