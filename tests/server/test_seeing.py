"""A model of text and pictures in the python runtime: asked through the gateway it answers what transformers does."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.models.language import PICTURES, Written, continuations
from tests.server.systems import HEAVY, System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(language_models: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """It runs and has the model, by hand for the python runtime: vLLM has this one too."""
    directory = tmp_path_factory.mktemp("seeing")
    (directory / "incoming").mkdir()
    shutil.copytree(language_models / PICTURES, directory / "incoming" / PICTURES)
    async with system(directory, models={PICTURES: {"runtime": "python"}}, orchestration={"policies": HEAVY}) as running:
        yield running


@pytest.fixture(scope="module")
def cases(language_models: Path) -> list[Written]:
    return continuations(language_models, PICTURES)


def image_of(case: Written) -> str:
    assert case.image is not None
    return base64.b64encode(case.image.read_bytes()).decode()


async def predict(modelium: System, inputs: object, **parameters: Any) -> tuple[int, Any]:
    return await modelium.post(f"/predict/{PICTURES}", {"inputs": inputs, "parameters": {"max_new_tokens": 20, **parameters}})


async def test_answers_are_those_of_transformers_whoever_asks_at_the_same_time(modelium: System, cases: list[Written]) -> None:
    asked = [{"text": case.prompt, "image": image_of(case)} for case in cases]
    wanted = [[{"generated_text": case.text}] for case in cases]

    one_by_one = [await predict(modelium, inputs) for inputs in asked]
    assert one_by_one == [(200, answer) for answer in wanted]
    assert await asyncio.gather(*[predict(modelium, inputs) for inputs in asked]) == one_by_one
    assert await predict(modelium, asked) == (200, wanted)

    status, body = await predict(modelium, asked[0], details=True)
    assert status == 200 and body[0]["details"]["generated_tokens"] == len(cases[0].new_tokens)
    assert body[0]["details"]["finish_reason"] == "eos_token"
    model = await modelium.get(f"/models/{PICTURES}")
    assert model["placement"]["runtime"] == "python"


async def test_a_prompt_without_a_place_for_its_pictures_gets_one_in_front(modelium: System, cases: list[Written]) -> None:
    case = cases[0]
    in_front = f"<image>{case.prompt.replace('<image>', '')}"
    explicit = await predict(modelium, {"text": in_front, "image": image_of(case)}, max_new_tokens=8)
    implicit = await predict(modelium, {"text": in_front.replace("<image>", ""), "image": image_of(case)}, max_new_tokens=8)
    assert explicit[0] == 200 and implicit == explicit


async def test_a_text_may_have_several_pictures_or_none(modelium: System, cases: list[Written]) -> None:
    images = [f"data:image/png;base64,{image_of(case)}" for case in cases[:2]]
    several = {"text": "<image><image> Which colours?", "images": images}
    status, together = await predict(modelium, [several, "The old lighthouse", {"text": "Which?", "image": images[0]}])
    assert status == 200 and len(together) == 3
    alone = [
        await predict(modelium, inputs) for inputs in (several, "The old lighthouse", {"text": "Which?", "image": images[0]})
    ]
    assert [answer for _, answer in alone] == together


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"text": "<image> and <image>", "image": "IMAGE"}, "TEXT has 2 × <image>, IMAGE has 1 of them"),
        ({"text": "x", "image": "AAAA"}, "IMAGE cannot be read as a picture"),
        ({"text": "x", "image": "https://example.com/cat.png"}, "Modelium fetches nothing"),
        ({"text": "x", "image": "IMAGE", "images": ["IMAGE"]}, "inputs.images: is another word for image"),
        ({"picture": "IMAGE"}, "inputs.picture: unknown field"),
    ],
)
async def test_what_cannot_be_answered_is_named(
    modelium: System, cases: list[Written], inputs: dict[str, Any], words: str
) -> None:
    sent = json.loads(json.dumps(inputs).replace("IMAGE", image_of(cases[0])))
    status, body = await predict(modelium, sent)
    assert status in (400, 422) and words in body["error"], body


async def test_a_chat_with_a_picture_is_answered_and_streamed(modelium: System, cases: list[Written]) -> None:
    case = cases[1]
    question = [part for part in case.messages[0]["content"] if part["type"] == "text"]
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_of(case)}"}}
    chat = {"model": PICTURES, "messages": [{"role": "user", "content": [picture, *question]}], "temperature": 0}

    status, body = await modelium.post("/v1/chat/completions", {**chat, "max_tokens": 20})
    assert status == 200 and body["choices"][0]["message"]["content"] == case.text, body
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len(case.new_tokens)

    async with modelium.http.post(
        f"{modelium.running.gateway_url}/v1/chat/completions", json={**chat, "max_tokens": 20, "stream": True}
    ) as response:
        text = (await response.read()).decode()
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == case.text
