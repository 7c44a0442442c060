"""Model names in URLs: what enters is a request, what leaves is a served name."""

from __future__ import annotations

import re

from aiohttp import web

from modelium.names import served_name

_SERVED = re.compile(r"[A-Za-z0-9._~-]+")  # ~ is in the keys of folders whose name is taken


def called_name(request: web.Request) -> str:
    """What a request for an answer calls: a model by served name or label, or ``BASE:ADAPTER``, for ``Controller.target``."""
    sent: str = request.match_info["model"]
    # What has a colon is a label of its own or names an adapter of a name or a label: the controller knows which there are.
    return sent if ":" in sent else _served(sent)


def model_of(request: web.Request) -> str:
    """The served name. A label works as well: ``/predict/org/name`` is ``/predict/org--name``."""
    return _served(request.match_info["model"])


def _served(sent: str) -> str:
    if _SERVED.fullmatch(sent):
        return sent
    try:
        return served_name(sent)
    except ValueError:
        return sent  # longer than any name: the controller knows no such model
