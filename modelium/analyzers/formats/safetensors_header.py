"""The header of a safetensors file: exact tensor sizes, and the proof that the file is whole.

What enters: a file. What leaves: its ``TensorTally``, or ``NotYet`` (shorter than the header says) / ``Rejected`` (a
header that contradicts itself). The checks are those of the safetensors library, which would refuse the file only at
load.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from itertools import accumulate, chain
from operator import attrgetter

from modelium.analyzers.folder import File, refuse_lfs_pointer, refuse_preallocated
from modelium.analyzers.formats.json_text import refuse_crowded
from modelium.analyzers.formats.tensor_tally import Stored, TensorTally
from modelium.analyzers.verdict import Rejected, not_whole
from modelium.sizes import human_bytes

MAX_HEADER_BYTES = 100_000_000  # the library's own limit
MAX_TENSORS = 250_000  # of one file; the largest models have 100,000 in all their files together
_MAX_DATA_BYTES = 2**50
_HINT = "copy the file again from its source"
_START = re.compile(rb'\{("__metadata__":\{(?:"(?:[^"\\]|\\.)*":"(?:[^"\\]|\\.)*",?)*\},)?(?=")')
_ENTRY = re.compile(
    rb'"([^"\\]*)":\{"dtype":"([A-Z0-9_]+","shape":\[[0-9,]{0,160})\],"data_offsets":\[([0-9]{1,16}),([0-9]{1,16})\]\}'
    rb'(?:,(?=")|\} *\Z)'
)
_SIZE_OF: Callable[[Stored], int] = attrgetter("size")
_ENTRY_FRAME = len(b'"":{"dtype":"],"data_offsets":[,]},')

# safetensors' word → torch's word, bits of one element
_DTYPES = {
    "F64": ("float64", 64),
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F4": ("float4_e2m1fn", 4),
    "C64": ("complex64", 64),
    "I64": ("int64", 64),
    "I32": ("int32", 32),
    "I16": ("int16", 16),
    "I8": ("int8", 8),
    "U64": ("uint64", 64),
    "U32": ("uint32", 32),
    "U16": ("uint16", 16),
    "U8": ("uint8", 8),
    "BOOL": ("bool", 8),
}


def read_header(file: File) -> TensorTally:
    """Read the header of ``file`` and hold it against the file's size."""
    with file.open() as stream:
        head = stream.read(8)
        if file.size < 1024:
            refuse_lfs_pointer(file, head + stream.read(1024 - len(head)))
            stream.seek(len(head))
        if len(head) < 8:
            raise not_whole(file.name, file.size)
        refuse_preallocated(file, head)
        length = int.from_bytes(head, "little")
        if length > MAX_HEADER_BYTES:
            claim = human_bytes(length)
            raise Rejected(f"{file.name} claims a header of {claim}: not a safetensors file, or a damaged one", _HINT)
        header = stream.read(length)
    if len(header) < length:
        raise not_whole(
            file.name,
            file.size,
            detail=f"{human_bytes(file.size)} so far, its header alone has {human_bytes(8 + length)}",
        )
    refuse_preallocated(file, header)
    tally = tally_header(header, file.name)
    expected = 8 + length + tally.data_bytes
    if file.size < expected:
        raise not_whole(file.name, file.size, expected)
    if file.size > expected:
        extra = human_bytes(file.size - expected)
        raise Rejected(f"{file.name} is {extra} longer than its header says", _HINT)
    return tally


def tally_header(header: bytes, name: str) -> TensorTally:
    """Check a header against itself: shapes against offsets, offsets against each other.

    1. As safetensors' own writer writes it, and nothing wrong: in one sweep. A mixture of experts has 100,000 tensors.
    2. Else as JSON, tensor by tensor, with what is wrong in words.
    """
    if (count := header.count(b'"data_offsets"')) > MAX_TENSORS:
        raise Rejected(f"{name}: its header lists {count:,} tensors; at most {MAX_TENSORS:,} are read", _HINT)
    swept = _sweep(header, count)  # 1
    return swept if swept is not None else _parse(header, name)  # 2


