"""Loads at Triton itself, without Modelium's own care for them."""

from __future__ import annotations

import contextlib

from modelium.errors import ProcessLost
from modelium.triton.client import TritonClient

_TRIES = 5


async def load(client: TritonClient, name: str, *, timeout_s: float = 240) -> None:
    """Load it; again where Triton lost its process. Triton takes for dead what it does not hear of for a second while it
    starts, on a busy machine also what is well or has a cause to tell: that is no finding of the test's."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(ProcessLost):
            return await client.load(name, timeout_s=timeout_s)
    return await client.load(name, timeout_s=timeout_s)
