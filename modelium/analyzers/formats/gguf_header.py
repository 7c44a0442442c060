"""The header of a GGUF file: exact tensor sizes, the model's own facts, and the proof that the file is whole.

What enters: a file. What leaves: its ``GgufHeader``, or ``NotYet`` (shorter than the header says) / ``Rejected`` (a header that
contradicts itself). The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; nothing but the header is read,
and of its long arrays (a tokenizer's tokens) only how many there are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from modelium.analyzers.folder import File, refuse_lfs_pointer, refuse_preallocated
from modelium.analyzers.verdict import Rejected, not_whole
from modelium.sizes import human_bytes

_MAGIC = b"GGUF"
_HINT = "copy the file again from its source"
_CONVERT = "convert it again with a current convert_hf_to_gguf.py of llama.cpp"
_MAX_PAIRS, _MAX_TENSORS, _MAX_ELEMENTS = 65_536, 100_000, 100_000_000
_MAX_HEADER = 256 * 2**20  # the largest vocabularies take 20 MiB
_MAX_TEXTS = 1_500_000  # in arrays, which are skipped one by one: the largest vocabularies and their merges are half of it
_LONGEST_TEXT, _LONGEST_KEY = 2**20, 65_535
_KEPT_TEXT = 1024  # a longer one (a licence) is only known to be there
_TEMPLATE = "tokenizer.chat_template"  # that for tools is tokenizer.chat_template.tool_use
_KEPT_TEMPLATES = 2**18  # bytes of all of them together
_KEPT_ELEMENTS, _KEPT_IN_ALL = 4096, 65_536  # of arrays of numbers: those that are per layer

# GGUF's value types: number → struct's letter. 8 is a text, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
# ggml's tensor types: number → name, elements and bytes of one block.
_TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}  # fmt: skip

Value = int | float | bool | str | tuple[int | float | bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """``facts``: key → value, long arrays left out, long texts empty; ``lengths``: key → elements of every array. ``elements``
    by tensor type (``Q4_K``), ``shapes`` by tensor, in GGUF's order (columns first). Chat templates are facts as well.
    """

    version: int
    facts: Mapping[str, Value]
    lengths: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    elements: Mapping[str, int]
    data_bytes: int

    def text(self, key: str) -> str:
        """The text under ``key``, "" where there is none."""
        value = self.facts.get(key)
        return value if isinstance(value, str) else ""

    def templates(self) -> dict[str, str]:
        """Chat templates by name, the usual one is ``default``; those that are too long are left out."""
        keys = {key.removeprefix(_TEMPLATE).removeprefix(".") or "default": key for key in self.facts if _is_template(key)}
        return {name: text for name, key in keys.items() if (text := self.text(key))}

    def number(self, key: str) -> int | None:
        """A positive whole number; of one per layer the largest."""
        value = self.facts.get(key)
        if isinstance(value, tuple):
            value = max((int(each) for each in value if math.isfinite(each)), default=0)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40 else None


def read_gguf(file: File) -> GgufHeader:
    """Read the header of ``file`` and hold it against the file's size."""
    with file.open() as stream:
        head = stream.read(min(file.size, 1024))
        refuse_lfs_pointer(file, head)
        refuse_preallocated(file, head)
        if head[:4] != _MAGIC[: len(head)]:
            raise Rejected(f"{file.name} is not a GGUF file", _HINT)
        stream.seek(len(_MAGIC))
        try:
            return _read(_Reader(stream, file), file)
        except _Ended:
            so_far = f"{human_bytes(file.size)} so far, its header is longer"
            raise not_whole(file.name, file.size, detail=so_far) from None


class _Ended(Exception):
    """The file ends inside its header."""


