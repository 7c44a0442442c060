"""``/predict`` on the real Triton with tiny models of real architectures: each task's answers are the reference's own, in
Hugging Face's shapes, and ``huggingface_hub.InferenceClient`` works unchanged."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import pytest_asyncio
from huggingface_hub import InferenceClient

from modelium.simulation.traces import parse_trace
from tests.malformed import KINDS, Models, Port, malformed
from tests.models import ensure_models, reference
from tests.raw_http import send
from tests.server.systems import HEAVY, System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

Case = dict[str, Any]
MEDIA = ("IMAGE", "AUDIO")

# The first case of each model asked by Hugging Face's client: from the case's inputs to the client's own answer.
BY_CLIENT: dict[str, Callable[[InferenceClient, Case], Any]] = {
    "minilm": lambda client, case: client.feature_extraction(case["TEXT"]).tolist(),
    "classifier": lambda client, case: client.text_classification(case["TEXT"]),
    "ner": lambda client, case: client.token_classification(case["TEXT"]),
    "fill-mask": lambda client, case: client.fill_mask(case["TEXT"]),
    "qa": lambda client, case: client.question_answering(question=case["QUESTION"], context=case["CONTEXT"]),
    "zero-shot": lambda client, case: client.zero_shot_classification(case["TEXT"], case["CANDIDATE_LABELS"]),
    "gpt2": lambda client, case: client.text_generation(case["TEXT"], max_new_tokens=40),
    "t5": lambda client, case: client.translation(case["TEXT"], src_lang="en", tgt_lang="de").translation_text,
    "vit": lambda client, case: client.image_classification(case["IMAGE"]),
    "yolos": lambda client, case: client.object_detection(case["IMAGE"], threshold=0.05),
    "wav2vec2": lambda client, case: client.automatic_speech_recognition(case["AUDIO"]).text,
    "audio-classifier": lambda client, case: client.audio_classification(case["AUDIO"]),
}
NAMES = (*BY_CLIENT, "onnx-dynamic")
ASKED_AGAIN = ("minilm", "vit", "gpt2", "onnx-dynamic")  # by later tests: a load takes as long as importing torch


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's client refuses even 127.0.0.1 where HF_HUB_OFFLINE is set."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def models() -> Path:
    return ensure_models(names=NAMES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(models: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A running system with every model dropped and none loaded."""
    directory = tmp_path_factory.mktemp("predict")
    (directory / "incoming").mkdir()
    for name in NAMES:
        if (models / f"{name}.onnx").is_file():
            shutil.copy(models / f"{name}.onnx", directory / "incoming")
        else:
            shutil.copytree(models / name, directory / "incoming" / name)
    # Nothing in a folder says that a classifier of entailment is meant for labels that come with the request.
    overrides = {"zero-shot": {"task": "zero-shot-classification"}}
    patience = {"header_timeout_seconds": 5, "stall_timeout_seconds": 5}  # with what never comes
    sections = {"gateway": patience, "orchestration": {"load_on_discovery": False, "policies": HEAVY}, "models": overrides}
    async with system(directory, **sections) as running:
        for name in NAMES:
            await running.becomes(name, "UNLOADED")
        yield running


def close_to(expected: object) -> object:
    """``expected`` with every number taken as near enough within 1e-4."""
    match expected:
        case float():
            return pytest.approx(expected, abs=1e-4)
        case dict():
            return {key: close_to(value) for key, value in expected.items()}
        case list() if expected and isinstance(expected[0], float):
            return pytest.approx(expected, abs=1e-5)
        case list():
            return [close_to(item) for item in expected]
        case _:
            return expected


def inputs_of(case: Case, models: Path) -> Case:
    """The case's inputs by tensor name, files as bytes."""
    return {
        name: (models / "files" / value["file"]).read_bytes() if isinstance(value, dict) and "file" in value else value
        for name, value in case["inputs"].items()
    }


