"""Modules that come late are used like others; here with a numpy that is made otherwise than the model runtime's."""

from __future__ import annotations

import subprocess
import sys

from tests.late_imports import PACKAGE, USED, come_late


def test_what_comes_late_is_whole_when_it_is_asked_for() -> None:
    found = come_late(sys.executable)
    assert {name: found[name] for name in USED} == USED
    assert found["at first"] == ["Late", "Coreless"] and found["at work"][0] == "Late"
    assert found["asyncio used"][0] == "module" and found["numpy used"] == ["module", "module"]


def test_what_was_imported_before_is_left_alone() -> None:
    program = f"""
import sys
sys.path.insert(0, {str(PACKAGE)!r})
import asyncio, numpy, types, late
late.come_late()
print(type(asyncio) is types.ModuleType and type(numpy) is types.ModuleType and asyncio.iscoroutine.__module__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "asyncio.coroutines"
