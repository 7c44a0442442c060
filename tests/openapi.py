"""Real answers against the OpenAPI document of the gateway that gave them: a route that answers what its document does not say
is a fault, whichever test asked it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import jsonschema
from aiohttp import web

from modelium.gateway.openapi import build_document

_LARGEST = 2**18  # bytes of a body that is looked at: what is larger has many equal parts


@dataclass
class Checked:
    """For an application's ``on_response_prepare``. ``faults``: what was answered and is not documented."""

    faults: list[str] = field(default_factory=list)
    seen: set[tuple[str, str, int]] = field(default_factory=set)
    _document: dict[str, Any] | None = None
    _validators: dict[str, Any] = field(default_factory=dict)

    async def check(self, request: web.Request, response: web.StreamResponse) -> None:
        resource = request.match_info.route.resource
        if resource is None or request.method in ("HEAD", "OPTIONS") or response.status == 405:
            return
        if self._document is None:
            self._document = build_document(request.app.router.routes())
        if fault := self._fault(request.method.lower(), resource.canonical, response):
            self.faults.append(f"{request.method} {resource.canonical}: {fault}")

    def _fault(self, method: str, path: str, response: web.StreamResponse) -> str:
        assert self._document is not None
        said = self._document["paths"][path][method]["responses"]
        self.seen.add((method, path, response.status))
        if (foreign := "default" in said) and str(response.status) not in said:
            return ""
        if (one := said.get(str(response.status))) is None:
            return f"{response.status} is not documented ({_body(response)[:300]!r})"
        content = one["content"]
        schema = content.get(response.content_type) or content.get("*/*")
        if schema is None:
            return f"{response.status} as {response.content_type} is not documented"
        if response.content_type != "application/json" or "application/json" not in content:
            return ""
        body = _body(response)
        if foreign or len(body) > _LARGEST or ("*/*" in content and not body):
            return ""
        error = next(
            self._validator(f"{method} {path} {response.status}", schema["schema"]).iter_errors(json.loads(body)), None
        )
        return f"{response.status}: {error.json_path}: {error.message[:500]}" if error is not None else ""

    def _validator(self, name: str, schema: Any) -> Any:
        if name not in self._validators:
            assert self._document is not None
            whole = {"components": self._document["components"], "allOf": [schema]}
            self._validators[name] = jsonschema.Draft202012Validator(whole)
        return self._validators[name]


def _body(response: web.StreamResponse) -> bytes:
    body = response.body if isinstance(response, web.Response) else b""
    return body if isinstance(body, bytes) else b""
