"""Models that only Ray serves, or were told to: dropped, loaded, asked at every door, evicted and brought back.

One Modelium with its own Ray for the whole module. Nothing is loaded before a test asks for it, and a test lets go of
what others have loaded: Ray, its Serve and eight models' replicas would be too much for a laptop.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import shlex
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from modelium.resources import templates_directory
from tests.documented import examples_of, run_example
from tests.models import ensure_models, minilm, reference
from tests.models.language import LANGUAGE_CACHE, LLAMA, continuations
from tests.server import ray_faults
from tests.server.ray_apps import GREETER, PATIENT
from tests.server.systems import HEAVY, RUNTIME, System, system
from tests.server.test_readme import commands

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

TABLES = ("forest", "iris")
RIVALS = ("boosted", "leaves")  # one of them has room; the second has two replicas
KEPT = ("iris", "greeter")  # by many tests: once loaded they stay
ALLOWED = {"allow_custom_code": True}
MODELS = {
    "broken": ALLOWED,
    "forest": ALLOWED,
    "greeter": ALLOWED,
    "mini": {"runtime": "ray"},
    LLAMA: {"runtime": "ray"},
    "reranker": {"runtime": "ray"},
    "boosted": {"memory": "9GiB"},
    "leaves": {"memory": "4608MiB", "ray": {"min_replicas": 2}},
}


@pytest.fixture(scope="module")
def ray_models() -> Path:
    return ensure_models(names=[*TABLES, *RIVALS, "reranker", "painter", "minilm"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory, ray_models: Path, language_models: Path) -> AsyncIterator[System]:
    directory = tmp_path_factory.mktemp("ray")
    folders = {name: ray_models / name for name in (*TABLES, *RIVALS, "reranker", "painter")}
    folders |= {"mini": minilm(), LLAMA: language_models / LLAMA}
    settings = {"load_on_discovery": False, "policies": HEAVY | {"min_residence_seconds": 0, "evict_after_idle_seconds": 3600}}
    async with system(
        directory, ray={"enabled": True}, devices={"host_memory": "12GiB"}, orchestration=settings, models=MODELS
    ) as running:
        (running.incoming / "greeter").mkdir()
        (running.incoming / "greeter" / "serve_app.py").write_text(GREETER, encoding="utf-8")
        for name, folder in folders.items():
            beside = directory / name
            shutil.copytree(folder, beside)
            beside.rename(running.incoming / name)
        for name in (*folders, "greeter"):
            await running.becomes(name, "UNLOADED")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def held(modelium: System) -> AsyncIterator[Any]:
    """Call it with a model's name: it is there until another one is asked for; then it goes, unless it is in ``KEPT``."""
    names: list[str] = []

    async def let_go() -> None:
        while names:
            name = names.pop()
            await modelium.post(f"/models/{name}/unpin")
            assert (await modelium.post(f"/models/{name}/unload"))[0] == 200

    async def hold(name: str) -> Any:
        if names != [name]:
            await let_go()
            if name not in KEPT:
                names.append(name)
                assert (await modelium.post(f"/models/{name}/pin"))[0] == 200
            status, seen = await modelium.post(f"/models/{name}/load", headers=PATIENT)
            assert status == 200, seen
        return await modelium.becomes(name, "LOADED")

    yield hold
    await let_go()


# -- evictions: first, for they take away what is loaded -----------------------------------------------------------------


async def test_one_is_evicted_for_another(modelium: System, ray_models: Path) -> None:
    for name, other in (RIVALS, RIVALS[::-1]):
        await _answers_as_its_library(modelium, ray_models, name)
        _check_evictions(await modelium.get(f"/models/{other}"), name)
    assert 'modelium_evictions_total{rule="evict.6"}' in await modelium.metrics()


def _check_evictions(gone: Any, name: str) -> None:
    evicted = [one for one in gone["decisions"] if one["verb"] == "unload"]
    assert not evicted or (evicted[0]["rule"] == "evict.6" and f"{name} needs" in evicted[0]["reason"])


async def test_replicas_are_as_many_as_were_asked_for_and_are_measured(modelium: System, ray_models: Path) -> None:
    await _answers_as_its_library(modelium, ray_models, "leaves")
    seen = await modelium.becomes("leaves", "LOADED", lambda model: model["replicas"] == 2 and model["measured_bytes"])
    assert seen["placement"]["replicas"]["min"] == 2 and seen["measured_bytes"] > 2**27
    body = {"inputs": reference(ray_models, "leaves")["cases"][0]["inputs"]["ROWS"]}
    answers = await asyncio.gather(*(modelium.post("/predict/leaves", body) for _ in range(50)))
    assert {status for status, _ in answers} == {200}


