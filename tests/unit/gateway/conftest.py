"""The fixtures of the gateway's tests: a running gateway, OpenAI's client of it, and a language model's folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from openai import AsyncOpenAI

from .openai_models import write_folder
from .stand_in import Served, served


@pytest.fixture
async def gateway() -> AsyncIterator[Served]:
    async with served(request_timeout_seconds=60, max_body_bytes=100_000) as running:
        yield running


@pytest.fixture
async def client(gateway: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "m")


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's client refuses even 127.0.0.1 where HF_HUB_OFFLINE is set."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
