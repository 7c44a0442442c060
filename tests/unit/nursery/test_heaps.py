"""What a fork shares of the heap, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_NURSERY = Path(__file__).parents[3] / "triton" / "nursery"
_BEGIN = f"""
import ctypes, sys
sys.path.insert(0, {str(_NURSERY)!r})
from modelium_nursery import heaps
libc = heaps._glibc()
if libc is None:
    print("no glibc")
    raise SystemExit


def anonymous():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", _BEGIN + program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    if done.stdout == "no glibc\n":
        pytest.skip("there is no glibc here that says where its heap ends")
    return done.stdout


def test_what_is_asked_for_after_a_fork_comes_from_pages_of_its_own() -> None:
    said = run("""
blocks = [libc.malloc(200) for _ in range(20_000)]
for block in blocks[::10]:
    libc.free(block)  # gaps on nearly every page
end = max(blocks)
assert heaps.fill_gaps() >= 2_000
print(all(libc.malloc(size) > end for size in (24, 100, 200) for _ in range(500)))
""")
    assert said == "True\n"


def test_what_a_load_leaves_behind_is_given_back() -> None:
    said = run("""
class Knot:
    def __init__(self):
        self.own, self.bytes = self, [bytes(1000) for _ in range(1000)]


import gc
gc.disable()
last = None
for _ in range(20):
    Knot()
kept = libc.malloc(1000)  # on top of it, so that the heap cannot simply shrink
before = anonymous()
heaps.give_back()
print(before - anonymous() > 15_000)
""")
    assert said == "True\n"
