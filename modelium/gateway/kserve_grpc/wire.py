"""Protobuf's wire format, as much of it as a gateway needs: a message's bytes enter, a name, a version, an id leave. Pure.

Tensors are stepped over and never copied. What protobuf would not take raises ``Malformed``; of what it would take, one thing
is refused here: groups, which no message of KServe's has. As protobuf says, the last occurrence of a field counts, and a field
of a known number with another wire type is an unknown field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelium.errors import InvalidBody

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 16_384  # of one message: to step over them takes milliseconds, and a request has a few for each tensor

# Fields of ModelInferRequest.
INFER_NAME, INFER_VERSION, INFER_ID, _INFER_PARAMETERS = 1, 2, 3, 4
# Fields of ModelInferResponse, and of ModelStreamInferResponse around it.
_ANSWER_ID, _ANSWER_PARAMETERS, _ANSWER_OUTPUTS, _ANSWER_RAW = 3, 4, 5, 6
_STREAM_ERROR, _STREAM_ANSWER = 1, 2

_WANTS_FINAL = b"triton_enable_empty_final_response"
_IS_FINAL = b"triton_final_response"


class Malformed(InvalidBody):
    """These bytes are no message, or one that is not read here."""


Span = tuple[int, int, int, int]  # the field's number and wire type, and where its value begins and ends (a varint: value, -1)


def spans(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """The fields of the message in ``data[start:end]``, in their order. Raises ``Malformed``."""
    at, stop, count = start, len(data) if end is None else end, 0
    while at < stop:
        count += 1
        if count > MOST_FIELDS:
            raise Malformed(f"the message has more than {MOST_FIELDS} fields")
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _varint(data, at, stop, 5)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise Malformed(f"the message has a field with the number {number}")
        if kind == _BYTES:
            size, at = _varint(data, at, stop)
            if size > stop - at:
                raise Malformed("the message ends in the middle of a field")
            yield number, kind, at, at + size
            at += size
        elif kind == _VARINT:
            value, at = _varint(data, at, stop)
            yield number, kind, value, -1
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
            if size > stop - at:
                raise Malformed("the message ends in the middle of a field")
            yield number, kind, at, at + size
            at += size
        else:
            raise Malformed(f"the message has a field of wire type {kind}, which is not read here")


def _varint(data: bytes, at: int, stop: int, most: int = 10) -> tuple[int, int]:
    value = shift = 0
    for _ in range(most):
        if at >= stop:
            raise Malformed("the message ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise Malformed("the message has a number that is too long")


def text_of(data: bytes, number: int) -> str:
    """The last text field with that number; "" where there is none. Raises ``Malformed``, also for what is no UTF-8."""
    found: tuple[int, int] | None = None
    for each, kind, begin, end in spans(data):
        if each == number and kind == _BYTES:
            found = begin, end
    return _text(data, *found) if found is not None else ""


def _text(data: bytes, begin: int, end: int) -> str:
    try:
        return data[begin:end].decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the message has a text that is not UTF-8") from None


def keys_of(data: bytes, number: int) -> list[str]:
    """The keys of the map with that number, in order. Raises ``Malformed``."""
    return [_text(data, *_key(data, begin, end)) for each, kind, begin, end in spans(data) if each == number and kind == _BYTES]


@dataclass(frozen=True, slots=True)
class Question:
    """What a stream has to know of one ModelInferRequest. ``wants_final``: its client wants to be told of the answer's end."""

    name: str
    version: str
    id: str
    wants_final: bool


def question_of(data: bytes) -> Question:
    """Raises ``Malformed``."""
    texts: dict[int, tuple[int, int]] = {}
    wants_final = False
    for number, kind, begin, end in spans(data):
        if kind != _BYTES:
            continue
        if number <= INFER_ID:
            texts[number] = begin, end
        elif number == _INFER_PARAMETERS and (said := _switch(data, begin, end, _WANTS_FINAL)) is not None:
            wants_final = said
    name, version, ident = (
        _text(data, *texts[number]) if number in texts else "" for number in (INFER_NAME, INFER_VERSION, INFER_ID)
    )
    return Question(name=name, version=version, id=ident, wants_final=wants_final)


@dataclass(frozen=True, slots=True)
class Response:
    """What a stream has to know of one ModelStreamInferResponse.

    ``final``: whether it is the answer's last; None where Triton doesn't say, which it does for what a model has said.
    ``empty``: nothing in it but that.
    """

    error: str
    id: str
    final: bool | None
    empty: bool


def response_of(data: bytes) -> Response:
    """Raises ``Malformed``."""
    error = ident = ""
    final: bool | None = None
    empty = True
    for number, kind, begin, end in spans(data):
        if kind != _BYTES:
            continue
        if number == _STREAM_ERROR:
            error = _text(data, begin, end)
        elif number == _STREAM_ANSWER:
            for inner, inner_kind, from_, to in spans(data, begin, end):
                if inner_kind != _BYTES:
                    continue
                if inner == _ANSWER_ID:
                    ident = _text(data, from_, to)
                elif inner == _ANSWER_PARAMETERS:
                    said = _switch(data, from_, to, _IS_FINAL)
                    final = final if said is None else said
                elif inner in (_ANSWER_OUTPUTS, _ANSWER_RAW):
                    empty = False
    return Response(error=error, id=ident, final=final, empty=empty and not error)


def _switch(data: bytes, begin: int, end: int, name: bytes) -> bool | None:
    """The boolean of a map's entry: None where the entry has another key, False where its value is none."""
    key, value = (0, 0), False
    for number, kind, from_, to in spans(data, begin, end):
        if number == 1 and kind == _BYTES:
            key = from_, to
        elif number == 2 and kind == _BYTES:
            value = False
            for inner, inner_kind, said, _ in spans(data, from_, to):
                value = bool(said) if inner == 1 and inner_kind == _VARINT else value
    return value if data[slice(*key)] == name else None


def _key(data: bytes, begin: int, end: int) -> tuple[int, int]:
    key = (begin, begin)
    for number, kind, from_, to in spans(data, begin, end):
        if number == 1 and kind == _BYTES:
            key = from_, to
    return key


# -- writing -----------------------------------------------------------------------------------------------------------


def number_field(number: int, value: int) -> bytes:
    """A field with a number in it."""
    return _written(number << 3 | _VARINT) + _written(value)


def bytes_field(number: int, value: bytes | str) -> bytes:
    """A field with bytes, a text or a message in it."""
    raw = value.encode("utf-8") if isinstance(value, str) else value
    return b"".join((_written(number << 3 | _BYTES), _written(len(raw)), raw))


def _written(value: int) -> bytes:
    said = bytearray()
    while value > 0x7F:
        said.append(value & 0x7F | 0x80)
        value >>= 7
    said.append(value)
    return bytes(said)


def renamed(data: bytes, number: int, name: str) -> bytes:
    """The same message with another name: said once more at its end, where it counts."""
    return data + bytes_field(number, name)


def ending_told(data: bytes) -> bytes:
    """The same ModelInferRequest, so that Triton tells of the end of its answer."""
    return data + _TELL_ENDING


def error_response(message: str, ident: str) -> bytes:
    """A ModelStreamInferResponse with an error, as Triton writes one."""
    return bytes_field(_STREAM_ERROR, message) + bytes_field(_STREAM_ANSWER, bytes_field(_ANSWER_ID, ident) if ident else b"")


_TELL_ENDING = bytes_field(_INFER_PARAMETERS, bytes_field(1, _WANTS_FINAL) + bytes_field(2, number_field(1, 1)))
