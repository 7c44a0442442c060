"""``/predict`` around the codecs: chunks, the retry rule, deadlines, clients that leave, and what each error looks like."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelium.errors import DeadlineExceeded, InferenceFailed, ModelGone, NotServable, QueueFull, TritonUnavailable
from modelium.gateway.asking import ATTEMPTS
from modelium.metrics.families import COLD_STARTS, REQUESTS, RETRIES
from modelium.values import Task
from tests.patience import PATIENCE_S

from .stand_in import Served, numbers, profile_of, repeated, served, status_of, texts

LABELS = {"LABEL": texts(["cat"]), "SCORE": numbers([1.0])}
LENGTHS = {"inputs": ["a", "bb", "ccc", "dddd", "eeeee"]}


def embed(inputs: Any) -> dict[str, Any]:
    return {"EMBEDDING": numbers(*([len(text), 0, 0] for (text,) in inputs["TEXT"]))}


async def post(gateway: Served, url: str, body: object = None, **options: Any) -> tuple[int, Any, Any]:
    sent = {"data": body} if isinstance(body, bytes) else {"json": body}
    async with gateway.http.post(url, **sent, **options) as response:
        return response.status, await response.json(), response.headers


async def test_answers_are_parallel_to_the_inputs_whatever_the_chunks(gateway: Served) -> None:
    for max_batch_size in (1, 2, 5, 32):
        gateway.triton.seen.clear()
        url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed, max_batch_size=max_batch_size)
        status, answer, _ = await post(gateway, url, LENGTHS)
        assert status == 200
        assert [vector[0] for vector in answer] == [1, 2, 3, 4, 5]
        assert max(len(seen["TEXT"]) for seen in gateway.triton.seen) <= max_batch_size
    assert gateway.controller.held == 0


@pytest.mark.parametrize("fault", [ModelGone("its stub died"), TritonUnavailable("connection refused")])
async def test_a_model_that_goes_away_is_leased_and_asked_again(gateway: Served, fault: Exception) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed, max_batch_size=2)
    gateway.triton.faults = [fault]
    status, answer, _ = await post(gateway, url, LENGTHS)
    assert (status, len(answer)) == (200, 5)
    assert gateway.controller.gone == [str(fault)]
    assert gateway.controller.held == 0
    assert gateway.recorder.counted(RETRIES) == [(("m",), 1)]


async def test_a_request_that_kills_its_model_each_time_ends_with_the_reason(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    gateway.triton.faults = [ModelGone("its stub died") for _ in range(10)]
    status, answer, _ = await post(gateway, url, {"inputs": "x"})
    assert (status, answer) == (503, {"error": "its stub died", "type": "model_gone"})
    assert len(gateway.triton.seen) == len(gateway.controller.gone) == ATTEMPTS
    assert gateway.controller.held == 0


async def test_a_cold_start_shows_in_the_headers_and_is_counted(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    _, _, warm = await post(gateway, url, {"inputs": "x"})
    assert "X-Modelium-Cold" not in warm
    gateway.controller.cold_s = 1.5
    _, _, cold = await post(gateway, url, {"inputs": "x"})
    assert (cold["X-Modelium-Cold"], cold["X-Modelium-Waited-Ms"]) == ("1", "1500")
    assert gateway.recorder.counted(COLD_STARTS) == [(("m",), 1)]


async def test_a_client_that_leaves_cancels_the_inference_and_frees_the_lease(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    gateway.triton.hang = True
    request = asyncio.create_task(post(gateway, url, {"inputs": "x"}))
    async with asyncio.timeout(PATIENCE_S):
        await gateway.triton.started.wait()
        request.cancel()
        await gateway.triton.cancelled.wait()
        await gateway.controller.released.wait()
    assert gateway.controller.held == 0


async def test_a_body_that_does_not_fit_takes_no_lease(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    gateway.controller.refuse = AssertionError("a lease was taken")
    status, answer, _ = await post(gateway, url, {"inputs": 5})
    assert (status, answer["type"]) == (422, "invalid_body")


async def test_a_revision_that_changes_the_task_while_the_request_waits_is_answered_as_the_new_one(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), repeated(LABELS))
    lease = gateway.controller.lease

    async def lease_new(name: str, **kept: Any) -> Any:
        gateway.serve(profile_of(Task.TEXT_CLASSIFICATION))
        return await lease(name, **kept)

    gateway.controller.lease = lease_new  # type: ignore[method-assign]
    assert (await post(gateway, url, {"inputs": "x"}))[:2] == (200, [[{"label": "cat", "score": 1.0}]])


@pytest.mark.parametrize(
    ("refusal", "status", "kind"),
    [
        (NotServable("weights do not fit the config"), 503, "not_servable"),
        (DeadlineExceeded("not loaded within 5 s"), 504, "deadline_exceeded"),
        (QueueFull("512 requests wait already", 1.2), 503, "queue_full"),
    ],
)
async def test_what_the_controller_refuses_is_the_answer(gateway: Served, refusal: Exception, status: int, kind: str) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    gateway.controller.refuse = refusal
    got, answer, headers = await post(gateway, url, {"inputs": "x"})
    assert (got, answer) == (status, {"error": str(refusal), "type": kind})
    assert headers.get("Retry-After") == ("2" if kind == "queue_full" else None)


async def test_a_model_without_a_profile_is_answered_with_its_reason(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION))
    gateway.controller.models["m"] = replace(gateway.controller.models["m"], profile=None)
    gateway.controller.refuse = NotServable("model.safetensors: 1.2 of 4.9 GiB")
    assert (await post(gateway, url, {"inputs": "x"}))[:2] == (
        503,
        {"error": "model.safetensors: 1.2 of 4.9 GiB", "type": "not_servable"},
    )


async def test_what_the_model_says_about_an_input_is_422(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.IMAGE_CLASSIFICATION))
    gateway.triton.faults = [InferenceFailed("IMAGE is not an image")]
    assert (await post(gateway, url, b"not an image", headers={"Content-Type": "image/png"}))[0] == 422


async def test_unknown_models_are_404_and_make_no_series(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, name="minilm"), embed)
    for name in ("minilmm", "x" * 500, "a%2Fb", "..%2F..", "a b"):
        status, answer, _ = await post(gateway, f"{gateway.url}/predict/{name}", {"inputs": "x"})
        assert (status, answer["type"]) == (404, "unknown_model")
        assert "minilm" in answer["error"]
    assert gateway.recorder.counted(REQUESTS) == [(("", "404"), 5)]


async def test_labels_work_as_names(gateway: Served) -> None:
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION, name="org--name"), embed)
    for name in ("org--name", "org/name", "org%2Fname"):
        assert (await post(gateway, f"{gateway.url}/predict/{name}", {"inputs": "x"}))[0] == 200


@pytest.mark.parametrize("sent", ["0", "-1", "nan", "inf", "soon", ""])
async def test_a_bad_timeout_header_is_named(gateway: Served, sent: str) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    status, answer, _ = await post(gateway, url, {"inputs": "x"}, headers={"X-Request-Timeout": sent})
    assert status == 422
    assert "X-Request-Timeout" in answer["error"]


async def test_a_body_that_never_ends_runs_into_the_deadline(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    over = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"inputs": '
        await over.wait()

    async with gateway.http.post(url, data=slowly(), headers={"X-Request-Timeout": "0.05"}) as response:
        assert response.status == 504
        assert (await response.json())["type"] == "deadline_exceeded"
    over.set()


async def test_too_large_bodies_are_413_with_and_without_a_length(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.IMAGE_CLASSIFICATION), repeated(LABELS))

    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    for body in (b"x" * 200_000, chunked()):
        async with gateway.http.post(url, data=body) as response:
            assert response.status == 413
            answer = await response.json()
            assert answer["type"] == "body_too_large"
            assert "max_body_bytes" in answer["error"]
    assert gateway.triton.seen == []


async def test_wrong_paths_and_methods_have_the_same_form(gateway: Served) -> None:
    async with gateway.http.get(f"{gateway.url}/nowhere") as response:
        assert (response.status, (await response.json())["type"]) == (404, "not_found")
    async with gateway.http.get(f"{gateway.url}/predict/m") as response:
        assert (response.status, (await response.json())["type"]) == (405, "method_not_allowed")
        assert response.headers["Allow"] == "POST"


async def test_what_nobody_expected_shows_an_id_and_no_insides(gateway: Served, caplog: pytest.LogCaptureFixture) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    gateway.controller.refuse = KeyError("a secret")
    with caplog.at_level(logging.ERROR):
        status, answer, headers = await post(gateway, url, {"inputs": "x"}, headers={"X-Request-Id": "mine-1"})
    assert (status, answer["type"], headers["X-Request-Id"]) == (500, "internal_error", "mine-1")
    assert "mine-1" in answer["error"]
    assert "secret" not in answer["error"]
    assert "mine-1" in caplog.text
    assert "a secret" in caplog.text


async def test_a_malicious_request_id_is_replaced(gateway: Served) -> None:
    async with gateway.http.get(f"{gateway.url}/models", headers={"X-Request-Id": "a b<script>"}) as response:
        assert response.headers["X-Request-Id"].isalnum()


async def test_a_thousand_embeddings_are_written_fast_and_exactly(gateway: Served) -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 384)).astype(np.float32)
    async with served(max_body_bytes=2**20) as large:
        url = large.serve(profile_of(Task.FEATURE_EXTRACTION), lambda _: {"EMBEDDING": vectors}, max_batch_size=10_000)
        async with large.http.post(url, json={"inputs": ["x"] * 1000}) as response:
            answer = json.loads(await response.read())
    assert np.array_equal(np.array(answer, dtype=np.float32), vectors)


async def test_curl_without_a_content_type_is_understood(gateway: Served) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), embed)
    assert (await post(gateway, url, b'{"inputs": "x"}', headers=form))[0] == 200
    url = gateway.serve(profile_of(Task.IMAGE_CLASSIFICATION), repeated(LABELS))
    image = b"\xff\xd8\xff"
    encoded = base64.b64encode(image)
    bodies = (image, b'{"inputs": "' + encoded + b'"}', b' {"inputs": "data:image/jpeg;base64,' + encoded + b'"}')
    for body in bodies:
        assert (await post(gateway, url, body, headers=form))[0] == 200
        assert gateway.triton.seen[-1]["IMAGE"].tolist() == [[image]]


async def test_a_status_without_traffic_needs_no_lease(gateway: Served) -> None:
    gateway.controller.models["m"] = status_of(profile_of(Task.TENSORS, onnx=None))
    gateway.controller.refuse = AssertionError("a lease was taken")
    async with gateway.http.get(f"{gateway.url}/models") as response:
        assert response.status == 200
