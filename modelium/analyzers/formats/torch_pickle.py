"""The pickle inside a torch file, read as data: nothing is imported, called or constructed.

What enters: pickle bytes. What leaves: which storages and tensors they speak of. The closed set of opcodes is the one
that torch's own ``weights_only`` reader has; a pickle that needs more, or that names functions which have no business
in weights, is refused here, before any process has opened it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from modelium.analyzers.verdict import Rejected

_STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "UntypedStorage": ("uint8", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "Float8_e4m3fnStorage": ("float8_e4m3fn", 1),
    "Float8_e5m2Storage": ("float8_e5m2", 1),
}
_INERT_ROOTS = {"torch", "collections", "_codecs", "numpy"}
_INERT_BUILTINS = {"set", "frozenset", "bytearray", "complex", "int", "float", "bool", "str", "dict", "list", "tuple", "slice"}


MAX_STEPS = 2_000_000  # a tensor takes some 35: more than 50,000 tensors, and the largest file there is has some thousands


class PickleEnds(Exception):
    """The bytes end before the pickle does."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers of one type: where they lie in the archive, and how many."""

    key: str
    dtype: str
    item_bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A view of a storage: ``count`` items from ``offset`` on."""

    storage: Storage
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class _Global:
    module: str
    name: str


@dataclass(slots=True)
class PickleFacts:
    """What a pickle says: its value with every call left out, and the storages it refers to by key."""

    value: object = None
    end: int = 0
    storages: dict[str, Storage] = field(default_factory=dict)


_MARK = object()
_OPAQUE = object()
_CONSTANTS: dict[int, Callable[[], object]] = {
    ord("}"): dict,
    ord("]"): list,
    ord(")"): tuple,
    0x8F: list,  # EMPTY_SET
    ord("N"): lambda: None,
    0x88: lambda: True,
    0x89: lambda: False,
    ord("("): lambda: _MARK,
}
_NUMBERS = {
    ord("J"): struct.Struct("<i"),
    ord("K"): struct.Struct("<B"),
    ord("M"): struct.Struct("<H"),
    ord("G"): struct.Struct(">d"),
}
# length-prefixed texts and bytes: opcode → (size of the length, is text)
_PREFIXED = {
    ord("X"): (4, True),
    0x8C: (1, True),
    0x8D: (8, True),
    ord("T"): (4, True),
    ord("U"): (1, True),
    ord("B"): (4, False),
    ord("C"): (1, False),
    0x8E: (8, False),
    0x8A: (1, False),  # LONG1, taken as bytes and turned into a number below
}
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}


def read_pickle(data: bytes, start: int, name: str) -> PickleFacts:
    """Read one pickle at ``start``. Raises ``PickleEnds`` when the bytes end first, ``Rejected`` when it is not weights."""
    try:
        return _Reader(data, start, name).run()
    except (struct.error, PickleEnds):
        raise PickleEnds from None
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected(
            f"{name}: its pickle is damaged ({type(error).__name__})", "copy the file again from its source"
        ) from None


class _Reader:
    """A stack machine over the opcodes; calls push what they would have made, as a description."""

    __slots__ = ("at", "data", "facts", "memo", "name", "size", "stack")

    def __init__(self, data: bytes, start: int, name: str) -> None:
        self.data, self.at, self.size, self.name = data, start, len(data), name
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.facts = PickleFacts()

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > self.size:
            raise PickleEnds
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def byte(self) -> int:
        if self.at >= self.size:
            raise PickleEnds
        self.at += 1
        return self.data[self.at - 1]

    def number(self, size: int) -> int:
        return self.byte() if size == 1 else int.from_bytes(self.take(size), "little")

    def since_mark(self) -> list[object]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def run(self) -> PickleFacts:
        stack, memo = self.stack, self.memo
        for _ in range(MAX_STEPS):
            code = self.byte()
            if code == 0x71:  # q BINPUT, a third of all opcodes
                memo[self.byte()] = stack[-1]
            elif code in _CONSTANTS:
                stack.append(_CONSTANTS[code]())
            elif code == 0x72:  # r LONG_BINPUT
                memo[self.number(4)] = stack[-1]
            elif code == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
            elif code == 0x68:  # h BINGET
                stack.append(memo[self.byte()])
            elif code == 0x6A:  # j LONG_BINGET
                stack.append(memo[self.number(4)])
            elif code in _PREFIXED:
                stack.append(self.prefixed(code))
            elif code in _NUMBERS:
                packed = _NUMBERS[code]
                stack.append(packed.unpack(self.take(packed.size))[0])
            elif code in _TUPLES:
                count = _TUPLES[code]
                items = tuple(stack[-count:])
                del stack[-count:]
                stack.append(items)
            elif code == 0x2E:  # . STOP
                self.facts.value, self.facts.end = stack.pop(), self.at
                return self.facts
            else:
                self.compound(code)
        hint = "convert the weights to safetensors"
        raise Rejected(f"{self.name}: its pickle takes more than {MAX_STEPS:,} steps to read; no weights need so many", hint)

    def prefixed(self, code: int) -> object:
        size, is_text = _PREFIXED[code]
        piece = self.take(self.number(size))
        if code == 0x8A:
            return int.from_bytes(piece, "little", signed=True)
        return piece.decode("utf-8", "replace") if is_text else piece

    def compound(self, code: int) -> None:  # noqa: C901 — a table of opcodes
        stack = self.stack
        match code:
            case 0x80:  # PROTO
                self.take(1)
            case 0x95:  # FRAME
                self.take(8)
            case 0x74:  # t TUPLE
                stack.append(tuple(self.since_mark()))
            case 0x75:  # u SETITEMS
                items = self.since_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    self.set_item(key, value)
            case 0x73:  # s SETITEM
                value, key = stack.pop(), stack.pop()
                self.set_item(key, value)
            case 0x61:  # a APPEND
                item = stack.pop()
                self.extend([item])
            case 0x65 | 0x90:  # e APPENDS, ADDITEMS
                self.extend(self.since_mark())
            case 0x63:  # c GLOBAL
                stack.append(self.found(self.line(), self.line()))
            case 0x93:  # STACK_GLOBAL
                name, module = stack.pop(), stack.pop()
                if not isinstance(module, str) or not isinstance(name, str):
                    raise TypeError  # never put into words: a tuple of tuples of the same may be 2^40 of them
                stack.append(self.found(module, name))
            case 0x52 | 0x81:  # R REDUCE, NEWOBJ
                arguments, function = stack.pop(), stack.pop()
                stack.append(_describe_call(function, arguments))
            case 0x62:  # b BUILD: the state is of no interest
                stack.pop()
            case 0x51:  # Q BINPERSID
                stack.append(self.storage(stack.pop()))
            case 0x30:  # 0 POP
                stack.pop()
            case _:
                hint = "convert the weights to safetensors"
                raise Rejected(f"{self.name}: its pickle uses opcode 0x{code:02x}, which torch's safe reader refuses", hint)

    def line(self) -> str:
        window = self.data[self.at : self.at + 512]
        end = window.find(b"\n")
        if end < 0:
            raise PickleEnds if len(window) < 512 else ValueError
        self.at += end + 1
        return window[:end].decode("utf-8", "replace")

    def found(self, module: str, name: str) -> _Global:
        root = module.split(".")[0]
        inert = root in _INERT_ROOTS or (root in ("builtins", "__builtin__") and name in _INERT_BUILTINS)
        if not inert:
            hint = "use a safetensors version from a source you trust; such a file is never opened"
            raise Rejected(f"{self.name}: reading it would call {module[:150]}.{name[:150]}", hint)
        return _Global(module, name)

    def set_item(self, key: object, value: object) -> None:
        # Only text keys: hashing a deep tuple that somebody forged would overflow the interpreter's stack.
        target = self.stack[-1]
        if isinstance(target, dict) and isinstance(key, str):
            target[key] = value

    def extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)

    def storage(self, identity: object) -> Storage:
        match identity:
            case ("storage", _Global(name=kind), str(key), _, int(count), *_) if count >= 0:
                dtype, item_bytes = _STORAGES[kind]
            case _:
                raise ValueError(identity)
        stored = Storage(key, dtype, item_bytes, count)
        self.facts.storages[key] = stored
        return stored


def _describe_call(function: object, arguments: object) -> object:
    if not isinstance(function, _Global):
        return _OPAQUE
    match function.name, arguments:
        case "OrderedDict", _:
            return {}
        case "_rebuild_parameter" | "_rebuild_parameter_with_state", (StoredTensor() as tensor, *_):
            return tensor
        case "_rebuild_tensor_v2" | "_rebuild_tensor" | "_rebuild_tensor_v3", (
            Storage() as storage,
            int(offset),
            tuple(shape),
            *_,
        ):
            count = 1
            for dimension in shape:
                if not isinstance(dimension, int) or dimension < 0:
                    raise ValueError(shape)
                count = min(count * dimension, 2**62)
            return StoredTensor(storage, offset, count)
    return _OPAQUE
