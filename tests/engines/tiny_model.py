"""A model of half a megabyte with random weights, in llama.cpp's file format: real engine, no meaning."""

import struct
from collections.abc import Iterable
from pathlib import Path
from random import Random

EMBEDDING, FEED_FORWARD, HEADS, CONTEXT = 64, 128, 4, 2048
SPECIAL = ("<unk>", "<s>", "</s>")
VOCABULARY = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1
TYPES = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, NORMAL]
ALIGNMENT = 32
UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9
FLOATS = 0

TENSORS: dict[str, tuple[int, ...]] = {
    "token_embd.weight": (EMBEDDING, len(VOCABULARY)),
    "blk.0.attn_norm.weight": (EMBEDDING,),
    "blk.0.attn_q.weight": (EMBEDDING, EMBEDDING),
    "blk.0.attn_k.weight": (EMBEDDING, EMBEDDING),
    "blk.0.attn_v.weight": (EMBEDDING, EMBEDDING),
    "blk.0.attn_output.weight": (EMBEDDING, EMBEDDING),
    "blk.0.ffn_norm.weight": (EMBEDDING,),
    "blk.0.ffn_gate.weight": (EMBEDDING, FEED_FORWARD),
    "blk.0.ffn_up.weight": (EMBEDDING, FEED_FORWARD),
    "blk.0.ffn_down.weight": (FEED_FORWARD, EMBEDDING),
    "output_norm.weight": (EMBEDDING,),
    "output.weight": (EMBEDDING, len(VOCABULARY)),
}


def write(path: Path) -> Path:
    """Write the model; return where."""
    facts = [
        _fact("general.architecture", STRING, _string("llama")),
        _fact("llama.context_length", UINT32, _uint32(CONTEXT)),
        _fact("llama.embedding_length", UINT32, _uint32(EMBEDDING)),
        _fact("llama.block_count", UINT32, _uint32(1)),
        _fact("llama.feed_forward_length", UINT32, _uint32(FEED_FORWARD)),
        _fact("llama.attention.head_count", UINT32, _uint32(HEADS)),
        _fact("llama.rope.dimension_count", UINT32, _uint32(EMBEDDING // HEADS)),
        _fact("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
        _fact("tokenizer.ggml.model", STRING, _string("llama")),
        _fact("tokenizer.ggml.tokens", ARRAY, _array(STRING, map(_string, VOCABULARY))),
        _fact("tokenizer.ggml.scores", ARRAY, _array(FLOAT32, (struct.pack("<f", 0.0) for _ in VOCABULARY))),
        _fact("tokenizer.ggml.token_type", ARRAY, _array(INT32, (struct.pack("<i", kind) for kind in TYPES))),
        _fact("tokenizer.ggml.bos_token_id", UINT32, _uint32(1)),
        _fact("tokenizer.ggml.eos_token_id", UINT32, _uint32(2)),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(TENSORS), len(facts)) + b"".join(facts)
    infos, weights, rng = b"", b"", Random(1)
    for name, shape in TENSORS.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos += _string(name) + dimensions + struct.pack("<IQ", FLOATS, len(weights))
        weights += _padded(_floats(shape, rng))
    path.write_bytes(_padded(head + infos) + weights)
    return path


def _floats(shape: tuple[int, ...], rng: Random) -> bytes:
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    values = [1.0] * count if len(shape) == 1 else [rng.gauss(0.0, 0.1) for _ in range(count)]
    return struct.pack(f"<{count}f", *values)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % ALIGNMENT)


def _fact(name: str, kind: int, value: bytes) -> bytes:
    return _string(name) + _uint32(kind) + value


def _array(kind: int, items: Iterable[bytes]) -> bytes:
    found = list(items)
    return struct.pack("<IQ", kind, len(found)) + b"".join(found)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _uint32(value: int) -> bytes:
    return struct.pack("<I", value)