def _sweep(header: bytes, count: int) -> TensorTally | None:
    """None for a header that is to be looked at more closely."""
    start = _START.match(header)
    entries = _ENTRY.findall(header, start.end()) if start is not None else []
    if start is None or not entries or len(entries) != count:
        return None
    covered = sum(map(len, chain.from_iterable(entries))) + len(entries) * _ENTRY_FRAME
    if start.end() + covered != len(header.rstrip(b" ")):  # there is something besides
        return None
    names, kinds, begins, ends = zip(*entries, strict=True)
    known = {kind: found for kind in set(kinds) if (found := _stored(kind)) is not None}
    if len(known) != len(set(kinds)):
        return None
    stored = list(map(known.__getitem__, kinds))
    # The writer's order is that of the data: each begins where the one before ends, and is as long as its shape says.
    lasts = list(map(int, ends))
    if begins[0] != b"0" or begins[1:] != ends[:-1] or list(accumulate(map(_SIZE_OF, stored))) != lasts:
        return None
    try:
        tensors = dict(zip(b"\0".join(names).decode().split("\0"), stored, strict=True))
    except ValueError:  # no UTF-8, or a zero in a name
        return None
    return TensorTally(tensors=tensors, data_bytes=lasts[-1]) if len(tensors) == len(stored) else None


def _stored(kind: bytes) -> Stored | None:
    """None for what is to be looked at more closely."""
    dtype, _, shape = kind.partition(b'","shape":[')
    word, bits = _DTYPES.get(dtype.decode(), ("", 0))
    try:
        count = math.prod(int(dimension) for dimension in shape.split(b",") if shape)
    except ValueError:  # a comma too many
        return None
    size = (count * bits + 7) // 8
    return Stored(word, count, size) if bits and size <= _MAX_DATA_BYTES else None


def _parse(header: bytes, name: str) -> TensorTally:
    refuse_crowded(header, f"{name}: its header")
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{name}: its header is not valid JSON ({type(error).__name__})", _HINT) from None
    if not isinstance(entries, dict):
        raise Rejected(f"{name}: its header is not a JSON object", _HINT)
    entries.pop("__metadata__", None)
    tensors: dict[str, Stored] = {}
    spans: list[tuple[int, int]] = []
    for tensor, entry in entries.items():
        dtype, count, begin, end = _read_entry(entry, tensor, name)
        spans.append((begin, end))
        tensors[tensor] = Stored(dtype, count, end - begin)
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            what = "overlap" if begin < position else "leave a hole"
            raise Rejected(f"{name}: its header lies: tensors {what} at byte {begin}", _HINT)
        position = end
    return TensorTally(tensors=tensors, data_bytes=position)


def _read_entry(entry: object, tensor: str, name: str) -> tuple[str, int, int, int]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise Rejected(f"{name}: its header lies: tensor {tensor[:80]!r} has no dtype, shape or offsets", _HINT)
    if not 0 <= begin <= end <= _MAX_DATA_BYTES:
        raise Rejected(f"{name}: its header lies: tensor {tensor[:80]!r} is at bytes {begin} to {end}", _HINT)
    word, bits = _DTYPES.get(dtype, (dtype.lower(), 0))
    count = 1
    for dimension in shape:
        if not isinstance(dimension, int) or isinstance(dimension, bool) or dimension < 0:
            raise Rejected(f"{name}: its header lies: tensor {tensor[:80]!r} has the shape {str(shape)[:80]}", _HINT)
        count = min(count * dimension, 2**62)  # a product of lies stays small enough to compute with
    if bits and (count * bits + 7) // 8 != end - begin:
        raise Rejected(
            f"{name}: its header lies: tensor {tensor[:80]!r} of {count} {dtype} cannot have {end - begin} bytes", _HINT
        )
    return word, count, begin, end
