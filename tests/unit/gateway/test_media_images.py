"""Pictures in OpenAI's API: the openai package against a pipeline that paints what the test wants."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI

from modelium.values import Task

from .ray_models import PAINTER
from .stand_in import Served, Tensors, profile_of

PNG = b"\x89PNG\r\n\x1a\n\x00\xff picture"


def painted(inputs: Tensors) -> Tensors:
    picture = np.empty((1, 1), dtype=np.object_)
    picture[0, 0] = PNG + inputs["PROMPT"].item(0)
    return {"IMAGE": picture}


@pytest.fixture
async def painter(gateway: Served) -> Served:
    gateway.serve(PAINTER, painted)
    return gateway


def parameters(gateway: Served) -> list[Any]:
    return [json.loads(inputs["PARAMETERS"].item(0)) if "PARAMETERS" in inputs else {} for inputs in gateway.triton.seen]


async def test_as_many_pictures_as_are_wanted(painter: Served, client: AsyncOpenAI) -> None:
    answer = await client.images.generate(
        model="painter", prompt="a cat", n=2, size="64x32", extra_body={"seed": 2**63 - 1, "num_inference_steps": 3}
    )
    assert answer.data is not None and answer.output_format == "png"
    assert [base64.b64decode(one.b64_json or "") for one in answer.data] == [PNG + b"a cat"] * 2
    asked = {"num_inference_steps": 3, "width": 64, "height": 32}
    assert parameters(painter) == [asked | {"seed": 2**63 - 1}, asked | {"seed": 0}]


async def test_words_of_openais_own_models_are_left_out_and_named(painter: Served, client: AsyncOpenAI) -> None:
    raw = await client.images.with_raw_response.generate(
        model="painter", prompt="a cat", size="auto", quality="hd", style="vivid", user="u", response_format="b64_json"
    )
    assert raw.headers["X-Modelium-Ignored"] == "quality, style"
    assert parameters(painter) == [{}]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"response_format": "url"}, "response_format", "send b64_json"),
        ({"output_format": "jpeg"}, "output_format", "pictures are png here"),
        ({"stream": True}, "stream", "pictures come whole"),
        ({"size": "large"}, "size", "WIDTHxHEIGHT or auto"),
        ({"size": "7x9999999"}, "size", "WIDTHxHEIGHT or auto"),
        ({"size": "64x10000"}, "parameters.height", "at most 8192"),
        ({"n": 11}, "n", "less than or equal to 10"),
        ({"prompt": ""}, "prompt", "at least 1 character"),
    ],
)
async def test_what_cannot_be_done_is_said_before_anything_is_loaded(
    painter: Served, fields: dict[str, Any], param: str, words: str
) -> None:
    body = {"model": "painter", "prompt": "a cat"} | fields
    async with painter.http.post(f"{painter.url}/v1/images/generations", json=body) as response:
        said = (await response.json())["error"]
    assert (response.status, said["param"]) == (400, param), said
    assert words in said["message"]
    assert painter.controller.askers == []


async def test_models_that_do_not_paint_are_refused(painter: Served, client: AsyncOpenAI) -> None:
    painter.serve(profile_of(Task.TEXT_CLASSIFICATION, "classifier"))
    with pytest.raises(openai.BadRequestError, match="does not do pictures; it does text-classification"):
        await client.images.generate(model="classifier", prompt="a cat")


@pytest.mark.parametrize("path", ["/predict/painter/v1/images/generations", "/openai/deployments/painter/images/generations"])
async def test_the_path_may_name_the_model(painter: Served, path: str) -> None:
    async with painter.http.post(painter.url + path, json={"prompt": "a cat"}) as response:
        assert response.status == 200
        assert base64.b64decode((await response.json())["data"][0]["b64_json"]) == PNG + b"a cat"
    async with painter.http.post(painter.url + path, json={}) as response:
        assert (await response.json())["error"]["param"] == "prompt"
