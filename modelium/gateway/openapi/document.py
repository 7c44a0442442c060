"""The OpenAPI document (3.1): the routes of an application enter, JSON leaves. Pure.

Everything in it is said elsewhere: what a route takes and gives beside its handler (``http.describing``), the kinds by the
classes that bodies are read into, the errors by the classes and the tables that answer them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter

from modelium import __version__
from modelium.gateway.http.deadline import HEADER as TIMEOUT
from modelium.gateway.http.describing import ANYTHING, FORM, JSON, Described, Reply, description_of
from modelium.gateway.http.keys import OPEN_ROUTES, PRIORITY
from modelium.gateway.openapi.failures import KINDS, failures_of, words_of

Json = dict[str, Any]

_SCHEMAS = "#/components/schemas/"
_METHODS = {"*": ("get", "put", "post", "delete", "patch")}
_ANY_STATUS = "default"
_NAMES = re.compile(r"{(\w+)}")
_PATH = {
    "model": "served name (`org--name`) or label (`org/name`)",
    "path": "below the application",
    "rest": "as Triton has it",
}
_HEADERS = {TIMEOUT: "seconds until the deadline", PRIORITY: "`high`, `normal` or `low`", "X-Request-Id": "of your own"}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}


def build_document(routes: Iterable[web.AbstractRoute], *, keys: bool = False) -> Json:
    """``keys``: requests need one. Raises ``LookupError`` for a route of which nothing is said."""
    found = list(_described(routes))
    schemas = _Schemas(kind for _, _, one in found for kind in _kinds(one))
    paths: dict[str, Json] = {}
    for method, path, one in found:
        for name in _METHODS.get(method, (method.lower(),)):
            paths.setdefault(path, {})[name] = _operation(name, path, one, schemas)
    parameters = {name: _header(name, says) for name, says in _HEADERS.items()}
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "Modelium", "version": __version__, "description": "The models in this Modelium's folders."},
        "paths": paths,
        "components": {"schemas": schemas.definitions, "parameters": parameters, "securitySchemes": _KEYS},
    }
    if keys:
        document["security"] = [{name: []} for name in _KEYS]
    return document


def _described(routes: Iterable[web.AbstractRoute]) -> Iterator[tuple[str, str, Described]]:
    for route in routes:
        if route.method == "HEAD" or route.resource is None:  # that of each GET
            continue
        if (said := description_of(route)) is None:
            raise LookupError(f"{route.method} {route.resource.canonical}: its handler is not described")
        yield route.method, route.resource.canonical, said


def _kinds(one: Described) -> Iterator[tuple[Any, str]]:
    """Each with how it is used: what is read may leave out more than what is written."""
    if one.takes is not None:
        yield one.takes, "validation"
    for reply in one.gives:
        if reply.kind is not None:
            yield reply.kind, "serialization"


class _Schemas:
    """All kinds together, so that two of one name get two names. Unknown fields are ignored, so none is closed."""

    def __init__(self, kinds: Iterable[tuple[Any, str]]) -> None:
        wanted = dict.fromkeys(
            (repr(kind), kind, mode) for kind, mode in [*kinds, *((each, "serialization") for each in KINDS)]
        )
        self._schemas, made = TypeAdapter.json_schemas(
            [(name, mode, TypeAdapter(kind)) for name, kind, mode in wanted],  # type: ignore[misc]
            ref_template=_SCHEMAS + "{model}",
        )
        for schema in made["$defs"].values():
            _open(schema)
        self.definitions: Json = made["$defs"]

    def of(self, kind: Any, mode: str = "serialization") -> Json:
        """What stands for ``kind`` where it is used."""
        return dict(self._schemas[repr(kind), mode])  # type: ignore[index]

    def without_model(self, schema: Json) -> Json:
        """The same where the path names the model, and the body need not."""
        name = schema.get("$ref", "").removeprefix(_SCHEMAS)
        whole = self.definitions.get(name, {})
        if "model" not in whole.get("required", ()):
            return schema
        self.definitions[f"{name}-AtModel"] = whole | {"required": [one for one in whole["required"] if one != "model"]}
        return {"$ref": f"{_SCHEMAS}{name}-AtModel"}


def _open(schema: Any) -> None:
    """``title`` says a name again, and ``additionalProperties`` what a strict reader does."""
    if isinstance(schema, list):
        for each in schema:
            _open(each)
    if not isinstance(schema, dict):
        return
    if schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    if isinstance(schema.get("title"), str):
        del schema["title"]
    for each in schema.values():
        _open(each)


def _operation(method: str, path: str, one: Described, schemas: _Schemas) -> Json:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "description": _PATH[name], "schema": {"type": "string"}}
        for name in _NAMES.findall(path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": says, "schema": {"type": "string"}} for name, says in one.query.items()
    ]
    parameters += [{"$ref": f"#/components/parameters/{name}"} for name in _HEADERS]
    said: Json = {"summary": one.says, "tags": [_tag(path)], "parameters": parameters}
    said["operationId"] = f"{method}{re.sub(r'[^A-Za-z0-9]+', '_', path).rstrip('_')}"
    if one.takes is not None:
        said["requestBody"] = _body(path, one, schemas)
    said["responses"] = _responses(path, one, schemas)
    if path in OPEN_ROUTES:
        said["security"] = []
    return said


def _body(path: str, one: Described, schemas: _Schemas) -> Json:
    schema = schemas.of(one.takes, "validation")
    if "{model}" in path:
        schema = schemas.without_model(schema)
    if one.takes_as == FORM:
        file: Json = {
            "type": "object",
            "properties": {one.file: {"type": "string", "format": "binary"}},
            "required": [one.file],
        }
        schema = {"allOf": [schema, file]}
    content: Json = {"schema": schema}
    if one.example is not None:
        content["example"] = one.example
    return {"required": one.takes_as == FORM or one.example != {}, "content": {one.takes_as: content}}


def _responses(path: str, one: Described, schemas: _Schemas) -> Json:
    found: dict[str, Json] = {}
    for reply in one.gives:
        entry = found.setdefault(str(reply.status or _ANY_STATUS), {"description": "", "content": {}})
        entry["description"] = "; ".join(filter(None, (entry["description"], _said(reply))))
        entry["content"][reply.content_type] = {"schema": _schema_of(reply, schemas)}
    for failure in failures_of(path, one):
        entry = found.setdefault(str(failure.status), {"description": "", "content": {}})
        entry["description"] = "; ".join(filter(None, (entry["description"], words_of(failure))))
        schema = schemas.of(failure.kind) if not failure.types else {
            "allOf": [schemas.of(failure.kind), {"properties": {"type": {"enum": list(failure.types)}}}]
        }  # fmt: skip
        before = entry["content"].get(JSON)
        entry["content"][JSON] = {"schema": schema if before is None else {"anyOf": [before["schema"], schema]}}
    if _ANY_STATUS in found:  # among them those of our own errors
        for entry in found.values():
            entry["content"].setdefault(ANYTHING, {"schema": {}})
    return dict(sorted(found.items()))


def _said(reply: Reply) -> str:
    return reply.says or ("the answer" if reply.status == 200 else "no")


def _schema_of(reply: Reply, schemas: _Schemas) -> Mapping[str, Any]:
    if reply.kind is not None:
        return schemas.of(reply.kind)
    return {} if reply.content_type == JSON or "*" in reply.content_type else {"type": "string"}


def _header(name: str, says: str) -> Json:
    return {"name": name, "in": "header", "description": says, "schema": {"type": "string"}}


def _tag(path: str) -> str:
    """The first part, which is whose API it is.

    >>> _tag("/v2/models/{model}/infer"), _tag("/predict/{model}/v1/embeddings"), _tag("/")
    ('v2', 'predict', 'page')
    """
    return path.split("/")[1].partition(".")[0] or "page"
