"""A GGUF file's first facts, for a useful refusal. What enters: a file. What leaves: a sentence on what it is.

Neither runtime of this issue reads GGUF; the user is told what was dropped and what to drop instead.
"""

from __future__ import annotations

import struct

from modelium.analyzers.folder import File
from modelium.analyzers.verdict import describe_bytes

_TEXT_VALUE = 8
_HEAD_BYTES = 4096


def describe_gguf(file: File) -> str:
    """What the header of ``file`` says, in words; whatever is unreadable in it is left out."""
    with file.open() as stream:
        head = stream.read(_HEAD_BYTES)
    if not head.startswith(b"GGUF") or len(head) < 24:
        return f"{file.name} ({describe_bytes(file.size)})"
    version, tensors, pairs = struct.unpack_from("<IQQ", head, 4)
    facts = _texts(head, pairs)
    kind = facts.get("general.architecture", "a")
    named = f" {facts['general.name']!r}" if "general.name" in facts else ""
    return f"{file.name}: {kind} model{named} in GGUF version {version} with {tensors} tensors ({describe_bytes(file.size)})"


def _texts(head: bytes, pairs: int) -> dict[str, str]:
    """The leading key-value pairs as long as their values are texts or 4-byte numbers, and inside ``head``."""
    at, facts = 24, dict[str, str]()
    for _ in range(min(pairs, 16)):
        key, at = _text(head, at)
        if not key or at + 4 > len(head):
            break
        (kind,) = struct.unpack_from("<I", head, at)
        at += 4
        if kind == _TEXT_VALUE:
            value, at = _text(head, at)
            facts[key] = value[:80]
        elif kind in (4, 5, 6):
            at += 4
        else:
            break
    return facts


def _text(head: bytes, at: int) -> tuple[str, int]:
    if at + 8 > len(head):
        return "", len(head)
    (length,) = struct.unpack_from("<Q", head, at)
    end = at + 8 + length
    return (head[at + 8 : end].decode("utf-8", "replace"), end) if end <= len(head) else ("", len(head))
