"""Which unit tests are long: they are left out of ``make test-fast``, and are in every other run.

What enters: tests as they are collected, and ``thorough.txt``: files, and tests of files, that took a tenth of a second of a
core or more when last measured: many examples, large files, processes, clients whose imports take a second. What leaves: the
mark ``thorough``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@cache
def thorough() -> frozenset[str]:
    """What ``thorough.txt`` lists."""
    return frozenset((HERE / "thorough.txt").read_text(encoding="utf-8").split())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is not wanted as a whole is not imported either."""
    unwanted = config.getoption("markexpr") == "not thorough" and collection_path.is_relative_to(HERE)
    return True if unwanted and str(collection_path.relative_to(HERE)) in thorough() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them."""
    mine = [item for item in items if isinstance(item, pytest.Function) and item.path.is_relative_to(HERE)]
    for item in mine:
        file = str(item.path.relative_to(HERE))
        if file in thorough() or f"{file}::{item.originalname}" in thorough():
            item.add_marker(pytest.mark.thorough)