def body_of(inputs: Case, parameters: Case) -> Case:
    """What Hugging Face's schema makes of a case."""
    match inputs:
        case {"QUESTION": question, "CONTEXT": context}:
            return {"inputs": {"question": question, "context": context}, "parameters": parameters}
        case {"TEXT": text, "TEXT_PAIR": pair}:
            return {"inputs": {"text": text, "text_pair": pair}, "parameters": parameters}
        case {"TEXT": text, "CANDIDATE_LABELS": labels}:
            return {"inputs": text, "parameters": {**parameters, "candidate_labels": labels}}
        case {"TEXT": text}:
            return {"inputs": text, "parameters": parameters}
        case {"IMAGE": bytes(data)} | {"AUDIO": bytes(data)}:
            return {"inputs": base64.b64encode(data).decode(), "parameters": parameters}
        case _:
            return {"inputs": inputs}


def answer_of(task: str, answer: Any) -> Any:
    """The reference's answer in the shape that /predict gives."""
    match task:
        case "text-classification":
            return [answer]
        case "zero-shot-classification":
            return [{"label": label, "score": score} for label, score in zip(answer["labels"], answer["scores"], strict=True)]
        case "text-generation":
            return [{"generated_text": answer}]
        case "translation":
            return [{"translation_text": answer}]
        case "automatic-speech-recognition":
            return {"text": answer}
        case _:
            return answer


def plain(value: Any) -> Any:
    """The client's answers without their classes and without what they have no value for."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: item for key, item in asdict(value).items() if item is not None}
    return [plain(item) for item in value] if isinstance(value, list) else value


def known(expected: Any, found: Any) -> Any:
    """``expected`` without the fields that the client's classes do not have (a token's index)."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return {key: value for key, value in expected.items() if key in found}
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [known(*both) for both in zip(expected, found, strict=True)]
    return expected


async def by_client(url: str, question: Callable[[InferenceClient], Any]) -> Any:
    """The client is synchronous, the system runs on this loop."""

    def ask() -> Any:
        with InferenceClient(model=url, token="none", timeout=240) as client:
            return question(client)

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("name", NAMES)
async def test_answers_are_the_references_own(modelium: System, models: Path, name: str) -> None:
    given = reference(models, name)
    url = f"{modelium.running.gateway_url}/predict/{name}"
    assert (await modelium.get(f"/models/{name}"))["profile"]["task"] == given["task"]
    for case in given["cases"]:
        inputs = inputs_of(case, models)
        expected = answer_of(given["task"], case["answer"])
        async with modelium.http.post(
            url, data=io.BytesIO(json.dumps(body_of(inputs, case["parameters"])).encode())
        ) as response:
            answer = await response.json()
        assert (response.status, answer) == (200, close_to(expected)), case
        if not case["parameters"] and (tensor := next((t for t in MEDIA if t in inputs), None)):
            async with modelium.http.post(url, data=io.BytesIO(inputs[tensor])) as response:
                assert await response.json() == answer
    if name in BY_CLIENT:
        first = given["cases"][0]
        found = plain(await by_client(url, lambda client: BY_CLIENT[name](client, inputs_of(first, models))))
        assert found == close_to(
            known(first["answer"], found) if name != "zero-shot" else answer_of(given["task"], first["answer"])
        )
    if name not in ASKED_AGAIN:
        await modelium.post(f"/models/{name}/unload")


async def test_embeddings_agree_by_every_door_and_with_sentence_transformers(modelium: System, models: Path) -> None:
    """Modelium's /predict, Triton's HTTP and Triton's gRPC; lists longer than a batch, in order."""
    together = reference(models, "minilm")["together"]
    texts, expected = together["texts"], np.array(together["embeddings"], dtype=np.float32)

    status, answer = await modelium.post("/predict/minilm", {"inputs": texts})
    assert status == 200
    assert np.abs(np.array(answer, dtype=np.float32) - expected).max() < 1e-5

    some = np.array([[text.encode()] for text in texts[:8]], dtype=np.object_)
    by_grpc = await modelium.running.client.infer("minilm", {"TEXT": some})
    assert np.abs(by_grpc["EMBEDDING"] - expected[:8]).max() < 1e-5

    body = {"inputs": [{"name": "TEXT", "shape": [8, 1], "datatype": "BYTES", "data": texts[:8]}]}
    async with modelium.http.post(f"http://{modelium.running.server.http_url}/v2/models/minilm/infer", json=body) as response:
        (output,) = (await response.json())["outputs"]
    by_http = np.array(output["data"], dtype=np.float32).reshape(output["shape"])
    assert np.abs(by_http - expected[:8]).max() < 1e-5

    url = f"{modelium.running.gateway_url}/predict/minilm"
    similar = await by_client(url, lambda client: client.sentence_similarity(texts[0], texts[1:4]))
    assert similar == pytest.approx((expected[1:4] @ expected[0]).tolist(), abs=1e-5)

    prompted = {"model": "minilm", "input": [texts[1]], "prompt": "a quick "}
    (_, answered), (_, spelled) = [
        await modelium.post("/v1/embeddings", prompted),
        await modelium.post("/predict/minilm", {"inputs": f"a quick {texts[1]}"}),
    ]
    assert answered["data"][0]["embedding"] == pytest.approx(spelled, abs=1e-5)
    status, refused = await modelium.post("/v1/embeddings", {"model": "minilm", "input": "a", "prompt_name": "query"})
    assert (status, "no prompt 'query'" in refused["error"]["message"]) == (400, True)


