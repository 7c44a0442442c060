"""Requests that a web page makes a browser send: what enters is a request, what leaves is its answer, or a refusal.

A browser lets any page send to any address that it reaches, this machine's own among them, and only keeps it from reading the
answers. So what comes from another site is refused here, before it is counted, routed or read:

1. The ``Host`` must be ours (``hosts``): the name of a page that is re-bound to our address is not.
2. A preflight of a site in ``gateway.cors_origins`` is answered.
3. What another site sent is refused, whatever it asks, except for the page itself and the probes, which tell nothing. The
   browser says where a request comes from (``Sec-Fetch-Site``, ``Origin``); no page can change that, and no program sends it.
4. A browser's body comes with a content type that a page cannot send without a preflight, unless it is a recording in a form.
   Programs may leave it out.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from modelium.config import GatewaySettings
from modelium.errors import OtherSite, QueueFull, RequestError, UnknownHost, UnsupportedMediaType
from modelium.gateway.http.connections import Connection
from modelium.gateway.http.errors import ANSWER_REFUSAL, error_response
from modelium.gateway.http.hosts import KnownHosts
from modelium.gateway.http.keys import OPEN_ROUTES

if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_BROWSERS = ("Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")
_OUR_SITE = frozenset({"same-origin", "none"})  # none: the user's own doing, like an address that was typed
_SENT_WITHOUT_ASKING = frozenset({"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
_FORM = "multipart/form-data"
_OF_FORMS = ("/audio/transcriptions", "/audio/translations")
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}")
_USUAL_HEADERS = "authorization, content-type, x-api-key, x-priority, x-request-id, x-request-timeout"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHOWN = 100  # characters of what a stranger sent

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO_DOCUMENT = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Which hosts are ours and which other sites may ask (``*``: all)."""

    hosts: KnownHosts
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, gateway: GatewaySettings) -> Guard:
        """As ``gateway:`` says."""
        return cls(hosts=_hosts(gateway, gateway.host), origins=frozenset(gateway.cors_origins))

    @classmethod
    def of_metrics(cls, gateway: GatewaySettings, host: str) -> Guard:
        """For the metrics port: the same names, and no other site."""
        return cls(hosts=_hosts(gateway, host))

    def welcomes(self, origin: str | None) -> bool:
        """May pages of ``origin`` ask (``gateway.cors_origins``)?"""
        return origin is not None and ("*" in self.origins or origin in self.origins)

    def check_host(self, request: web.Request) -> None:
        """No ``Host`` at all is HTTP/1.0, which some health checks speak and no browser does."""
        sent = request.headers.getall(hdrs.HOST, [])
        if len(sent) > 1 or any(not self.hosts.know(host) for host in sent):
            raise UnknownHost(
                f"{sent[0][:_SHOWN]!r} is not a name of this server: ask it by its address, or add the name to "
                "gateway.allowed_hosts in modelium.yaml (a reverse proxy sends the name that its clients use)"
            )

    def check_site(self, request: web.Request) -> None:
        """Raises ``OtherSite`` for what a page of another site had a browser send."""
        origin = request.headers.get(hdrs.ORIGIN)
        if self.welcomes(origin) or _of_our_site(request, origin) or (request.method in ("GET", "HEAD") and _is_open(request)):
            return
        raise OtherSite(
            f"a web page of another site ({origin[:_SHOWN] if origin else 'unnamed'}) made the browser send this, "
            "which is refused: add its origin to gateway.cors_origins in modelium.yaml if it may"
        )

    def check_content_type(self, request: web.Request) -> None:
        """Raises ``UnsupportedMediaType`` for what a form of another page could send without asking."""
        if not any(name in request.headers for name in _OF_BROWSERS) or not request.can_read_body or _of_an_app(request):
            return
        sent = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
        if sent in _SENT_WITHOUT_ASKING and not (sent == _FORM and _takes_forms(request)):
            raise UnsupportedMediaType(
                f"a browser's request needs `Content-Type: application/json` (or that of the picture or sound), "
                f"not {sent[:_SHOWN] or 'none'!r}"
            )


GUARD: web.AppKey[Guard] = web.AppKey("guard", Guard)


@web.middleware
async def guard_from_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost: what is refused here was no request."""
    guard = request.app[GUARD]
    try:
        _check_room(request)
        guard.check_host(request)
        if _is_preflight(request) and guard.welcomes(request.headers.get(hdrs.ORIGIN)):
            return web.Response(status=204, headers=_preflight_headers(request))
        guard.check_site(request)
        guard.check_content_type(request)
        if request.method == "OPTIONS" and isinstance(fault := request.match_info.http_exception, web.HTTPMethodNotAllowed):
            return web.Response(status=204, headers={"Allow": ", ".join(sorted(fault.allowed_methods))})
    except RequestError as error:
        return request.app.get(ANSWER_REFUSAL, error_response)(error, request)
    return await handler(request)


def _check_room(request: web.Request) -> None:
    """Of this one place, because nothing may be counted or read before it. The probes always have room."""
    if isinstance(request.protocol, Connection) and not _is_open(request) and not request.protocol.may_be_answered():
        raise QueueFull("as many requests are being answered as gateway.max_connections allows; try again", retry_after_s=1)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For ``on_response_prepare``: streams have no later moment for headers."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if response.content_type != "text/html":  # the page brings its own, and so may an application of the user's
        response.headers.setdefault(*_NO_DOCUMENT)
    guard = request.app[GUARD]
    if not guard.origins:
        return
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and guard.welcomes(origin):
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = "*"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"


def headers_for_programs(guard: Guard) -> dict[str, str]:
    """What ``add_headers`` adds to the answer to a request without an ``Origin``, which is no page."""
    return {**_HEADERS, **dict([_NO_DOCUMENT]), **({hdrs.VARY: hdrs.ORIGIN} if guard.origins else {})}


def _hosts(gateway: GatewaySettings, bound: str) -> KnownHosts:
    return KnownHosts.of(gateway.allowed_hosts, bound=bound, machine=socket.gethostname())


def _of_our_site(request: web.Request, origin: str | None) -> bool:
    """As the browser judged it; one that doesn't say (plain HTTP from another machine) at least says whose page it is."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in _OUR_SITE
    host = request.headers.get(hdrs.HOST, "")
    return origin is None or _authority(origin) == _authority(f"{origin.partition('://')[0]}://{host}")


def _authority(origin: str) -> tuple[str | None, int | None] | None:
    try:
        parts = urlsplit(origin)
        return parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None


def _is_open(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in OPEN_ROUTES


def _of_an_app(request: web.Request) -> bool:
    """What an application of the user's takes, it knows itself: forms of its own pages, perhaps."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical.startswith("/apps/")


def _takes_forms(request: web.Request) -> bool:
    """Recordings come in forms. A page may send one without a preflight, so where it comes from must be ours, or welcome: that
    was checked (3)."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical.endswith(_OF_FORMS)


def _is_preflight(request: web.Request) -> bool:
    return request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def _preflight_headers(request: web.Request) -> Mapping[str, str]:
    """Its headers are granted by name: ``*`` would leave out ``Authorization``."""
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    headers: dict[str, str] = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: asked if _HEADER_NAMES.fullmatch(asked) else _USUAL_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: "600",
    }
    if "Access-Control-Request-Private-Network" in request.headers:
        headers["Access-Control-Allow-Private-Network"] = "true"
    return headers