async def test_what_was_evicted_comes_back(modelium: System, ray_models: Path) -> None:
    first, second = RIVALS
    before = await modelium.get(f"/models/{first}")
    assert before["state"] == "UNLOADED"
    await _answers_as_its_library(modelium, ray_models, first)
    assert (await modelium.get(f"/models/{first}"))["loads"] == before["loads"] + 1
    _check_evictions(await modelium.get(f"/models/{second}"), first)
    assert (await modelium.post(f"/models/{first}/unload"))[0] == 200


# -- what only Ray serves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
async def test_a_model_of_rows_and_columns_answers_as_its_own_library(
    modelium: System, held: Any, ray_models: Path, name: str
) -> None:
    await held(name)
    await _answers_as_its_library(modelium, ray_models, name)


async def _answers_as_its_library(modelium: System, ray_models: Path, name: str) -> None:
    told = reference(ray_models, name)
    for case in told["cases"]:
        body = {"inputs": case["inputs"]["ROWS"], "parameters": case["parameters"]}
        status, answer = await modelium.post(f"/predict/{name}", body, headers=PATIENT)
        assert status == 200, answer
        assert _close(answer, case["answer"]), (answer, case["answer"])
    seen = await modelium.get(f"/models/{name}")
    assert (seen["profile"]["task"], seen["placement"]["runtime"]) == (told["task"], "ray")


async def test_a_wrong_row_is_refused_with_its_place(modelium: System, held: Any) -> None:
    await held("iris")
    status, answer = await modelium.post("/predict/iris", {"inputs": [[1, 2, 3, 4], [1, 2, 3]]})
    assert (status, answer["type"]) == (422, "invalid_body") and "inputs[1]: the model takes 4 columns" in answer["error"]
    status, answer = await modelium.post("/predict/iris", {"inputs": [["long", 2, 3, 4]]})
    assert status == 422, answer
    status, answer = await modelium.post("/predict/iris", {"inputs": [[1, 2, 3, 4]]})
    assert status == 200, "and hurts nobody"


async def test_it_answers_at_tritons_own_doors(modelium: System, held: Any, ray_models: Path) -> None:
    await held("iris")
    case = reference(ray_models, "iris")["cases"][0]
    rows = np.array(case["inputs"]["ROWS"], dtype=np.float64)
    answer = await modelium.running.client.infer("iris", {"FEATURES": rows})
    assert [label.decode() for label in answer["LABEL"].reshape(-1)] == case["answer"]
    inputs = [{"name": "FEATURES", "shape": [3, 4], "datatype": "FP64", "data": rows.reshape(-1).tolist()}]
    body = json.dumps({"inputs": inputs, "outputs": [{"name": "LABEL"}]})
    url = f"http://{modelium.running.server.http_url}/v2/models/iris/infer"
    curl = await asyncio.create_subprocess_exec("curl", "-s", url, "-d", body, stdout=asyncio.subprocess.PIPE)
    said, _ = await curl.communicate()
    assert json.loads(said)["outputs"][0]["data"] == case["answer"]


@pytest.mark.parametrize("command", commands("ray"))
async def test_what_the_readme_asks_is_answered(modelium: System, held: Any, command: str) -> None:
    await held("iris")
    here = command.replace("http://127.0.0.1:8080", modelium.running.gateway_url)
    curl = await asyncio.create_subprocess_exec(*shlex.split(here), "--fail", "-s", stdout=asyncio.subprocess.PIPE)
    said, _ = await curl.communicate()
    assert json.loads(said) == ["setosa"]


async def test_what_is_no_application_says_so(modelium: System, held: Any) -> None:
    await held("iris")
    status, answer = await modelium.post("/apps/iris/x", {})
    assert status == 422 and "POST /predict/iris" in answer["error"]


async def test_a_cross_encoder_ranks_as_sentence_transformers_does(modelium: System, held: Any, ray_models: Path) -> None:
    await held("reranker")
    cases = reference(ray_models, "reranker")["cases"]
    for case in cases:
        status, answer = await modelium.post("/predict/reranker", {"inputs": case["inputs"]})
        assert status == 200 and _close(answer, case["answer"]), answer
    status, answer = await modelium.post(
        "/predict/reranker", {"inputs": [case["inputs"] for case in cases], "parameters": {"top_k": 1}}
    )
    assert status == 200 and [[one["index"] for one in best] for best in answer] == [[0], [1], [2], [3]]


