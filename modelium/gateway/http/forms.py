"""Forms with files (``multipart/form-data``): a request enters, its fields and its one file leave.

Nobody vouches for a form, so nothing of it is believed before it is counted: the body has the bounds of every body
(``bodies``), and of its parts there may be so many, each with a short head and, unless it is the file, a short value. It is
cut at its boundaries in one pass over the bytes. The file is taken out of the body, which is then let go: it is held once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import hdrs, web

from modelium.errors import RequestError, UnsupportedMediaType
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.bodies import read_body, work_on

MOST_PARTS = 64
MOST_NAME = 128  # characters of a field's name
MOST_VALUE_BYTES = 2**16
MOST_HEAD_BYTES = 2**12  # of a part
_MOST_BOUNDARY = 200  # bytes; 70 are allowed
_SHOWN = 100  # characters of what a stranger sent
_KIND = "multipart/form-data"
# ``; name="file"``: what stands in quotes may have a quote behind a backslash.
_PARAMETER = re.compile(r'\s*;\s*([\w!#$%&\'*+.^`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_AS_IT_IS = frozenset({"", "binary", "8bit", "7bit"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """``fields`` in their order, a name perhaps several times; ``file`` is what the field of that name held."""

    fields: tuple[tuple[str, str], ...]
    file: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    name: str
    start: int
    end: int


async def read_form(request: web.Request, deadline: Deadline, file: str = "file") -> Form:
    """Raises ``UnsupportedMediaType`` (415) for what is no form, ``RequestError`` (400) for a broken one, and what
    ``read_body`` raises. ``file``: the name of the field that has the file."""
    boundary = _boundary(request.headers.get(hdrs.CONTENT_TYPE, ""))
    data = await read_body(request, deadline)
    return await work_on(request, deadline, len(data), lambda: parse_form(boundary, data, file))


def parse_form(boundary: bytes, data: bytes, file: str = "file") -> Form:
    """``data`` cut at ``boundary``. Raises ``RequestError``."""
    fields: list[tuple[str, str]] = []
    found: bytes | None = None
    for part in _parts(b"--" + boundary, data):
        if part.name == file:
            if found is not None:
                raise RequestError(f"the form has two parts {file!r}; send one recording a request")
            found = data[part.start : part.end]
            continue
        if part.end - part.start > MOST_VALUE_BYTES:
            raise RequestError(f"{part.name}: is larger than {MOST_VALUE_BYTES} bytes, which only the file may be")
        try:
            fields.append((part.name, data[part.start : part.end].decode()))
        except UnicodeDecodeError:
            raise RequestError(f"{part.name}: is not text in UTF-8") from None
    return Form(fields=tuple(fields), file=found)


def _boundary(content_type: str) -> bytes:
    kind, semicolon, rest = content_type.partition(";")
    if kind.strip().lower() != _KIND:
        raise UnsupportedMediaType(f"send a form with the file in it ({_KIND}), not {kind.strip()[:_SHOWN] or 'none'!r}")
    boundary = _parameters(semicolon + rest).get("boundary", "").encode("utf-8", "surrogateescape")
    if not 0 < len(boundary) <= _MOST_BOUNDARY or b"\n" in boundary:
        raise RequestError(f"Content-Type: {_KIND} has no boundary; let the client's library write this header")
    return boundary


def _parts(delimiter: bytes, data: bytes) -> Iterator[_Part]:
    """Where the parts are. What stands before the first boundary and behind the last means nothing."""
    place = 0 if data.startswith(delimiter) else data.find(b"\r\n" + delimiter) + 2
    if place == 1:
        raise RequestError("the form does not have the boundary that its Content-Type names")
    for count in range(MOST_PARTS + 1):
        place += len(delimiter)
        if data.startswith(b"--", place):
            return
        if count == MOST_PARTS:
            raise RequestError(f"the form has more than {MOST_PARTS} parts")
        line = data.find(b"\r\n", place, place + MOST_HEAD_BYTES)
        if line < 0 or data[place:line].strip(b" \t"):
            raise RequestError("the form is broken: something stands behind a boundary")
        # The empty line may be the one behind the boundary: a part without a head.
        head_end = data.find(b"\r\n\r\n", line, line + MOST_HEAD_BYTES)
        if head_end < 0:
            raise RequestError(f"the form is broken: a part has no end of its head within {MOST_HEAD_BYTES} bytes")
        start = head_end + 4
        end = data.find(b"\r\n" + delimiter, start - 2)
        if end < 0:
            raise RequestError("the form ends in the middle of a part")
        yield _Part(name=_name(data[line + 2 : head_end]), start=start, end=max(start, end))
        place = end + 2


def _name(head: bytes) -> str:
    name = None
    for line in head.decode("utf-8", "replace").split("\r\n"):
        header, _, value = line.partition(":")
        match header.strip().lower():
            case "content-disposition":
                kind, semicolon, rest = value.partition(";")
                if kind.strip().lower() == "form-data":
                    name = _parameters(semicolon + rest).get("name")
            case "content-transfer-encoding" if value.strip().lower() not in _AS_IT_IS:
                raise RequestError("the form has a part in a Content-Transfer-Encoding; send its bytes as they are")
    if not name:
        raise RequestError("the form has a part without a name")
    if len(name) > MOST_NAME:
        raise RequestError(f"the form has a field whose name is {len(name)} characters long; {MOST_NAME} are taken")
    return name


def _parameters(text: str) -> dict[str, str]:
    """``; a="b c"; d=e``, up to what is not written like this."""
    found: dict[str, str] = {}
    place = 0
    while (match := _PARAMETER.match(text, place)) is not None:
        quoted = match[2]
        found.setdefault(match[1].lower(), match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        place = match.end()
    return found
