"""Answers to clients: Python values and numpy arrays enter, a JSON response leaves; a write takes no longer than it may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

import numpy as np
import orjson
from aiohttp import web

from modelium.names import printable

GRACE_S = 2.0  # after a deadline, for what is said last


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """orjson prints numpy arrays in place: 1,000 embeddings of 384 floats in milliseconds, and NaN as null."""
    try:
        body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # orjson.JSONEncodeError: half a surrogate pair, or a number beyond 64 bits
        body = orjson.dumps(_sendable(value), option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def _sendable(value: object) -> object:
    """``value`` with all that JSON cannot carry turned into what it can: one model's odd word must not break a list of all."""
    match value:
        case str():
            return printable(value, longest=None)
        case bool() | None:
            return value
        case int():
            return max(-(2**63), min(value, 2**63 - 1))
        case Mapping():
            return {printable(str(key), longest=None): _sendable(each) for key, each in value.items()}
        case list() | tuple():
            return [_sendable(each) for each in value]
        case float() | np.ndarray() | np.generic():
            return value
        case _:
            return printable(str(value))


async def write_within(request: web.Request, seconds: float, write: Awaitable[None]) -> None:
    """A client that does not read what it is sent holds its model no longer than this: then the connection is cut.

    Raises ``ConnectionError``.
    """
    try:
        async with asyncio.timeout(seconds):
            await write
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client stopped reading") from None


def waited_headers(waited_s: float, *, cold: bool) -> dict[str, str]:
    """What the client is told of a load that it waited for."""
    return {"X-Modelium-Waited-Ms": f"{waited_s * 1000:.0f}"} | ({"X-Modelium-Cold": "1"} if cold else {})
