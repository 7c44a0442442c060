"""ONNX files through analysis, entry and the real Triton: the answers are onnxruntime's, and one bad request hurts no other."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from modelium.analyzers import analyze
from modelium.errors import InferenceFailed, LoadFailed
from modelium.repository import ModelRepository
from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from modelium.values import Candidate, DeviceKind, Footprint, ModelProfile, Placement, Runtime
from tests.server.conftest import warm
from tests.server.loading import load
from tests.server.onnx_graphs import Array, ask_onnxruntime, make_graphs
from tests.server.systems import settings_in

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

RUNTIME = Path(__file__).parents[2] / ".runtime"
LOAD_S = 240.0


@dataclass
class Served:
    """A running server and the folder of graphs that it is to serve."""

    incoming: Path
    repository: ModelRepository
    client: TritonClient

    async def load(self, name: str) -> ModelProfile:
        profile = profile_of(self.incoming, name)
        self.repository.write(profile, on_host())
        await load(self.client, name, timeout_s=LOAD_S)
        return profile

    async def ask(self, name: str, feeds: dict[str, Array]) -> dict[str, Array]:
        return await self.client.infer(name, feeds, timeout_s=120)


def profile_of(incoming: Path, name: str) -> ModelProfile:
    path = incoming / f"{name}.onnx"
    analysis = analyze(
        Candidate(name=name, label=name, path=path, root=incoming, signature="", newest_mtime=path.stat().st_mtime)
    )
    assert isinstance(analysis, ModelProfile), analysis
    return analysis


def on_host(runtime: Runtime = Runtime.ONNXRUNTIME) -> Placement:
    return Placement(
        runtime=runtime,
        device_id="host",
        device_kind=DeviceKind.HOST,
        device_index=-1,
        footprint=Footprint(estimated_bytes=1),
        max_batch_size=8,
        reason="the only device",
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    directory = tmp_path_factory.mktemp("onnx")
    make_graphs(directory / "incoming")
    server = EmbeddedServer(settings_in(directory))
    await server.start()
    await warm(server, Runtime.ONNXRUNTIME)
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, log_path=server.log_path, headers=server.headers)
    try:
        assert "onnxruntime" in server.backends
        yield Served(incoming=directory / "incoming", repository=ModelRepository(directory / "repository"), client=client)
    finally:
        await client.close()
        await server.stop()


def numbers(*shape: int) -> Array:
    return np.random.default_rng(7).standard_normal(shape, dtype=np.float32)


def words(*rows: str | list[str]) -> Array:
    return np.array(rows, dtype=object)


@pytest.mark.parametrize(
    ("name", "feeds"),
    [
        ("dynamic", {"x": numbers(5, 64)}),
        ("side-file", {"x": numbers(3, 64)}),
        ("fixed", {"x": numbers(2, 64)}),
        ("two-inputs", {"a": numbers(4, 3), "b": numbers(4, 3) * 2}),
        ("strings", {"word": words("one", "zwölf", "三")}),
        ("text-rows", {"text": words(["a", ""], ["日本", "🙂"])}),
    ],
)
async def test_answers_are_those_of_onnxruntime(served: Served, name: str, feeds: dict[str, Array]) -> None:
    await served.load(name)
    expected = ask_onnxruntime(RUNTIME / "bin" / "python", served.incoming / f"{name}.onnx", feeds)
    given = {
        key: np.vectorize(str.encode, otypes=[object])(array) if array.dtype == object else array
        for key, array in feeds.items()
    }
    answers = await served.ask(name, given)
    assert set(answers) == set(expected)
    for output, array in expected.items():
        assert answers[output].shape == array.shape
        if array.dtype.kind == "f":
            assert answers[output].dtype == array.dtype
            np.testing.assert_allclose(answers[output], array, rtol=1e-6)
        else:
            assert [value.decode() for value in answers[output].ravel()] == array.ravel().tolist()


async def test_scalars_travel_as_one_element(served: Served) -> None:
    await served.load("scalar")
    answers = await served.ask("scalar", {"x": np.array([2], np.float32), "row": np.array([1, 2, 3], np.float32)})
    assert {name: array.tolist() for name, array in answers.items()} == {"twice": [4], "sum": [6]}
    await served.load("scalar-rows")
    answers = await served.ask("scalar-rows", {"x": np.array([[1], [2]], np.float32)})
    assert answers["twice"].tolist() == [[2], [4]]


async def test_requests_share_runs_and_each_gets_its_own_rows(served: Served) -> None:
    await served.load("dynamic")
    before = (await served.client.statistics())["dynamic"]
    sent = [numbers(rows, 64) + rows for rows in (1, 2, 3, 1, 2) * 12]
    answers = await asyncio.gather(*(served.ask("dynamic", {"x": x}) for x in sent))
    expected = await served.ask("dynamic", {"x": sent[0]})
    np.testing.assert_allclose(answers[0]["y"], expected["y"], rtol=1e-5)
    weights = np.linspace(-1, 1, 64 * 3, dtype=np.float32).reshape(64, 3)
    for x, answer in zip(sent, answers, strict=True):
        np.testing.assert_allclose(answer["y"], x @ weights, rtol=1e-4, atol=1e-4)
    after = (await served.client.statistics())["dynamic"]
    assert after.executions - before.executions < len(sent), "no two of the requests were joined"


async def test_a_bad_request_in_a_batch_fails_alone(served: Served) -> None:
    await served.load("lookup")
    indices = [99 if number % 7 == 3 else number % 10 for number in range(60)]

    async def look_up(index: int) -> float | str:
        try:
            return float((await served.ask("lookup", {"index": np.array([[index]])}))["value"][0, 0])
        except InferenceFailed as error:
            return str(error)

    answers = await asyncio.gather(*map(look_up, indices))
    for index, answer in zip(indices, answers, strict=True):
        if index == 99:
            assert isinstance(answer, str) and "99" in answer
        else:
            assert answer == index


async def test_text_that_is_not_utf8_is_refused_by_name(served: Served) -> None:
    await served.load("text-rows")
    with pytest.raises(InferenceFailed, match=r"input 'text' is not UTF-8"):
        await served.ask("text-rows", {"text": np.array([[b"\xff", b"fine"]], dtype=object)})


async def test_a_rewritten_entry_is_served_after_the_next_load_and_a_touched_one_is_read_again(served: Served) -> None:
    await served.load("fixed")
    shutil.copy(served.incoming / "fixed.onnx", served.incoming / "changing.onnx")
    await served.load("changing")
    assert "max_batch_size" not in await served.client.model_config("changing")
    shutil.copy(served.incoming / "dynamic.onnx", served.incoming / "changing.onnx")
    await served.load("changing")
    assert (await served.client.model_config("changing"))["max_batch_size"] == 8
    await served.ask("changing", {"x": numbers(7, 64)})
    deadline = time.monotonic() + LOAD_S  # Triton counts a request a moment after it was answered
    while (await served.client.statistics())["changing"].completed != 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    served.repository.touch("changing")
    await load(served.client, "changing", timeout_s=LOAD_S)
    assert (await served.client.statistics())["changing"].completed == 0  # counters start anew with the reload


async def test_triton_lists_our_entries_and_nothing_else(served: Served) -> None:
    served.repository.write(replace(profile_of(served.incoming, "dynamic"), name="passing"), on_host())
    assert "passing" in served.repository.owned()
    assert set(await served.client.index()) == set(served.repository.owned())
    served.repository.remove("passing")
    assert "passing" not in await served.client.index()


async def test_a_file_in_a_hugging_face_cache_is_served_through_its_links(served: Served, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--graph" / "snapshots" / "main"
    blobs = tmp_path / "models--org--graph" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for blob, file in enumerate(("side-file.onnx", "side-file.onnx_data")):
        shutil.copy(served.incoming / file, blobs / str(blob))
        (snapshot / file).symlink_to(blobs / str(blob))
    profile = replace(profile_of(served.incoming, "side-file"), name="cached", path=snapshot / "side-file.onnx")
    served.repository.write(profile, on_host())
    await load(served.client, "cached", timeout_s=LOAD_S)
    assert (await served.ask("cached", {"x": numbers(2, 64)}))["y"].shape == (2, 3)


async def test_data_beside_a_graph_that_is_cut_changes_no_answer_of_the_copy_that_serves(served: Served) -> None:
    await served.load("side-table")
    index = np.array([[3], [299_999]])
    before = await served.ask("side-table", {"index": index})
    data = served.incoming / "side-table.onnx_data"
    with data.open("r+b") as file:
        file.write(b"\xff" * 4096)
        file.truncate(4096)
    after = await served.ask("side-table", {"index": index})
    assert before["value"].tolist() == after["value"].tolist() == [[3.0], [299_999.0]]


async def test_a_path_mapping_serves_the_file_that_triton_sees(served: Served, tmp_path: Path) -> None:
    profile = profile_of(served.incoming, "side-file")
    for file in ("side-file.onnx", "side-file.onnx_data"):
        shutil.copy(served.incoming / file, tmp_path / file)
    elsewhere = replace(profile, name="mapped", path=Path("/not/on/this/machine/side-file.onnx"))
    root = served.incoming.parent / "repository"
    ModelRepository(root, path_mapping={"/not/on": "/not/there", "/not/on/this/machine": str(tmp_path)}).write(
        elsewhere, on_host()
    )
    await load(served.client, "mapped", timeout_s=LOAD_S)
    assert (await served.ask("mapped", {"x": numbers(2, 64)}))["y"].shape == (2, 3)


async def test_the_parameter_model_path_serves_an_entry_whose_link_leads_nowhere(served: Served) -> None:
    entry = served.repository.write(replace(profile_of(served.incoming, "dynamic"), name="moved"), on_host())
    (entry / "1" / "model.onnx").unlink()
    (entry / "1" / "model.onnx").symlink_to("/not/on/this/machine/model.onnx")
    await load(served.client, "moved", timeout_s=LOAD_S)
    assert (await served.ask("moved", {"x": numbers(2, 64)}))["y"].shape == (2, 3)


async def test_a_model_that_is_gone_fails_with_its_path(served: Served) -> None:
    shutil.copy(served.incoming / "dynamic.onnx", served.incoming / "vanishing.onnx")
    served.repository.write(profile_of(served.incoming, "vanishing"), on_host())
    (served.incoming / "vanishing.onnx").unlink()
    with pytest.raises(LoadFailed, match=rf"unable to find '.*{re.escape('vanishing.onnx')}'"):
        await load(served.client, "vanishing", timeout_s=LOAD_S)


async def test_a_configuration_that_is_not_the_graphs_fails_at_load_with_both_sides(served: Served) -> None:
    shutil.copy(served.incoming / "dynamic.onnx", served.incoming / "mistaken.onnx")
    profile = profile_of(served.incoming, "mistaken")
    shutil.copy(served.incoming / "lookup.onnx", served.incoming / "mistaken.onnx")
    served.repository.write(profile, on_host())
    with pytest.raises(LoadFailed, match=r"unexpected input 'x'; the graph has index"):
        await load(served.client, "mistaken", timeout_s=LOAD_S)
