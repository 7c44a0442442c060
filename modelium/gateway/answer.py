"""JSON answers: Python values and numpy arrays enter, a response leaves."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """orjson prints numpy arrays in place: 1,000 embeddings of 384 floats in milliseconds, and NaN as null."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
