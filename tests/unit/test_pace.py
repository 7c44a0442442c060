"""Long work in pieces: nothing is left out, and others have their turn."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.pace import in_pieces


@given(st.lists(st.integers()), st.sampled_from([0.0, 1.0]))
def test_every_item_comes_once_and_in_order(items: list[int], piece_s: float) -> None:
    async def gather() -> list[int]:
        return [item async for item in in_pieces(items, piece_s=piece_s)]

    assert asyncio.run(gather()) == items


@pytest.mark.parametrize(("piece_s", "order"), [(0.0, ["a", "other", "b"]), (3600.0, ["a", "b", "other"])])
async def test_others_have_their_turn_between_two_pieces_and_only_there(piece_s: float, order: list[str]) -> None:
    seen: list[str] = []

    async def other() -> None:
        seen.append("other")

    waiting = asyncio.create_task(other())
    async for item in in_pieces("ab", piece_s=piece_s):
        seen += item
    await waiting
    assert seen == order
