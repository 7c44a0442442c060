"""Which unit tests are long: they are left out of ``make test-fast``, and are in every other run.

What enters: tests as they are collected, and ``thorough.txt``: files, and tests of files, that took half a second of a core or
more when last measured (``pytest tests/unit --durations=0``): many examples, large files, processes. What leaves: the mark
``thorough``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    thorough = frozenset((HERE / "thorough.txt").read_text(encoding="utf-8").split())
    mine = [item for item in items if isinstance(item, pytest.Function) and item.path.is_relative_to(HERE)]
    for item in mine:
        file = str(item.path.relative_to(HERE))
        if file in thorough or f"{file}::{item.originalname}" in thorough:
            item.add_marker(pytest.mark.thorough)
