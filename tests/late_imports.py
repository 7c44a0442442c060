"""What a Python does with modules that come late: its executable enters, what it found leaves.

In a process of its own, in which nobody has imported them.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1] / "triton" / "nursery" / "modelium_nursery"
_PROGRAM = """
import json, sys
sys.path[:0] = [PACKAGE, UTILS]
import late
late.come_late()
found = {}
def note(when):
    found[when] = [type(sys.modules[name]).__name__.strip("_") for name in ("asyncio", "numpy")]
note("at first")
late.come_soon().join()
utils = sys.modules.get("triton_python_backend_utils")

import asyncio
import numpy as np
import numpy
async def work():
    return 3
coroutine = work()
found["coroutines"] = [asyncio.iscoroutine(value) for value in ([], None, coroutine)]
coroutine.close()
row = np.frombuffer(bytes(8), dtype=np.float32)
words = np.array([b"a", "ö".encode()], dtype=np.object_)
rows = np.concatenate([np.ascontiguousarray(row).reshape(1, 2), np.ones((1, 2), np.float32)])
is_float = row.dtype == np.float32
found["tensors"] = [rows.tolist(), [len(word) for word in words], is_float, np.__version__ == numpy.version.version]
for module in (asyncio, np):
    hasattr(module, "__no_such_name__")
note("at work")

found["run"] = asyncio.run(work())
note("asyncio used")
found["norm"] = float(np.linalg.norm(np.array([3.0, 4.0])))
import numpy.testing
import numpy.random
found["same"] = np is numpy is sys.modules["numpy"] and np.ndarray is type(row) and np.random is numpy.random
found["all"] = sorted(name for name in np.__all__ if not hasattr(np, name))
note("numpy used")
import triton_python_backend_utils as utils_now
found["table"] = utils in (None, utils_now) and utils_now.TABLE == {"TYPE_INT8": np.int8, "TYPE_STRING": np.object_, "N": 1}
print(json.dumps(found))
"""
_UTILS = """
import numpy as np

TABLE = {"TYPE_INT8": np.int8, "TYPE_STRING": np.object_, "N": 1}


def is_bool(dtype):
    return dtype == np.bool_
"""


def come_late(python: str | Path) -> dict[str, Any]:
    """Use both modules a little, then wholly; say which were whole when."""
    with tempfile.TemporaryDirectory() as utils:
        Path(utils, "triton_python_backend_utils.py").write_text(_UTILS)
        program = _PROGRAM.replace("PACKAGE", repr(str(PACKAGE))).replace("UTILS", repr(utils))
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


USED = {
    "coroutines": [False, False, True],
    "tensors": [[[0.0, 0.0], [1.0, 1.0]], [1, 2], True, True],
    "run": 3,
    "norm": 5.0,
    "same": True,
    "table": True,
    "all": [],
}
