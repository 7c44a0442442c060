"""What a child does between its load and its first request, in processes of its own: this side is the stub's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_NURSERY = Path(__file__).parents[3] / "triton" / "nursery"
_INSTANCE = """
import os


def note(letter):
    os.write(int(os.environ["NOTING"]), letter.encode())


class TritonPythonModel:
    def initialize(self, args):
        import timm.loaded
        note("i")

    def rehearse(self):
        note("r")
        import timm.used
        raise ValueError("made-up input proves nothing")

    def execute(self, requests):
        note("e")
        import timm.used
        return []
"""
_PROGRAM = """
import json, os, socket, sys

nursery, entry, steps = sys.argv[1:]
sys.path[:0] = [nursery, entry]
from modelium_nursery import orders, packets, serving
from modelium_nursery.packets import MOST_CANCELLABLE
from modelium_nursery.shares import Shares

(done, noting), (told, telling) = os.pipe(), os.pipe()
(ours, its), (_, services) = packets.pair(), packets.pair()
cancelled = os.memfd_create("cancelled")
os.ftruncate(cancelled, MOST_CANCELLABLE)
if os.fork() == 0:
    ours.close()
    os.environ["NOTING"] = str(noting)
    order = orders.Birth(name="m", directory=entry, module="instance", model_dir="/", working_directory="/", environment={})
    handed = orders.Handed(its.detach(), services.detach(), -1, cancelled, 1, 2)
    serving.serve(order, handed, Shares({}, os.open(os.devnull, os.O_WRONLY)), telling)
its.close()
os.close(noting)
os.close(telling)
for step in json.loads(steps):
    if isinstance(step, dict):
        packets.send(ours, step)
    elif os.read(done, 1) != step.encode():
        raise SystemExit(f"no {step}")
packets.send(ours, {"finalize": True})
while "finalized" not in packets.receive(ours)[0]:
    pass
with open(done) as letters, open(told) as modules:
    print(json.dumps([letters.read(), modules.read().split()]))
"""
_INITIALIZE: dict[str, object] = {"initialize": {}}
_EXECUTE: dict[str, object] = {"execute": [], "batch": 1}


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ([_INITIALIZE, _EXECUTE, _EXECUTE], "iee"),  # who waited for the load does not wait for a rehearsal too
        ([_INITIALIZE, "i", "r", _EXECUTE, "e"], ""),  # nobody waits
    ],
)
def test_a_model_is_rehearsed_when_nobody_waits_and_tells_what_it_imported(
    tmp_path: Path, steps: list[object], left: str
) -> None:
    (tmp_path / "instance.py").write_text(_INSTANCE)
    (tmp_path / "timm").mkdir()
    for name in ("__init__", "loaded", "used"):
        (tmp_path / "timm" / f"{name}.py").touch()
    command = [sys.executable, "-c", _PROGRAM, str(_NURSERY), str(tmp_path), json.dumps(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [left, ["timm", "timm.loaded", "timm.used"]]


_LARGE_INSTANCE = """
import ctypes

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]


class TritonPythonModel:
    def initialize(self, args):
        pass

    def execute(self, requests):
        blocks = [libc.malloc(60_000) for _ in range(1_000)]
        for block in blocks:
            ctypes.memset(ctypes.c_void_p(block), 1, 60_000)
        libc.malloc(60_000)  # on top of them, so that they stay with the process when they are free
        for block in blocks:
            libc.free(block)
        return []
"""
_WATCHING_PROGRAM = (
    _PROGRAM[: _PROGRAM.index("its.close()")].replace("if os.fork() == 0:", "child = os.fork()\nif child == 0:")
    + """
its.close()


def held():
    with open(f"/proc/{child}/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def ask(message, answer):
    packets.send(ours, message)
    while answer not in packets.receive(ours)[0]:
        pass


ask({"initialize": {}}, "initialized")
watch = select.poll()
watch.register(ours, select.POLLIN)  # nothing comes: it only waits
for _ in range(2):
    ask({"execute": [], "batch": 1}, "executed")
    most = held()
    while held() > most - 40_000:
        watch.poll(50)
print("given back")
ask({"finalize": True}, "finalized")
"""
)


def test_a_model_that_rests_keeps_no_memory_of_its_requests(tmp_path: Path) -> None:
    (tmp_path / "instance.py").write_text(_LARGE_INSTANCE)
    program = _WATCHING_PROGRAM.replace("import json, os, socket, sys", "import json, os, select, socket, sys")
    command = [sys.executable, "-c", program, str(_NURSERY), str(tmp_path), "[]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "given back\n"), done.stderr


_TAKING_OVER_INSTANCE = """
import numpy
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def response(text):
    return pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", numpy.array([text]))])


class TritonPythonModel:
    def execute(self, requests):
        one, two, three = [request.get_response_sender() for request in requests]
        pb_utils.send_all([(one, response("a"), 0), (two, response("b"), FINAL)])
        one.send(flags=FINAL)
        raise ValueError("no third one")
"""
_TAKING_OVER_PROGRAM = (
    _PROGRAM[: _PROGRAM.index("for step in")]
    + """
def ask(message):
    packets.send(ours, message)
    answer, buffers = packets.receive(ours)
    return [answer, [bytes(buffer).decode() for buffer in buffers]]


requests = [
    {"number": number, "place": -1, "id": "", "parameters": "", "outputs": [], "tensors": []} for number in (7, 8, 9)
]
found = [ask({"initialize": {}}), ask({"take over": requests})]
found += [[answer, []] for answer, _ in (packets.receive(ours) for _ in range(2))]
print(json.dumps([*found, ask({"finalize": True})]))
"""
)


def test_requests_that_were_taken_over_are_all_answered(tmp_path: Path) -> None:
    """Also those that the model has not answered when it fails: the stub waits for nothing."""
    (tmp_path / "instance.py").write_text(_TAKING_OVER_INSTANCE)
    command = [sys.executable, "-c", _TAKING_OVER_PROGRAM, str(_NURSERY), str(tmp_path), "[]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    texts = [{"tensors": [["TEXT", "", [1], [1]]]}] * 2
    failed = {"error": ["ValueError: no third one", "INTERNAL"]}
    assert json.loads(done.stdout) == [
        [{"initialized": True}, []],
        [{"answers": [[7, texts[0], 0], [8, texts[1], 1]]}, ["a", "b"]],
        [{"answers": [[7, None, 1]]}, []],
        [{"answers": [[9, failed, 1]]}, []],
        [{"finalized": True}, []],
    ]
