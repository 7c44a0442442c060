"""An external Triton before it answers: its repository is made at once, since a server that starts beside us waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from modelium.config import TritonSettings
from modelium.errors import TritonError
from modelium.triton.external import ExternalServer
from tests.patience import PATIENCE_S


def external(repository: Path) -> ExternalServer:
    """At an address where nobody listens."""
    return ExternalServer(TritonSettings(mode="external", grpc_url="127.0.0.1:1", model_repository=repository))


async def test_the_repository_is_there_before_triton_is(tmp_path: Path) -> None:
    repository = tmp_path / "models" / "repository"
    starting = asyncio.create_task(external(repository).start())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not repository.is_dir():  # noqa: ASYNC110 — the thread that makes it tells nobody
                await asyncio.sleep(0.01)
        assert not starting.done(), "it waits for Triton"
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


async def test_a_repository_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where a directory should be")
    with pytest.raises(TritonError, match=r"models/repository cannot be made .*triton\.model_repository"):
        await external(tmp_path / "models" / "repository").start()