async def test_a_pipeline_of_diffusers_paints_the_same_picture(
    modelium: System, held: Any, ray_models: Path, tmp_path: Path
) -> None:
    await held("painter")
    (case,) = reference(ray_models, "painter")["cases"]
    body = {"inputs": case["inputs"]["PROMPT"], "parameters": case["parameters"]}
    async with modelium.http.post(f"{modelium.running.gateway_url}/predict/painter", json=body) as response:
        assert (response.status, response.content_type) == (200, "image/png")
        painted = Image.open(io.BytesIO(await response.read()))
    assert list(painted.size) == case["answer"]["size"]
    assert hashlib.sha256(np.asarray(painted).tobytes()).hexdigest() == case["answer"]["sha256"]
    status, answer = await modelium.post("/predict/painter", {"inputs": "a red house", "parameters": {"steps": 3}})
    assert status == 422 and "num_inference_steps" in answer["error"]
    asked = {**case["parameters"]}
    asked["size"] = f"{asked.pop('width')}x{asked.pop('height')}"
    body = {"model": "painter", "prompt": case["inputs"]["PROMPT"], "n": 2, **asked}
    status, answer = await modelium.post("/v1/images/generations", body)
    assert status == 200, answer
    pictures = [Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))) for one in answer["data"]]
    digests = [hashlib.sha256(np.asarray(picture).tobytes()).hexdigest() for picture in pictures]
    assert digests[0] == case["answer"]["sha256"] != digests[1]
    (example,) = examples_of("openai.md", "client.images.")
    names = {"sdxl": "painter", "1024x1024": "64x64", "house.png": str(tmp_path / "house.png")}
    await run_example(example, f"{modelium.running.gateway_url}/v1", **names)
    with Image.open(tmp_path / "house.png") as house:
        assert house.size == (64, 64)


# -- an application of the user's ----------------------------------------------------------------------------------------


async def test_an_application_is_asked_as_its_own_server_would_be(modelium: System, held: Any) -> None:
    seen = await held("greeter")
    assert (seen["profile"]["task"], seen["profile"]["import_path"]) == ("serve-app", "serve_app:app")
    assert await modelium.post("/predict/greeter", {"name": "world"}) == (200, {"hello": "world"})
    url = f"{modelium.running.gateway_url}/apps/greeter"
    async with modelium.http.put(f"{url}/any/path?q=1&q=2", data=b"\x00\xff", headers={"Content-Type": "x/y"}) as response:
        said = await response.json()
        assert (response.status, response.headers["X-Modelium-Waited-Ms"]) == (418, "0")
    assert said == {"method": "PUT", "path": "/any/path", "query": "q=1&q=2", "type": "x/y", "body": [0, 255]}
    async with modelium.http.get(f"{url}/boom") as response:
        assert response.status == 500 and "Internal Server Error" in await response.text()


async def test_an_application_streams_as_it_speaks_and_hears_when_the_client_leaves(modelium: System, held: Any) -> None:
    await held("greeter")
    url = f"{modelium.running.gateway_url}/apps/greeter"
    async with modelium.http.get(f"{url}/words") as response:
        assert response.content_type == "text/plain"
        assert await response.content.readany() == b"one "
        # The second word is not said before somebody asks for it: so the first was not kept until the end.
        async with modelium.http.post(f"{url}/go") as gone:
            assert gone.status == 200
        assert await response.content.read() == b"two "
    response = await modelium.http.get(f"{url}/words")
    assert await response.content.readany() == b"one "
    response.close()
    await modelium.until("/apps/greeter/left", lambda said: said["left"] == 1, "the application hears that its client left")


async def test_requests_to_an_application_are_under_way_together(modelium: System, held: Any) -> None:
    """Each answers only when all twelve are there."""
    await held("greeter")
    url = f"{modelium.running.gateway_url}/apps/greeter/meet?12"

    async def meet() -> int:
        async with modelium.http.get(url) as response:
            return int(await response.text())

    assert await asyncio.gather(*(meet() for _ in range(12))) == [12] * 12


async def test_an_application_answers_at_tritons_grpc_stream(modelium: System, held: Any) -> None:
    await held("greeter")
    ask = np.empty(1, dtype=np.object_)
    ask[0] = b'{"name": "triton"}'
    answers = [one async for one in modelium.running.client.stream("greeter", {"REQUEST": ask}, timeout_s=240)]
    assert b"".join(one["RESPONSE"].item(0) for one in answers) == b'{"hello":"triton"}'
    assert answers[0]["STATUS"].tolist() == [200]


# -- what Triton would serve too ---------------------------------------------------------------------------------------


