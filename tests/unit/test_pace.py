"""Long work in pieces: nothing is left out, and others have their turn."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from modelium.pace import in_pieces


@given(st.lists(st.integers()), st.sampled_from([0.0, 1.0]))
def test_every_item_comes_once_and_in_order(items: list[int], piece_s: float) -> None:
    async def gather() -> list[int]:
        return [item async for item in in_pieces(items, piece_s=piece_s)]

    assert asyncio.run(gather()) == items


async def test_others_have_their_turn_between_two_pieces() -> None:
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    waiting = asyncio.create_task(other())
    async for item in in_pieces("ab", piece_s=0.0):
        order += item
    await waiting
    assert order == ["a", "other", "b"]


async def test_what_takes_no_time_is_one_piece() -> None:
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    waiting = asyncio.create_task(other())
    async for item in in_pieces("ab", piece_s=3600.0):
        order += item
    await waiting
    assert order == ["a", "b", "other"]
