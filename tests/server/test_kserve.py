"""Triton's own HTTP clients, pointed at the gateway instead of Triton: what they get is what Triton would have answered, of
models that are loaded, that are away, that somebody unloaded behind Modelium's back, and that cannot be loaded."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_aio
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException, shared_memory
from yarl import URL

from tests.patience import PATIENCE_S
from tests.server.systems import System, save_graph, system, write_adder, write_unloadable

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

T = TypeVar("T")
SLASHED = "org/adder"
LARGE = 100_000  # numbers, 400 kB each way: more than is passed on in one piece


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Adders that nobody has loaded, one of an organisation, and one that cannot be loaded."""
    directory = tmp_path_factory.mktemp("kserve")
    gateway, orchestration = {"shared_memory": True}, {"load_on_discovery": False, "policies": {"load_retries": 0}}
    async with system(directory, gateway=gateway, orchestration=orchestration) as running:
        write_adder(running.incoming / "adder.onnx")
        write_wide(running.incoming / "wide.onnx")
        write_unloadable(running.incoming / "broken.onnx")
        beside = directory / "org"
        (beside / "adder").mkdir(parents=True)
        write_adder(beside / "adder" / "model.onnx", 2.0)
        beside.rename(running.incoming / "org")
        for name in ("adder", "broken", "wide", "org--adder"):
            await running.becomes(name, "UNLOADED")
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(modelium: System) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(at(modelium), conn_timeout=PATIENCE_S) as made:
        yield made


