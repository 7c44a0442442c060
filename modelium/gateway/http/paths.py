"""Paths: a request's path enters; the path that was meant, and the model that is named in it, leave.

Clients join addresses by hand: a slash too many, one at the end, ``/v1`` twice or not at all. A redirect would lose the body of
a POST with many of them, so the request is taken for what it means.
"""

from __future__ import annotations

import difflib
import re

from aiohttp import web

from modelium.names import served_name

_APPS = re.compile(r"/+apps/")
_WITHOUT_VERSION = frozenset(
    {
        "/chat/completions", "/completions", "/embeddings", "/audio/transcriptions", "/audio/translations",
        "/images/generations",
    }
)  # fmt: skip
_SERVED = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/models",
    "/plan",
    "/health/live",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/generations",
)
# What other servers call it. None of these is a path here.
_ELSEWHERE = {
    "/v1/chat": "/v1/chat/completions",
    "/generate": "/predict/NAME",
    "/generate_stream": "/predict/NAME",
    "/predict": "/predict/NAME",
    "/predictions": "/predict/NAME",
    "/invocations": "/predict/NAME",
    "/healthz": "/health/live",
    "/ready": "/health/ready",
}
_SHOWN = 100
_NAME = re.compile(r"[A-Za-z0-9._~-]+")  # ~ is in the keys of folders whose name is taken


def meant_path(sent: str) -> str:
    """``sent`` as it came, percent-encoded, with its query. What is behind ``/apps/NAME`` is the application's own.

    >>> [meant_path(path) for path in ("//v1/models/", "/embeddings?x=1", "/v1/v1/models", "/apps/a//b/", "/")]
    ['/v1/models', '/v1/embeddings?x=1', '/v1/models', '/apps/a//b/', '/']
    """
    path, question, query = sent.partition("?")
    if not path.startswith("/"):
        return sent
    if in_apps := _APPS.match(path):
        return "/apps/" + sent[in_apps.end() :]
    path = re.sub("/{2,}", "/", path).rstrip("/") or "/"
    path = re.sub(r"^(/v1)+(?=/v1/)", "", path)
    if path in _WITHOUT_VERSION:
        path = f"/v1{path}"
    return path + question + query


def nearest_path(sent: str) -> str:
    """What somebody who asks at ``sent``, which nobody serves, may have meant; "" if it looks like nothing.

    >>> nearest_path("/v1/chat/completion"), nearest_path("/invocations"), nearest_path("/x")
    ('/v1/chat/completions', '/predict/NAME', '')
    """
    path = sent[:_SHOWN].lower()
    near = difflib.get_close_matches(path, _SERVED, n=1, cutoff=0.75)
    return _ELSEWHERE.get(path) or (near[0] if near else "")


def shown_path(path: str) -> str:
    """Of a stranger's path no more than a line."""
    return path if len(path) <= _SHOWN else f"{path[:_SHOWN]}…"


def called_name(request: web.Request) -> str:
    """What a request for an answer calls: a model by served name or label, or ``BASE:ADAPTER``, for ``Controller.target``."""
    return name_in(request.match_info["model"])


def name_in(sent: str) -> str:
    """The same of a part of a path."""
    # What has a colon is a label of its own or names an adapter of a name or a label: the controller knows which there are.
    return sent if ":" in sent else _served_name(sent)


def model_of(request: web.Request) -> str:
    """The served name. A label works as well: ``/predict/org/name`` is ``/predict/org--name``."""
    return _served_name(request.match_info["model"])


def _served_name(sent: str) -> str:
    if _NAME.fullmatch(sent):
        return sent
    try:
        return served_name(sent)
    except ValueError:
        return sent  # longer than any name: the controller knows no such model
