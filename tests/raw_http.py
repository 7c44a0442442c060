"""Bytes to a port, whatever they are: what is sent enters, the status that came back leaves, and how the connection ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tests.malformed import Malformed, Port, Then

_MOST_HEAD = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """``status``: 0 where nothing was answered and the connection was closed. ``late``: neither came in time."""

    status: int = 0
    type: str = ""
    error: str = ""
    late: bool = False
    took_s: float = 0.0

    @property
    def word(self) -> str:
        """For a table."""
        return "late" if self.late else "closed" if self.status == 0 else str(self.status)


async def send(malformed: Malformed, ports: Mapping[Port, int], *, within_s: float) -> Outcome:
    """Until it is answered or closed by the server; or by this client, where it does that. Raises where nobody listens."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", ports[malformed.port], limit=_MOST_HEAD)
            try:
                outcome = await _exchange(malformed, reader, writer)
            except (OSError, asyncio.IncompleteReadError):  # it was closed
                outcome = Outcome()
            finally:
                writer.transport.abort()
    except TimeoutError:
        return Outcome(late=True, took_s=time.monotonic() - began)
    return Outcome(status=outcome.status, type=outcome.type, error=outcome.error, took_s=time.monotonic() - began)


async def _exchange(malformed: Malformed, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Outcome:
    with contextlib.suppress(OSError):  # it may have heard enough; its answer is there all the same
        for piece in malformed.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if malformed.then is Then.HALF_CLOSE:
            writer.write_eof()
    if malformed.then is Then.HANG_UP:
        return Outcome()
    if malformed.then is Then.READ_A_LITTLE:
        await reader.read(16)
        return Outcome()
    status, head = await _head(reader)
    if malformed.asks_for_head or status in (204, 304):
        return Outcome(status=status)
    length = head.get("content-length")
    body = await (reader.readexactly(int(length)) if length is not None else _until_the_end(reader, head))
    kind, error = _said(body)
    return Outcome(status=status, type=kind, error=error)


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Of the first answer that is more than "go on"."""
    while True:
        raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = raw.split("\r\n")
        status = int(line.split(" ")[1])
        if status >= 200:
            pairs = (field.partition(":") for field in fields)
            return status, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _until_the_end(reader: asyncio.StreamReader, head: Mapping[str, str]) -> bytes:
    if head.get("transfer-encoding", "").lower() != "chunked":
        return await reader.read()
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return body


def _said(body: bytes) -> tuple[str, str]:
    """The type and the words of an error, in any of the routes' shapes."""
    try:
        answer = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(answer, dict):
        return "", ""
    match answer.get("error"):
        case dict(error):
            return str(error.get("code") or error.get("type")), str(error.get("message"))[:300]
        case error:
            return str(answer.get("type", "")), str(error or "")[:300]
