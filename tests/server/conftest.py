"""What tests of real inference share: the tiny models, one Triton a module, and a way to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from modelium.analyzers import analyze
from modelium.repository import ModelRepository
from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from modelium.values import Candidate, DeviceKind, Footprint, ModelOverride, ModelProfile, Placement, Runtime
from tests.models import RUNTIME, ensure_models
from tests.models.language import ensure_language_models
from tests.server.loading import load
from tests.server.systems import System, settings_in, system

LOAD_S = 900.0
ASK_S = 120.0

Array = np.ndarray[Any, Any]


@dataclass
class Triton:
    """A running server, its repository, and the models that were loaded so far."""

    models: Path
    repository: ModelRepository
    server: EmbeddedServer
    client: TritonClient
    loaded: dict[str, ModelProfile] = field(default_factory=dict)

    async def load(self, name: str, path: Path | None = None, override: ModelOverride | None = None) -> ModelProfile:
        """Analyze a folder (default: the test model of that name), write its entry, load it; once."""
        if name not in self.loaded:
            profile = profile_of(name, path or find_model(self.models, name), override)
            self.repository.write(profile, on_host(profile), override=override)
            await load(self.client, name, timeout_s=LOAD_S)
            self.loaded[name] = profile
        return self.loaded[name]

    async def unload(self, name: str) -> None:
        """Give the memory back; the tests of one model follow each other."""
        self.loaded.pop(name, None)
        await self.client.unload(name)
        async with asyncio.timeout(ASK_S):
            while (await self.client.index())[name].state != "UNAVAILABLE":  # noqa: ASYNC110 — the truth lies in another process
                await asyncio.sleep(0.02)

    async def ask(
        self, name: str, inputs: Mapping[str, object], parameters: Mapping[str, object] | None = None
    ) -> dict[str, Array]:
        """One row: text, bytes, a list of texts, or ``{"file": …}`` an input; one row of each output comes back."""
        tensors = {key: self.tensor(value) for key, value in inputs.items()}
        if parameters is not None:
            tensors["PARAMETERS"] = self.tensor(json.dumps(parameters))
        answer = await self.client.infer(name, tensors, timeout_s=ASK_S)
        return {key: value[0] for key, value in answer.items()}

    def tensor(self, value: object) -> Array:
        if isinstance(value, dict):
            value = (self.models / "files" / value["file"]).read_bytes()
        values = value if isinstance(value, list) else [value]
        return np.array([[item.encode() if isinstance(item, str) else item for item in values]], dtype=np.object_)


def find_model(models: Path, name: str) -> Path:
    folder = (models / name).resolve()  # all-MiniLM-L6-v2 is a link into the model runtime
    return folder if folder.is_dir() else models / f"{name}.onnx"


async def warm(server: EmbeddedServer, kind: Runtime, *modules: str) -> None:
    """Have a nursery of that kind, and wait until it listens."""
    server.nurseries.expect(kind, modules)
    async with asyncio.timeout(LOAD_S):
        while not server.nurseries.listens(kind):  # noqa: ASYNC110 — the truth lies in another process
            await asyncio.sleep(0.02)


def profile_of(name: str, path: Path, override: ModelOverride | None = None) -> ModelProfile:
    candidate = Candidate(name=name, label=name, path=path, root=path.parent, signature="", newest_mtime=path.stat().st_mtime)
    analysis = analyze(candidate, override or ModelOverride())
    assert isinstance(analysis, ModelProfile), analysis
    return analysis


def on_host(profile: ModelProfile) -> Placement:
    return Placement(
        runtime=Runtime.PYTHON if profile.onnx is None else Runtime.ONNXRUNTIME,
        device_id="host",
        device_kind=DeviceKind.HOST,
        device_index=-1,
        footprint=Footprint(estimated_bytes=1),
        max_batch_size=16,
        reason="the only device",
    )


@pytest.fixture(scope="session")
def runtime_dir() -> Path:
    """The model runtime's environment."""
    return RUNTIME


@pytest.fixture(scope="session")
def test_models() -> Path:
    """The directory of every tiny model, with the references."""
    return ensure_models()


@pytest.fixture(scope="session")
def language_models() -> Path:
    """The directory of the tiny language models, with the references."""
    return ensure_language_models()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def triton(tmp_path_factory: pytest.TempPathFactory, test_models: Path) -> AsyncIterator[Triton]:
    """A started server on free ports with a repository of its own; one a module."""
    async with started(tmp_path_factory.mktemp("triton"), test_models) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One Modelium a module, for all its tests that neither need settings of their own nor end its Triton."""
    async with system(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def modelium(shared: System) -> Iterator[System]:
    """It; what the test has dropped is taken away again, and is gone some time after the next test has begun."""
    yield shared
    shared.empty()


@contextlib.asynccontextmanager
async def started(directory: Path, models: Path, *, nursery: bool = True) -> AsyncIterator[Triton]:
    """A server below ``directory`` for the models of ``models``, which are born of a nursery or live in their stubs."""
    server = EmbeddedServer(settings_in(directory, nursery=nursery))
    repository = ModelRepository(directory / "repository")
    await server.start()
    if nursery:
        await warm(server, Runtime.PYTHON)
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, log_path=server.log_path, headers=server.headers)
    try:
        yield Triton(models=models, repository=repository, server=server, client=client)
    finally:
        await client.close()
        await server.stop()
        repository.close()
