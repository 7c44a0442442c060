"""Who may ask, and who asks: requests enter, those with a key of the file pass; the others are refused in the shape of their
route.

Without ``gateway.api_keys_file`` everybody may. Never asked for a key are the probes, which the kubelet and a container's
health check send without one, and the pages themselves, which hold nothing and ask for the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from modelium.api_keys import ApiKeys
from modelium.controller.askers import ASKER
from modelium.errors import InvalidBody, Unauthorized
from modelium.values import Asker, Priority, asker_of, priority_called

OPEN_ROUTES = frozenset(
    {"/", "/docs", "/health", "/health/live", "/health/ready", "/ping", "/v2/health/live", "/v2/health/ready"}
)
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="modelium"'}
PRIORITY = "X-Priority"
_SHOWN = 100  # characters of what a stranger sent
API_KEYS: web.AppKey[ApiKeys] = web.AppKey("api_keys", ApiKeys)


@web.middleware
async def require_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Inside of what answers errors. A path that leads nowhere is refused too: what is served is nobody's business."""
    keys = request.app.get(API_KEYS)
    resource = request.match_info.route.resource  # what was matched, not what the client wrote
    if resource is not None and resource.canonical in OPEN_ROUTES:
        return await handler(request)
    if keys is None:
        return await _asked_by(asker_of("", _wanted(request)), request, handler)
    sent = tuple(sent_keys(request.headers))
    for key in sent:
        if (known := keys.find(key)) is not None:
            return await _asked_by(known.asker(_wanted(request)), request, handler)
    raise Unauthorized(
        "this API key is not known here" if sent else "an API key is needed: send the header `Authorization: Bearer KEY`"
    )


async def _asked_by(asker: Asker, request: web.Request, handler: Handler) -> web.StreamResponse:
    before = ASKER.set(asker)
    try:
        return await handler(request)
    finally:
        ASKER.reset(before)


def _wanted(request: web.Request) -> Priority | None:
    """Raises ``InvalidBody``, as for the other headers that say how to answer."""
    if (sent := request.headers.get(PRIORITY)) is None:
        return None
    if (found := priority_called(sent)) is None:
        raise InvalidBody(f"{PRIORITY}: expected high, normal or low, found {sent[:_SHOWN]!r}")
    return found


def sent_keys(headers: Mapping[str, str]) -> Iterator[str]:
    """All headers count: Hugging Face's client sends a token of its own when the machine has one. ``api-key`` is Azure's."""
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        yield credentials.strip()
    for name in ("X-API-Key", "api-key"):
        if key := headers.get(name, "").strip():
            yield key
