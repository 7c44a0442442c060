"""GGUF files of a few bytes, written from the format's description: facts and tensors enter, bytes leave."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

LLAMA: Mapping[str, object] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 2048,
    "llama.feed_forward_length": 128,
    "tokenizer.ggml.tokens": ["<s>", "</s>", "hello", "world"],
    "tokenizer.ggml.scores": [0.0, -1.0, -2.0, -3.0],
    "tokenizer.chat_template": "{{ messages }}",
    "general.file_type": 15,
}
# name → type, columns and rows
TENSORS: Mapping[str, tuple[int, Sequence[int]]] = {
    "token_embd.weight": (12, (256, 4)),  # Q4_K: 144 bytes a block of 256
    "blk.0.attn_q.weight": (0, (64, 64)),  # F32
    "output.weight": (8, (64, 4)),  # Q8_0: 34 bytes a block of 32
}
_BLOCKS = {0: (1, 4), 8: (32, 34), 12: (256, 144), 77: (1, 1)}  # there is no 77


def gguf(
    facts: Mapping[str, object] = LLAMA,
    tensors: Mapping[str, tuple[int, Sequence[int]]] = TENSORS,
    *,
    version: int = 3,
) -> bytes:
    """A whole file; its tensors are full of ones."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(facts))
    for key, value in facts.items():
        head += _text(key) + _value(value)
    at = 0
    for name, (kind, shape) in tensors.items():
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at)
        at = _padded(at + _size(kind, shape))
    return head + b"\0" * (_padded(len(head)) - len(head)) + b"\1" * at


def _value(value: object) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(str(each)) for each in value)
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case list():
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    raise AssertionError(value)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _size(kind: int, shape: Sequence[int]) -> int:
    per_block, block_bytes = _BLOCKS[kind]
    return math.prod(shape) // per_block * block_bytes


def _padded(size: int) -> int:
    return -(-size // 32) * 32
