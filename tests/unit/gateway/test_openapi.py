"""The OpenAPI document and its page: every route is in it, it is valid, and its examples are what the routes take.

That answers match it is checked by every test of the gateway (``tests.openapi``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from modelium import errors
from modelium.config import Settings
from modelium.gateway import build_app
from modelium.gateway.http.describing import describes, description_of
from modelium.gateway.http.statuses import status_of
from modelium.gateway.openapi import build_document
from modelium.metrics import Recorder

from .stand_in import Served, served


def application() -> web.Application:
    return build_app(cast("Any", None), cast("Any", None), Settings(), Recorder())


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_document(application().router.routes())


def test_every_route_is_in_the_document_and_no_other(document: dict[str, Any]) -> None:
    routes = [route for route in application().router.routes() if route.method != "HEAD" and route.resource is not None]
    found = {(route.resource.canonical, route.method.lower()) for route in routes if route.resource is not None}
    said = {(path, method) for path, methods in document["paths"].items() for method in methods}
    anyhow = {path for path, method in found if method == "*"}
    assert {one for one in found if one[1] != "*"} == {one for one in said if one[0] not in anyhow}
    assert anyhow <= {path for path, _ in said}


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(json.loads(json.dumps(document))).validate()


def test_each_operation_has_a_name_of_its_own_and_a_sentence(document: dict[str, Any]) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names)
    assert all(one["summary"].endswith(".") for one in operations)


def test_a_route_that_is_not_described_is_a_fault() -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/new", handler)
    with pytest.raises(LookupError, match="GET /new: its handler is not described"):
        build_document(app.router.routes())
    describes("New.", gives=dict[str, int])(handler)
    assert "/new" in build_document(app.router.routes())["paths"]


def test_every_body_has_an_example_that_fits(document: dict[str, Any]) -> None:
    """But for what only Modelium's own verbs send, and what Triton alone reads."""
    components = {"components": document["components"]}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                if "example" not in content:
                    assert path == "/plan" or path.startswith("/v2/models/"), path
                    continue
                example = content["example"] | ({"file": ""} if kind == "multipart/form-data" else {})
                jsonschema.Draft202012Validator({**components, "allOf": [content["schema"]]}).validate(example)


def test_errors_are_those_of_the_tables(document: dict[str, Any]) -> None:
    """In the shape of each route: its statuses and words."""
    own = document["paths"]["/predict/{model}"]["post"]["responses"]
    for kind in (errors.NotServable, errors.KeyQueueFull, errors.InferenceFailed, errors.BodyTooLarge, errors.Unauthorized):
        assert f"`{kind.type}`" in own[str(status_of(kind))]["description"], kind
    assert "`queue_full`" in own["503"]["description"]
    types = own["503"]["content"]["application/json"]["schema"]["allOf"][1]["properties"]["type"]["enum"]
    assert {"queue_full", "not_servable", "load_failed"} <= set(types)
    theirs = document["paths"]["/v1/embeddings"]["post"]["responses"]
    assert "`queue_full`" in theirs["429"]["description"] and "422" not in theirs
    assert theirs["404"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/OpenAIError"}
    anthropics = document["paths"]["/v1/messages"]["post"]["responses"]["404"]["content"]["application/json"]["schema"]
    assert anthropics == {"$ref": "#/components/schemas/AnthropicError"}


def test_the_most_precise_description_counts() -> None:
    said = {
        route.resource.canonical: description_of(route)
        for route in application().router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/v2/models/{model}")
    }
    infer, metadata = said["/v2/models/{model}/infer"], said["/v2/models/{model}"]
    assert infer is not None and metadata is not None
    assert "inference" in infer.says and "metadata" in metadata.says


async def test_the_gateway_tells_it(gateway: Served) -> None:
    for _ in range(2):
        async with gateway.http.get(f"{gateway.url}/openapi.json") as response:
            assert response.status == 200
            said = await response.json()
    assert said["info"]["title"] == "Modelium" and "security" not in said
    async with gateway.http.get(f"{gateway.url}/docs") as response:
        page = await response.text()
        assert response.status == 200 and response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "http://" not in page and "https://" not in page, "nothing comes from elsewhere"


async def test_where_keys_are_needed_the_page_asks_for_one_and_the_document_wants_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret-secret-secret\n", encoding="utf-8")
    keys.chmod(0o600)
    async with served(api_keys_file=keys) as gateway:
        async with gateway.http.get(f"{gateway.url}/docs") as response:
            assert response.status == 200
        async with gateway.http.get(f"{gateway.url}/openapi.json") as response:
            assert response.status == 401
        headers = {"Authorization": "Bearer secret-secret-secret"}
        async with gateway.http.get(f"{gateway.url}/openapi.json", headers=headers) as response:
            said = await response.json()
    assert said["security"] == [{"bearer": []}, {"x-api-key": []}, {"api-key": []}]
    assert said["paths"]["/docs"]["get"]["security"] == []
