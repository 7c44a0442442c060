"""``Generator`` and the event stream around it, seen through ``/predict`` with ``stream``: retries, errors before and after the
first byte, comments while a model loads, and clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from modelium.errors import DeadlineExceeded, InferenceFailed, ModelGone, NotServable, QueueFull, TritonUnavailable
from modelium.gateway.asking import ATTEMPTS
from modelium.metrics.families import COLD_STARTS, FIRST_TOKEN_SECONDS, OUTPUT_TOKENS, PROMPT_TOKENS, REQUESTS, RETRIES
from modelium.values import State, Task
from tests.patience import PATIENCE_S

from .stand_in import Served, Step, Tensors, numbers, profile_of, response, served, status_of, texts

LLAMA = profile_of(Task.TEXT_GENERATION, "llama")
STREAM = {"inputs": "Once", "stream": True}


def hello(inputs: Tensors) -> Iterator[Step]:
    yield response("Hel")
    yield response("lo", "stop")


async def events_of(answer: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    body = (await answer.read()).decode()
    return [json.loads(line.removeprefix("data:")) for line in body.splitlines() if line.startswith("data:")]


async def streamed(gateway: Served, url: str, body: object = STREAM) -> list[dict[str, Any]]:
    async with gateway.http.post(url, json=body) as answer:
        assert answer.status == 200, await answer.text()
        return await events_of(answer)


async def test_pieces_are_events_as_they_come(gateway: Served) -> None:
    rest = asyncio.Event()

    def steps(inputs: Tensors) -> Iterator[Step]:
        yield response("Hel")
        yield rest
        yield response("lo", "stop")

    async with gateway.http.post(gateway.serve_vllm(LLAMA, steps), json=STREAM) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["X-Request-Id"]
        first = json.loads((await answer.content.readline()).removeprefix(b"data:"))
        assert first["token"]["text"] == "Hel"
        rest.set()
        (last,) = await events_of(answer)
    assert (last["token"]["text"], last["generated_text"]) == ("lo", "Hello")
    assert gateway.controller.held == 0


async def test_tokens_and_times_are_counted(gateway: Served) -> None:
    url = gateway.serve_vllm(LLAMA, hello)
    gateway.controller.cold_s = 1.5
    await streamed(gateway, url)
    counted = gateway.recorder.counted
    assert counted(OUTPUT_TOKENS) == [(("llama",), 2)]
    assert counted(PROMPT_TOKENS) == [(("llama",), 3)]
    assert counted(COLD_STARTS) == [(("llama",), 1)]
    assert counted(REQUESTS) == [(("llama", "200"), 1)]
    ((labels, histogram),) = gateway.recorder.observed(FIRST_TOKEN_SECONDS)
    assert (labels, histogram.cumulative()[0][-1]) == (("llama",), ("+Inf", 1))


@pytest.mark.parametrize("fault", [ModelGone("its engine died"), TritonUnavailable("connection refused")])
async def test_a_model_that_goes_away_before_the_first_word_is_asked_again(gateway: Served, fault: Exception) -> None:
    url = gateway.serve_vllm(LLAMA, hello)
    gateway.triton.faults = [fault]
    assert (await streamed(gateway, url))[-1]["generated_text"] == "Hello"
    assert gateway.controller.gone == [str(fault)]
    assert gateway.recorder.counted(RETRIES) == [(("llama",), 1)]
    assert gateway.controller.held == 0


async def test_it_is_not_asked_for_ever(gateway: Served) -> None:
    url = gateway.serve_vllm(LLAMA, hello)
    gateway.triton.faults = [ModelGone("its engine died") for _ in range(10)]
    async with gateway.http.post(url, json=STREAM) as answer:
        assert (answer.status, (await answer.json())["type"]) == (503, "model_gone")
    assert len(gateway.controller.gone) == ATTEMPTS


async def test_after_the_first_word_nothing_is_repeated(gateway: Served) -> None:
    def steps(inputs: Tensors) -> Iterator[Step]:
        yield response("Hel")
        yield ModelGone("its engine died")

    events = await streamed(gateway, gateway.serve_vllm(LLAMA, steps))
    assert events[0]["token"]["text"] == "Hel"
    assert events[1] == {"error": "its engine died", "type": "model_gone", "error_type": "generation"}
    assert (len(gateway.triton.seen), gateway.controller.gone, gateway.controller.held) == (1, ["its engine died"], 0)
    assert gateway.recorder.counted(REQUESTS) == [(("llama", "503"), 1)]


async def test_a_model_that_dies_without_a_word_is_noticed(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton says nothing when a backend's process is killed in the middle of an answer; the controller knows."""
    monkeypatch.setattr("modelium.gateway.asking.watching.LOOK_EVERY_S", 0.01)

    def steps(inputs: Tensors) -> Iterator[Step]:
        yield response("Hel")
        gateway.controller.models["llama"] = status_of(LLAMA, state=State.LOADING)
        yield asyncio.Event()

    async with asyncio.timeout(PATIENCE_S):
        events = await streamed(gateway, gateway.serve_vllm(LLAMA, steps))
    assert events[1]["type"] == "model_gone"
    assert gateway.triton.cancelled.is_set()
    assert gateway.controller.held == 0


