"""Every runtime has its row in the tables, and a template."""

from __future__ import annotations

from modelium.brain.runtimes.choice import SUPPORTS
from modelium.repository import writable_runtimes
from modelium.repository.config import WRITERS
from modelium.values import Runtime


def test_every_runtime_has_its_rows_and_its_template() -> None:
    assert set(SUPPORTS) == set(WRITERS) == set(Runtime)
    assert writable_runtimes() == {runtime.value for runtime in Runtime}
