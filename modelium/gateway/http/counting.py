"""Counting of predictions: requests pass through, the recorder learns the status and the time of each."""

from __future__ import annotations

from time import monotonic

from aiohttp import web
from aiohttp.typedefs import Handler

from modelium.metrics import Recorder

MODEL: web.RequestKey[str] = web.RequestKey("model", str)
RECORDER: web.AppKey[Recorder] = web.AppKey("recorder", Recorder)

# Of a streamed answer that ended with an error: what its status would have been, had the error come before the first byte.
BROKEN_OFF: web.RequestKey[int] = web.RequestKey("broken_off", int)

_POSTED = (
    "/v1/", "/v2/models/", "/v2/rerank", "/rerank", "/score", "/classify", "/pooling", "/openai/", "/api/chat", "/api/generate",
    "/api/embed",
)  # fmt: skip
CLIENT_GONE = 499  # nginx' code for a client that did not wait; only the metrics ever see it


@web.middleware
async def count_predictions(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count requests to /predict and /apps, and POSTs to the other paths that ask models. One that names no model is counted
    under "": wrong names make no series."""
    posted = request.method == "POST" and request.path.startswith(_POSTED)
    if not posted and not request.path.startswith(("/predict/", "/apps/")):
        return await handler(request)
    started_at = monotonic()
    code = CLIENT_GONE  # all else comes back as a response: only a cancelled handler raises
    try:
        response = await handler(request)
        code = request.get(BROKEN_OFF, response.status)
        return response
    finally:
        request.app[RECORDER].request(request.get(MODEL, ""), code, monotonic() - started_at)
