"""Real answers against the OpenAPI document of the gateway that gave them: a route that answers what its document does not say
is a fault, whichever test asked it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import jsonschema
from aiohttp import web

from modelium.config import Settings
from modelium.gateway import build_app
from modelium.gateway.openapi import build_document
from modelium.metrics import Recorder

_LARGEST = 2**18  # bytes of a body that is looked at: what is larger has many equal parts


class Document:
    """What the routes of an application say of themselves."""

    def __init__(self, app: web.Application) -> None:
        self._said = build_document(app.router.routes())
        self._validators: dict[tuple[str, str, str], Any] = {}
        self._paths = [(re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(path))), path) for path in self._said["paths"]]

    def meant(self, method: str, path: str) -> str:
        """Whose route that is, "" for nobody's; as the router finds it."""
        found = (one for pattern, one in self._paths if pattern.fullmatch(path) and method in self._said["paths"][one])
        return path if method in self._said["paths"].get(path, {}) else next(found, "")

    def fault(self, method: str, path: str, status: int, content_type: str, body: bytes) -> str:
        """What is wrong with an answer of that route; "" for nothing."""
        said = self._said["paths"][path][method]["responses"]
        if "default" in said:  # somebody else's answer, passed on
            return ""
        if (one := said.get(str(status))) is None:
            return f"{status} is not documented ({body[:300]!r})"
        content = one["content"]
        found = content.get(content_type) or content.get("*/*")
        if found is None:
            return f"{status} as {content_type} is not documented"
        is_json = content_type == "application/json" and "application/json" in content
        if not is_json or len(body) > _LARGEST or ("*/*" in content and not body):
            return ""
        error = next(self._validator((method, path, str(status)), found["schema"]).iter_errors(json.loads(body)), None)
        return f"{status}: {error.json_path}: {error.message[:500]}" if error is not None else ""

    def _validator(self, place: tuple[str, str, str], schema: Any) -> Any:
        if place not in self._validators:
            whole = {"components": self._said["components"], "allOf": [schema]}
            self._validators[place] = jsonschema.Draft202012Validator(whole)
        return self._validators[place]


@cache
def document() -> Document:
    """Of a gateway as it is by default; building one asks nothing of its parts."""
    return Document(build_app(cast("Any", None), cast("Any", None), Settings(), Recorder()))


def check(method: str, path: str, status: int, content_type: str, body: bytes) -> None:
    """An answer that a client got."""
    method, path = method.lower(), path.partition("?")[0]
    if (meant := document().meant(method, path)) and status != 405:
        fault = document().fault(method, meant, status, content_type, body)
        assert not fault, f"{method} {meant}: {fault}"


@dataclass
class Checked:
    """For an application's ``on_response_prepare``. ``faults``: what was answered and is not documented."""

    faults: list[str] = field(default_factory=list)

    async def check(self, request: web.Request, response: web.StreamResponse) -> None:
        resource = request.match_info.route.resource
        if resource is None or request.method in ("HEAD", "OPTIONS") or response.status == 405:
            return
        said = response.body if isinstance(response, web.Response) else b""
        body = said if isinstance(said, bytes) else b""
        method, path = request.method.lower(), resource.canonical
        if fault := document().fault(method, path, response.status, response.content_type, body):
            self.faults.append(f"{method} {path}: {fault}")
