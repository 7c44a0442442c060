"""JSON answers: Python values and numpy arrays enter, a response leaves."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web

from modelium.gateway.codecs.answers import Raw


def answer_response(value: object, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer as it is: JSON, or the bytes of an image."""
    if isinstance(value, Raw):
        return web.Response(body=value.data, headers=headers, content_type=value.content_type)
    return json_response(value, headers=headers)


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """orjson prints numpy arrays in place: 1,000 embeddings of 384 floats in milliseconds, and NaN as null."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