class _Reader:
    """Reads forward, never past the end, never more than is asked for, and within bounds for the whole header."""

    def __init__(self, stream: BinaryIO, file: File) -> None:
        self._stream = stream
        self._file = file
        self._bytes_left = _MAX_HEADER
        self._texts_left = _MAX_TEXTS

    def _pay(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise Rejected(f"{self._file.name}: its header lies: it is longer than {human_bytes(_MAX_HEADER)}", _HINT)

    def take(self, letters: str) -> tuple[int | float | bool, ...]:
        wanted = struct.calcsize(f"<{letters}")
        self._pay(wanted)
        data = self._stream.read(wanted)
        if len(data) < wanted:
            raise _Ended
        return struct.unpack(f"<{letters}", data)

    def whole(self, letter: str, limit: int, what: str) -> int:
        value = int(self.take(letter)[0])
        if value > limit:
            raise Rejected(f"{self._file.name}: its header lies: {value} {what}", _HINT)
        return value

    def text(self, limit: int) -> str | None:
        """None: longer than ``limit``, and skipped."""
        length = self.whole("Q", 2**40, "bytes in one text")
        if length > limit:
            self.skip(length)
            return None
        self._pay(length)
        data = self._stream.read(length)
        if len(data) < length:
            raise _Ended
        return data.decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        self._pay(count)
        if self._stream.tell() + count > self._file.size:
            raise _Ended
        self._stream.seek(count, 1)

    def skip_texts(self, count: int) -> None:
        """A tokenizer has a quarter of a million of them: 0.1 s."""
        self._texts_left -= count
        if self._texts_left < 0:
            raise Rejected(f"{self._file.name}: its header lies: more than {_MAX_TEXTS:,} texts in its arrays", _HINT)
        read, seek, start = self._stream.read, self._stream.seek, self._stream.tell()
        for _ in range(count):
            length = read(8)
            if len(length) < 8:
                raise _Ended
            size = int.from_bytes(length, "little")
            if size > _LONGEST_TEXT:
                raise Rejected(f"{self._file.name}: its header lies: a text of {size} bytes in an array", _HINT)
            seek(size, 1)
        self.skip(0)
        self._pay(self._stream.tell() - start)

    def tell(self) -> int:
        return self._stream.tell()


def _read(reader: _Reader, file: File) -> GgufHeader:
    version = int(reader.take("I")[0])
    if version not in (2, 3):
        if version in (2 << 24, 3 << 24):
            raise Rejected(f"{file.name} is a big-endian GGUF file", _CONVERT)
        raise Rejected(f"{file.name} is GGUF version {version}; known are 2 and 3", _CONVERT)
    tensors = reader.whole("Q", _MAX_TENSORS, "tensors")
    facts, lengths = _read_pairs(reader, reader.whole("Q", _MAX_PAIRS, "keys"), file)
    shapes, elements, data_bytes = _read_tensors(reader, tensors, file)
    header = GgufHeader(version=version, facts=facts, lengths=lengths, shapes=shapes, elements=elements, data_bytes=data_bytes)
    alignment = header.number("general.alignment") or 32
    start = -(-reader.tell() // alignment) * alignment
    if file.size < start + data_bytes:
        raise not_whole(file.name, file.size, start + data_bytes)
    return header


def _read_pairs(reader: _Reader, count: int, file: File) -> tuple[dict[str, Value], dict[str, int]]:
    facts, lengths, kept, templates_left = dict[str, Value](), dict[str, int](), 0, _KEPT_TEMPLATES
    for _ in range(count):
        key = reader.text(_LONGEST_KEY)
        kind = int(reader.take("I")[0])
        if key is None:
            raise Rejected(f"{file.name}: its header lies: a key of more than {_LONGEST_KEY} bytes", _HINT)
        if kind in _SCALARS:
            facts[key] = reader.take(_SCALARS[kind])[0]
        elif kind == _TEXT:
            facts[key] = text = reader.text(templates_left if _is_template(key) else _KEPT_TEXT) or ""
            templates_left -= len(text.encode()) if _is_template(key) else 0
        elif kind == _ARRAY:
            inner = int(reader.take("I")[0])
            lengths[key] = length = reader.whole("Q", _MAX_ELEMENTS, f"elements in {key[:80]!r}")
            if inner == _TEXT:
                reader.skip_texts(length)
            elif inner not in _SCALARS:
                raise Rejected(f"{file.name}: its header lies: {key[:80]!r} is an array of type {inner}", _HINT)
            elif length <= _KEPT_ELEMENTS and kept + length <= _KEPT_IN_ALL:
                kept += length
                facts[key] = reader.take(f"{length}{_SCALARS[inner]}") if length else ()
            else:
                reader.skip(length * struct.calcsize(f"<{_SCALARS[inner]}"))
        else:
            raise Rejected(f"{file.name}: its header lies: {key[:80]!r} has the type {kind}", _HINT)
    return facts, lengths


def _is_template(key: str) -> bool:
    return key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")


def _read_tensors(reader: _Reader, count: int, file: File) -> tuple[dict[str, tuple[int, ...]], dict[str, int], int]:
    """Shapes, elements by type, and where the data ends, counted from its start."""
    shapes, elements, end = dict[str, tuple[int, ...]](), dict[str, int](), 0
    for _ in range(count):
        name = reader.text(_LONGEST_KEY) or ""
        rank = reader.whole("I", 8, f"dimensions of {name[:80]!r}")
        shape = tuple(int(size) for size in reader.take(f"{rank}Q")) if rank else ()
        kind, offset = (int(each) for each in reader.take("IQ"))
        if kind not in _TENSOR_TYPES:
            raise Rejected(f"{file.name}: tensor {name[:80]!r} has the type {kind}, which is not known", _CONVERT)
        word, per_block, block_bytes = _TENSOR_TYPES[kind]
        number = min(math.prod(shape), 2**62)
        if (shape and shape[0] % per_block) or number * block_bytes // per_block + offset > 2**50:
            raise Rejected(f"{file.name}: its header lies: tensor {name[:80]!r} of {word} has the shape {shape}", _HINT)
        shapes[name] = shape
        elements[word] = elements.get(word, 0) + number
        end = max(end, offset + number // per_block * block_bytes)
    return shapes, elements, end