async def test_what_nobody_expected_is_an_event_that_shows_no_insides(
    gateway: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def steps(inputs: Tensors) -> Iterator[Step]:
        yield response("Hel")
        yield RuntimeError("the secret")

    events = await streamed(gateway, gateway.serve_vllm(LLAMA, steps))
    assert "something broke inside Modelium" in events[1]["error"]
    assert "the secret" in caplog.text


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (NotServable("weights do not fit the config"), 503),
        (QueueFull("512 requests wait already", 1.2), 503),
        (DeadlineExceeded("not loaded within 5 s"), 504),
    ],
)
async def test_what_the_controller_refuses_keeps_its_status(gateway: Served, refusal: Exception, status: int) -> None:
    url = gateway.serve_vllm(LLAMA, hello)
    gateway.controller.refuse = refusal
    async with gateway.http.post(url, json=STREAM) as answer:
        assert (answer.status, (await answer.json())["error"]) == (status, str(refusal))


@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_engine_says_of_a_prompt_is_422(gateway: Served, stream: bool) -> None:
    said = "The decoder prompt (length 600) is longer than the maximum model length of 512."
    url = gateway.serve_vllm(LLAMA, lambda inputs: [InferenceFailed(said)])
    async with gateway.http.post(url, json={"inputs": "x" * 600, "stream": stream}) as answer:
        assert (answer.status, await answer.json()) == (422, {"error": said, "type": "inference_failed"})
    assert gateway.controller.held == 0


async def test_a_client_that_waits_for_a_load_sees_comments(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelium.gateway.http.events.SILENCE_S", 0.02)
    monkeypatch.setattr("modelium.gateway.http.events.KEEP_ALIVE_S", 0.02)
    url = gateway.serve_vllm(LLAMA, hello)
    gateway.controller.models["llama"] = status_of(LLAMA, state=State.LOADING)
    gateway.controller.never = True
    async with asyncio.timeout(PATIENCE_S), gateway.http.post(url, json=STREAM) as answer:
        assert answer.status == 200
        for _ in range(2):
            assert await answer.content.readline() == b": llama is LOADING\n"
            assert await answer.content.readline() == b"\n"


async def test_an_error_after_a_comment_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelium.gateway.http.events.SILENCE_S", 0.01)
    async with served(request_timeout_seconds=60) as gateway:
        wait = asyncio.Event()
        url = gateway.serve_vllm(LLAMA, lambda inputs: [wait, InferenceFailed("too long")])
        async with asyncio.timeout(PATIENCE_S), gateway.http.post(url, json=STREAM) as answer:
            assert (await answer.content.readline()).startswith(b": llama is")
            wait.set()
            (event,) = await events_of(answer)
    assert event == {"error": "too long", "type": "inference_failed", "error_type": "validation"}
    assert gateway.recorder.counted(REQUESTS) == [(("llama", "422"), 1)]


async def test_a_client_that_leaves_ends_the_generation_and_frees_the_lease(gateway: Served) -> None:
    def steps(inputs: Tensors) -> Iterator[Step]:
        yield response("Hel")
        yield asyncio.Event()

    url = gateway.serve_vllm(LLAMA, steps)
    async with asyncio.timeout(PATIENCE_S):
        async with gateway.http.post(url, json=STREAM) as answer:
            await answer.content.readline()
            answer.close()
        await gateway.triton.cancelled.wait()
        await gateway.controller.released.wait()
    assert gateway.controller.held == 0


async def test_a_client_that_leaves_while_the_model_loads_frees_everything(gateway: Served) -> None:
    url = gateway.serve_vllm(LLAMA, lambda inputs: [asyncio.Event()])
    request = asyncio.create_task(gateway.http.post(url, json={"inputs": "Once"}))
    async with asyncio.timeout(PATIENCE_S):
        await gateway.triton.started.wait()
        request.cancel()
        await gateway.triton.cancelled.wait()
        await gateway.controller.released.wait()
    assert gateway.controller.held == 0


async def test_the_python_runtime_streams_in_one_piece(gateway: Served) -> None:
    answer = {
        "GENERATED_TEXT": texts(["Hello"]),
        "FINISH_REASON": texts(["length"]),
        "INPUT_TOKENS": numbers([3]),
        "OUTPUT_TOKENS": numbers([2]),
    }
    url = gateway.serve(LLAMA, lambda inputs: answer)
    (event,) = await streamed(gateway, url, {"inputs": "Once", "parameters": {"max_new_tokens": 2}, "stream": True})
    assert (event["token"]["text"], event["generated_text"]) == ("Hello", "Hello")
    assert event["details"] == {"finish_reason": "length", "generated_tokens": 2, "seed": None, "input_length": 3}
    assert json.loads(gateway.triton.seen[-1]["PARAMETERS"][0, 0]) == {"do_sample": False, "max_new_tokens": 2}
