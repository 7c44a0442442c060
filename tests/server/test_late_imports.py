"""Modules that come late, with the numpy of the model runtime, and in a stub of the real Triton."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelium.triton.client import TritonClient
from modelium.triton.embedded import EmbeddedServer
from tests.late_imports import PACKAGE, USED, come_late
from tests.server.entries import write_echo
from tests.server.loading import load
from tests.server.systems import RUNTIME, settings_in

pytestmark = [pytest.mark.server, pytest.mark.asyncio]


async def test_the_runtimes_numpy_comes_late() -> None:
    found = come_late(RUNTIME / "bin" / "python")
    assert {name: found[name] for name in USED} == USED
    assert found["at first"] == ["Late", "Coreless"] and found["at work"] == ["Late", "Late"]
    assert found["asyncio used"] == ["module", "Late"] and found["numpy used"] == ["module", "module"]


async def test_a_stub_answers_without_ever_having_all_of_them(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    name = write_echo(repository)
    code, seen = repository / name / "1" / "model.py", tmp_path / "seen"
    first = f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); import late; late.come_late(); late.come_soon().join()\n"
    last = f"""
class TritonPythonModel(TritonPythonModel):
    def finalize(self):
        with open({str(seen)!r}, "w") as file:
            file.write(" ".join(type(sys.modules[name]).__name__ for name in ("asyncio", "numpy")))
"""
    code.write_text(first + code.read_text() + last)
    server = EmbeddedServer(settings_in(tmp_path, model_repository=repository))
    await server.start()
    client = TritonClient(http_url=server.http_url, grpc_url=server.grpc_url, log_path=server.log_path, headers=server.headers)
    try:
        await load(client, name)
        text = np.array([b"\x00raw", "größer".encode(), b""], dtype=np.object_)
        answer = await client.infer(name, {"IN": np.array([1.5, 2.5], np.float32), "TEXT": text})
        assert (answer["OUT"].tolist(), answer["ECHO"].tolist()) == ([1.5, 2.5], text.tolist())
        await client.unload(name)
    finally:
        await client.close()
        await server.stop()
    assert seen.read_text() == "_Late _Late"