async def test_minilm_on_ray_answers_as_in_triton(modelium: System, held: Any, ray_models: Path) -> None:
    seen = await held("mini")
    assert seen["placement"]["runtime"] == "ray" and "chosen by hand" in seen["reason"]
    for case in reference(ray_models, "minilm")["cases"]:
        body = {"inputs": case["inputs"]["TEXT"], "parameters": case["parameters"]}
        status, answer = await modelium.post("/predict/mini", body)
        assert status == 200 and np.allclose(answer, case["answer"], atol=1e-5)
    texts = [[f"text {n}", f"another {n}"] for n in range(20)]
    together = await asyncio.gather(*(modelium.post("/predict/mini", {"inputs": pair}) for pair in texts))
    assert [status for status, _ in together] == [200] * 20


async def test_a_language_model_on_ray_writes_what_transformers_writes(modelium: System, held: Any) -> None:
    seen = await held(LLAMA)
    assert seen["placement"]["runtime"] == "ray" and seen["placement"]["engine"] is not None
    written = next(one for one in continuations(LANGUAGE_CACHE, LLAMA) if not one.messages)
    body = {"inputs": written.prompt, "parameters": {"max_new_tokens": written.max_new_tokens, "details": True}}
    status, said = await modelium.post(f"/predict/{LLAMA}", body)
    assert status == 200, said
    (answer,) = said
    assert answer["generated_text"] == written.text
    assert answer["details"]["generated_tokens"] == len(written.new_tokens)
    async with modelium.http.post(
        f"{modelium.running.gateway_url}/v1/completions",
        json={
            "model": LLAMA,
            "prompt": written.prompt,
            "max_tokens": written.max_new_tokens,
            "temperature": 0,
            "stream": True,
        },
    ) as response:
        events = [line[6:] async for line in response.content if line.startswith(b"data: {")]
    pieces = [json.loads(event)["choices"][0]["text"] for event in events]
    assert "".join(pieces) == written.text and len(pieces) > 3
    status, answer = await modelium.post(
        f"/predict/{LLAMA}", {"inputs": "x", "parameters": {"max_new_tokens": 5, "temprature": 1}}
    )
    assert status == 422 and "temprature" in answer["error"]


# -- how Ray is told -----------------------------------------------------------------------------------------------------


async def test_ray_is_shown(modelium: System) -> None:
    seen = await modelium.until("/models", lambda all: all["ray"]["state"] == "up", "Ray is up")
    assert seen["ray"]["version"] and seen["ray"]["here"] and seen["ray"]["restarts"] == 0
    assert "modelium_ray_up 1.0" in await modelium.metrics()


LOOKS = """
import json, sys
sys.dont_write_bytecode = True
sys.path.append(sys.argv[1])
from modelium_ray import status
from modelium_ray.connection import Connection, connect
connect(Connection(**json.load(sys.stdin)))
looks = status.look, status.look_the_long_way
ways = [[(one := look(name)).status, one.messages] for name in status.names() for look in looks]
print(json.dumps({"ways": ways, "of no such": [look("none") for look in looks]}))
"""


async def test_what_is_asked_of_serves_own_client_is_what_serve_says(modelium: System, held: Any) -> None:
    await held("iris")
    told = (modelium.repository.parent / "state" / "ray.json").read_bytes()
    code = templates_directory() / "ray" / "1"
    looking = await asyncio.create_subprocess_exec(
        *(RUNTIME / "bin" / "python", "-c", LOOKS, code), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said = json.loads((await looking.communicate(told))[0])
    assert said["of no such"] == [None, None]
    assert said["ways"] and all(way == ["RUNNING", ["", ""]] for way in said["ways"])


# -- what happens to Ray: last, for it starts anew ------------------------------------------------------------------------


@pytest.mark.parametrize("check", ray_faults.CHECKS, ids=lambda check: check.__name__)
async def test_what_happens_to_ray_is_told_and_healed(
    modelium: System, held: Any, check: Callable[[System], Awaitable[None]]
) -> None:
    for name in KEPT:
        await held(name)
    await check(modelium)


def _close(answer: Any, wanted: Any) -> bool:
    """Equal, numbers nearly so."""
    if isinstance(wanted, list):
        return len(answer) == len(wanted) and all(_close(*pair) for pair in zip(answer, wanted, strict=True))
    if isinstance(wanted, dict):
        return set(answer) == set(wanted) and all(_close(answer[key], value) for key, value in wanted.items())
    return bool(answer == (pytest.approx(wanted, rel=1e-4, abs=1e-4) if isinstance(wanted, float) else wanted))
