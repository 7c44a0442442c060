"""Hand-written model-repository entries for tests of the server itself: a few lines each, no weights."""

from __future__ import annotations

import json
from pathlib import Path

_CONFIG = """
name: "{name}"
backend: "python"
input [
  {{ name: "IN" data_type: TYPE_FP32 dims: [-1] }},
  {{ name: "TEXT" data_type: TYPE_STRING dims: [-1] optional: true }}
]
output [
  {{ name: "OUT" data_type: TYPE_FP32 dims: [-1] }},
  {{ name: "ECHO" data_type: TYPE_STRING dims: [-1] }}
]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""

# IN[0] < 0 raises; IN[0] > 1000 waits until IN[0] - 1000 seconds have passed or the request is cancelled.
_ECHO = """
import time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            value = pb.get_input_tensor_by_name(request, "IN").as_numpy()
            text = pb.get_input_tensor_by_name(request, "TEXT")
            if value.size and value[0] < 0:
                answers.append(pb.InferenceResponse(error=pb.TritonError("negative numbers are not for me")))
                continue
            if value.size and value[0] > 1000:
                until = time.monotonic() + float(value[0]) - 1000
                while time.monotonic() < until and not request.is_cancelled():
                    time.sleep(0.01)
            echo = text.as_numpy() if text is not None else np.array([], dtype=object)
            answers.append(pb.InferenceResponse([pb.Tensor("OUT", value), pb.Tensor("ECHO", echo)]))
        return answers
"""

# As vLLM does it: a process in a session of its own that lives on without its parent, and shared memory without an owner in
# its name. Who they are is written to a file.
_FAMILY = """
import subprocess
import sys

CHILD = '''
import json, os, pathlib, sys, time
from multiprocessing import shared_memory
memory = shared_memory.SharedMemory(create=True, size=1 << 20)
pathlib.Path(sys.argv[1] + ".new").write_text(json.dumps({"pid": os.getpid(), "memory": memory.name}))
os.replace(sys.argv[1] + ".new", sys.argv[1])
time.sleep(10_000)
'''

class TritonPythonModel:
    def initialize(self, args):
        subprocess.Popen([sys.executable, "-c", CHILD, FAMILY_FILE], start_new_session=True)

    def execute(self, requests):
        raise RuntimeError("nobody asks this model")
"""


def write_echo(repository: Path, name: str = "echo") -> str:
    """A model that gives back what it gets."""
    return write_model(repository, name, _ECHO)


def write_family(repository: Path, family_file: Path, name: str = "family") -> str:
    """A model whose process has a child that outlives it; the child's pid and shared memory go to ``family_file``."""
    return write_model(repository, name, f"FAMILY_FILE = {json.dumps(str(family_file))}\n{_FAMILY}")


def write_model(repository: Path, name: str, code: str) -> str:
    """An entry with any ``model.py``."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(_CONFIG.format(name=name))
    (version / "model.py").write_text(code)
    return name
