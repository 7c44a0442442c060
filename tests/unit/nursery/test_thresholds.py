"""Memory of large requests stays with the process that answers them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from modelium_nursery import thresholds

_PROGRAM = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from modelium_nursery import thresholds
if sys.argv[2] == "keeps":
    thresholds.keep_what_is_freed()
def answer():
    return len([b"picture" * 100_000 for _ in range(5)])
answer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    answer()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    package = str(Path(thresholds.__file__).parents[1])
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))
    }
    return int(subprocess.check_output([sys.executable, "-c", _PROGRAM, package, way], env=environment))


def test_large_requests_cost_no_page_faults() -> None:
    assert faults("keeps") < 20
    assert faults("does not") > 1000  # else glibc does it by itself by now