async def test_a_request_whose_stub_is_killed_is_answered_all_the_same(modelium: System) -> None:
    await modelium.post("/models/minilm/load")
    sending = [asyncio.create_task(modelium.post("/predict/minilm", {"inputs": ["word " * 100] * 32})) for _ in range(4)]
    await modelium.until("/models/minilm", lambda model: bool(model["leases"] >= 4), "four requests are under way")
    (stub,) = stubs_of(modelium, "minilm")
    os.kill(stub, signal.SIGKILL)
    for status, answer in await asyncio.gather(*sending):
        assert status == 200, answer
        assert len(answer) == 32


def stubs_of(modelium: System, name: str) -> list[int]:
    """Process ids of the model's stubs below this system's server."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if all(word in words for word in (b"triton_python_backend_stub", f"{name}_0_0".encode(), bytes(modelium.repository))):
            found.append(int(entry.parent.name))
    return found


async def test_a_request_leaves_a_line_that_simulate_reads(modelium: System) -> None:
    async with modelium.http.post(f"{modelium.running.gateway_url}/predict/minilm", json={"inputs": "a"}) as response:
        assert response.status == 200
    async with modelium.http.get(f"{modelium.running.gateway_url}/trace") as response:
        trace = parse_trace(io.BytesIO(await response.read()), "the trace", duration_s=0.0)
    asked = [duration for _, model, duration in trace.arrivals() if trace.names[model] == "minilm"]
    assert asked[-1] > 0, "it took its time"


async def test_what_a_model_cannot_read_is_the_senders_error(modelium: System) -> None:
    url = f"{modelium.running.gateway_url}/predict/vit"
    async with modelium.http.post(url, data=b"no image", headers={"Content-Type": "image/png"}) as response:
        assert response.status == 422
        assert (await response.json())["type"] == "inference_failed"
    await modelium.post("/models/vit/unload")


async def test_malformed_requests_break_nothing(modelium: System, models: Path) -> None:
    """480 of them, of all kinds; 20,000 are ``bench/fuzz.py``'s."""
    ports = {
        Port.GATEWAY: modelium.running.gateway_url,
        Port.METRICS: modelium.running.metrics_url,
        Port.TRITON: modelium.running.client.http_url,
    }
    asked = Models(text="gpt2", embedder="minilm", tensors="onnx-dynamic")
    case = reference(models, "minilm")["cases"][0]
    good = {"inputs": case["inputs"]["TEXT"]}
    for name in (asked.text, asked.tensors):
        assert (await modelium.post(f"/models/{name}/load"))[0] == 200
    made = malformed(8, asked)
    requests = [next(made) for _ in range(480)]
    assert {request.kind for request in requests} == set(KINDS)

    async def client(number: int) -> list[str]:
        wrong = []
        for request in requests[number::8]:
            outcome = await send(request, {port: int(url.rpartition(":")[2]) for port, url in ports.items()}, within_s=300)
            if outcome.late or (outcome.status >= 500 and request.port is not Port.TRITON):
                wrong.append(f"{outcome}: {[piece[:500] for piece in request.pieces]}")
        return wrong

    outcomes = await asyncio.gather(*(client(number) for number in range(8)))
    assert [wrong for found in outcomes for wrong in found] == []
    await modelium.until(
        "/models",
        lambda seen: all(not model["leases"] and not model["waiting"] for model in seen["models"]),
        "no lease is left",
    )
    status, answer = await modelium.post("/predict/minilm", good)
    assert (status, answer) == (200, close_to(case["answer"]))
