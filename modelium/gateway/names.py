"""Model names in URLs: what enters is a request, what leaves is a served name."""

from __future__ import annotations

import re

from aiohttp import web

from modelium.names import served_name

_SERVED = re.compile(r"[A-Za-z0-9._~-]+")  # ~ is in the keys of folders whose name is taken


def model_of(request: web.Request) -> str:
    """The served name. A label works as well: ``/predict/org/name`` is ``/predict/org--name``."""
    sent = request.match_info["model"]
    if _SERVED.fullmatch(sent):
        return sent
    try:
        return served_name(sent)
    except ValueError:
        return sent  # longer than any name: the controller knows no such model