def write_wide(path: Path) -> None:
    """``y = x`` for rows of any width."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "w"]) for name in ("x", "y"))
    save_graph(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "wide", [x], [y]), path)


def at(modelium: System) -> str:
    return urlsplit(modelium.running.gateway_url).netloc


def numbers(width: int = 1) -> np.ndarray[Any, Any]:
    return np.arange(width, dtype=np.float32).reshape(1, width)


def asked(width: int = 1, *, binary: bool) -> tuple[list[Any], list[Any]]:
    x = triton_http.InferInput("x", [1, width], "FP32")
    x.set_data_from_numpy(numbers(width), binary_data=binary)
    return [x], [triton_http.InferRequestedOutput("y", binary_data=binary)]


async def blocking(modelium: System, work: Callable[[triton_http.InferenceServerClient], T]) -> T:
    """``work`` with the client that blocks, in a thread of its own."""

    def run() -> T:
        with triton_http.InferenceServerClient(at(modelium), network_timeout=PATIENCE_S, connection_timeout=PATIENCE_S) as made:
            return work(made)

    return await asyncio.to_thread(run)


def url(modelium: System, path: str, *, direct: bool = False) -> str:
    return (f"http://{modelium.running.server.http_url}" if direct else modelium.running.gateway_url) + path


async def unload(modelium: System, name: str) -> None:
    await modelium.post(f"/models/{name}/unload")
    await modelium.becomes(name, "UNLOADED")


@pytest.mark.parametrize("binary", [False, True])
async def test_a_model_that_is_away_answers_a_client_that_checks_first(modelium: System, binary: bool) -> None:
    await unload(modelium, "adder")

    def work(client: triton_http.InferenceServerClient) -> tuple[bool, str, Any]:
        ready = client.is_server_live() and client.is_server_ready() and client.is_model_ready("adder")
        metadata = client.get_model_metadata("adder")
        inputs, outputs = asked(binary=binary)
        return ready, metadata["name"], client.infer("adder", inputs, outputs=outputs).as_numpy("y").tolist()

    assert await blocking(modelium, work) == (True, "adder", [[1.0]])


async def test_to_ask_whether_it_is_ready_or_for_its_statistics_loads_nothing(
    modelium: System, client: triton_aio.InferenceServerClient
) -> None:
    await unload(modelium, "adder")
    async with modelium.http.get(url(modelium, "/v2/models/adder/ready")) as answer:
        assert (answer.status, answer.headers["X-Modelium-State"]) == (200, "UNLOADED")
    with pytest.raises(InferenceServerException, match="requested model 'adder' is not available"):
        await client.get_inference_statistics("adder")
    assert (await modelium.get("/models/adder"))["state"] == "UNLOADED"
    assert not await client.is_model_ready("adder", "2")


async def test_many_who_ask_at_once_share_one_load(modelium: System, client: triton_aio.InferenceServerClient) -> None:
    await unload(modelium, "adder")
    loads = (await modelium.get("/models/adder"))["loads"]
    inputs, outputs = asked(binary=True)
    answers = await asyncio.gather(*(client.infer("adder", inputs, outputs=outputs) for _ in range(8)))
    assert [answer.as_numpy("y").tolist() for answer in answers] == [[[1.0]]] * 8
    seen = await modelium.get("/models/adder")
    assert (seen["loads"], seen["leases"]) == (loads + 1, 0)


@pytest.mark.parametrize("called", [SLASHED, "org--adder", "org%2Fadder"])
async def test_a_name_with_a_slash_is_found(modelium: System, called: str) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}
    where = URL(url(modelium, f"/v2/models/{called}/versions/1/infer"), encoded=True)
    async with modelium.http.post(where, json=body) as response:
        status, answer = response.status, await response.json()
    assert (status, answer["model_name"], answer["outputs"][0]["data"]) == (200, "org--adder", [3.0])


async def test_a_client_finds_a_name_with_a_slash(modelium: System, client: triton_aio.InferenceServerClient) -> None:
    inputs, outputs = asked(binary=True)
    answer = await client.infer(SLASHED, inputs, outputs=outputs, model_version="1")
    assert answer.as_numpy("y").tolist() == [[2.0]]
    assert (await client.get_model_config(SLASHED))["name"] == "org--adder"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compression_passes_in_both_directions(
    modelium: System, client: triton_aio.InferenceServerClient, algorithm: str
) -> None:
    inputs, outputs = asked(LARGE, binary=True)
    answer = await client.infer(
        "wide",
        inputs,
        outputs=outputs,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.array_equal(answer.as_numpy("y"), numbers(LARGE))


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/infer", b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[4]}]}', {}),
        ("/infer", b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[4]}]}', {"Accept-Encoding": "gzip"}),
        ("/versions/1/infer", b'{"inputs":[{"name":"z","shape":[1,1],"datatype":"FP32","data":[4]}]}', {}),
        ("/infer", b"no JSON", {"Content-Type": "text/plain"}),
        # Without a time, which would be in the test's id: all workers must agree on that.
        ("/infer", gzip.compress(b"{}", mtime=0), {"Content-Encoding": "gzip"}),
        ("/infer", b"{}", {"Inference-Header-Content-Length": "99"}),
        ("/versions/9/infer", b"{}", {}),
        ("/generate", b'{"x": 1}', {}),
        ("/generate_stream", b"[]", {}),
        ("", None, {}),
        ("/versions/1", None, {}),
        ("/versions/9", None, {}),
        ("/config", None, {}),
    ],
)
async def test_triton_s_answer_is_the_clients_byte_for_byte(
    modelium: System, path: str, body: bytes | None, headers: dict[str, str]
) -> None:
    """Its errors too, and none of them is taken for a model that went away."""
    await modelium.post("/models/adder/load")
    loads = (await modelium.get("/models/adder"))["loads"]
    found = []
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Accept-Encoding",)) as http:
        for direct in (True, False, False):  # the second time through the gateway on its fast path
            method = "GET" if body is None else "POST"
            where = url(modelium, f"/v2/models/adder{path}", direct=direct)
            async with http.request(method, where, data=body, headers=headers) as answer:
                told = [
                    answer.headers.get(name) for name in ("Content-Type", "Content-Encoding", "Inference-Header-Content-Length")
                ]
                found.append((answer.status, told, await answer.read()))
    assert found[0] == found[1] == found[2]
    seen = await modelium.get("/models/adder")
    assert (seen["state"], seen["loads"], seen["leases"]) == ("LOADED", loads, 0)


async def test_a_model_unloaded_behind_its_back_costs_only_time(
    modelium: System, client: triton_aio.InferenceServerClient
) -> None:
    inputs, outputs = asked(binary=True)
    await client.infer("adder", inputs, outputs=outputs)
    asks: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.infer("adder", inputs, outputs=outputs),
        lambda: client.infer("adder", inputs, outputs=outputs, model_version="1"),
        lambda: client.get_model_metadata("adder"),
        lambda: client.get_model_config("adder"),
    ]
    for ask in asks:
        await modelium.running.client.unload("adder")
        assert await ask()


async def test_a_load_that_fails_is_told_in_tritons_shape(modelium: System) -> None:
    def work(client: triton_http.InferenceServerClient) -> list[str]:
        said = []
        inputs, outputs = asked(binary=True)
        asks: list[Callable[[], object]] = [
            lambda: client.infer("broken", inputs, outputs=outputs),
            lambda: client.load_model("broken"),
            lambda: client.get_model_metadata("broken"),
        ]
        for ask in asks:
            with pytest.raises(InferenceServerException) as failed:
                ask()
            said.append(failed.value.message())
        return said

    said = await blocking(modelium, work)
    assert all("NoSuchOperator" in words for words in said), said
    await modelium.becomes("broken", "FAILED")
    async with modelium.http.get(url(modelium, "/v2/models/broken/ready")) as answer:
        assert (answer.status, answer.headers["X-Modelium-State"]) == (400, "FAILED")
        assert "NoSuchOperator" in (await answer.json())["error"]


async def test_loads_and_unloads_are_the_controllers(modelium: System) -> None:
    await unload(modelium, "adder")

    def work(client: triton_http.InferenceServerClient) -> list[Any]:
        client.load_model("adder")
        loaded = {row["name"]: row["state"] for row in client.get_model_repository_index()}
        counted = client.get_inference_statistics("adder")["model_stats"][0]["name"]
        client.unload_model("adder", unload_dependents=True)
        away = {row["name"]: row["state"] for row in client.get_model_repository_index()}
        with pytest.raises(InferenceServerException, match="would replace its entry"):
            client.load_model("adder", config=json.dumps({"max_batch_size": 1}))
        with pytest.raises(InferenceServerException, match="would replace its entry"):
            client.load_model("adder", config="{}", files={"file:1/model.onnx": b"another model"})
        return [loaded["adder"], counted, away["adder"]]

    assert await blocking(modelium, work) == ["READY", "adder", "UNAVAILABLE"]
    assert (await modelium.get("/models/adder"))["state"] == "UNLOADED"


async def test_the_openai_servers_load_and_unload(modelium: System) -> None:
    status, model = await modelium.post("/v1/models/adder/load")
    assert (status, model["id"], model["object"]) == (200, "adder", "model")
    assert await modelium.post("/v1/models/adder/unload") == (200, {"status": "success", "model": "adder"})
    status, error = await modelium.post("/v1/models/nobody/unload")
    assert (status, error["error"]["code"]) == (404, "model_not_found")


async def test_system_shared_memory(modelium: System) -> None:
    def work(client: triton_http.InferenceServerClient) -> Any:
        key, size = f"/modelium_test_{uuid4().hex[:12]}", 4
        region = shared_memory.create_shared_memory_region("numbers", key, 2 * size)
        try:
            shared_memory.set_shared_memory_region(region, [numbers()])
            client.register_system_shared_memory("numbers", key, 2 * size)
            known = client.get_system_shared_memory_status()
            x, y = triton_http.InferInput("x", [1, 1], "FP32"), triton_http.InferRequestedOutput("y", binary_data=True)
            x.set_shared_memory("numbers", size)
            y.set_shared_memory("numbers", size, offset=size)
            client.infer("adder", [x], outputs=[y])
            found = shared_memory.get_contents_as_numpy(region, np.float32, [1, 1], offset=size).tolist()
            client.unregister_system_shared_memory("numbers")
            return [row["name"] for row in known], found, client.get_system_shared_memory_status()
        finally:
            shared_memory.destroy_shared_memory_region(region)

    assert await blocking(modelium, work) == (["numbers"], [[1.0]], [])


async def test_what_is_refused_says_what_to_do(modelium: System, client: triton_aio.InferenceServerClient) -> None:
    for ask in (client.get_trace_settings, client.get_log_settings, lambda: client.update_trace_settings("adder", {})):
        with pytest.raises(InferenceServerException, match="own port"):
            await ask()


async def test_the_server_says_what_triton_is(modelium: System, client: triton_aio.InferenceServerClient) -> None:
    metadata = await client.get_server_metadata()
    assert (metadata["name"], "binary_tensor_data" in metadata["extensions"]) == ("triton", True)
    assert isinstance((await client.get_inference_statistics())["model_stats"], list)


async def test_a_large_body_and_a_large_answer_pass(modelium: System) -> None:
    inputs, outputs = asked(20 * LARGE, binary=True)
    answer = await blocking(modelium, lambda client: client.infer("wide", inputs, outputs=outputs))
    assert np.array_equal(answer.as_numpy("y"), numbers(20 * LARGE))


async def test_who_asks_by_the_wrong_method_or_for_nothing_is_told(modelium: System) -> None:
    for method, path, status in [
        ("GET", "/v2/models/adder/infer", 405),
        ("POST", "/v2/models/adder/ready", 405),
        ("GET", "/v2/models/nobody/ready", 404),
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", "/v2/models/adder/versions/x/infer", 400),
        ("GET", "/v2/nothing", 404),
    ]:
        async with modelium.http.request(method, url(modelium, path)) as answer:
            assert (answer.status, isinstance((await answer.json())["error"], str)) == (status, True), path
