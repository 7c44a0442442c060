"""The fixture of the gateway's tests: a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import huggingface_hub.constants
import pytest

from .stand_in import Served, served


@pytest.fixture
async def gateway() -> AsyncIterator[Served]:
    async with served(request_timeout_seconds=5, max_body_bytes=100_000) as running:
        yield running


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hugging Face's client refuses even 127.0.0.1 where HF_HUB_OFFLINE is set."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
