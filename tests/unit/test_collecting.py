"""What stays is passed over by the collector of cycles; what is not referred to any more is freed all the same."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from modelium.collecting import keep_collections_short


class Thing:
    """Something that a weak reference can be had of."""


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_there_is_frozen_at_the_start_and_when_much_has_come() -> None:
    known = [0]
    keeping = asyncio.create_task(keep_collections_short(lambda: known[0], more=10, every_s=0))
    await turns(3)
    first = gc.get_freeze_count()
    assert first > 0
    kept = [Thing() for _ in range(1_000)]
    known[0] = 9
    await turns(5)
    assert gc.get_freeze_count() < first + 1_000
    known[0] = 10
    await turns(5)
    assert gc.get_freeze_count() > first + 900
    gone = weakref.ref(kept.pop())
    assert gone() is None
    keeping.cancel()
