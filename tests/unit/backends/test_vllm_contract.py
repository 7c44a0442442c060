"""The embedded server's vLLM backend against the stock backend's contract, and the parts of it that need no vLLM."""

from __future__ import annotations

import ast
import base64
import contextlib
import importlib
import io
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tritonclient.grpc import model_config_pb2

from modelium.errors import ContextExceeded
from modelium.resources import templates_directory
from modelium.signatures import VLLM
from modelium.triton.faults import stream_error
from modelium.values import Tensor
from tests.patience import PATIENCE_S

BACKEND = Path(__file__).parents[3] / "triton" / "backends" / "vllm"

# https://github.com/triton-inference-server/vllm_backend, src/model.py of 26.01: name → type, dims, optional.
STOCK_INPUTS = {
    "text_input": ("TYPE_STRING", [1], False),
    "image": ("TYPE_STRING", [-1], True),
    "stream": ("TYPE_BOOL", [1], True),
    "sampling_parameters": ("TYPE_STRING", [1], True),
    "exclude_input_in_output": ("TYPE_BOOL", [1], True),
    "return_finish_reason": ("TYPE_BOOL", [1], True),
    "return_cumulative_logprob": ("TYPE_BOOL", [1], True),
    "return_logprobs": ("TYPE_BOOL", [1], True),
    "return_num_input_tokens": ("TYPE_BOOL", [1], True),
    "return_num_output_tokens": ("TYPE_BOOL", [1], True),
    "embedding_request": ("TYPE_STRING", [1], True),
}
STOCK_OUTPUTS = {
    "text_output": ("TYPE_STRING", [-1], False),
    "finish_reason": ("TYPE_STRING", [-1], False),
    "cumulative_logprob": ("TYPE_FP32", [-1], False),
    "logprobs": ("TYPE_STRING", [-1], False),
    "num_input_tokens": ("TYPE_UINT32", [1], False),
    "num_output_tokens": ("TYPE_UINT32", [-1], False),
}


@pytest.fixture(scope="module")
def backend() -> Iterator[Any]:
    """A module of the backend by its name, imported as Triton's stub does."""
    sys.path.insert(0, str(BACKEND))

    def module(name: str) -> ModuleType:
        return importlib.import_module(f"vllm_backend.{name}")

    yield module
    sys.path.remove(str(BACKEND))


def test_the_signature_is_the_stock_backends() -> None:
    assert table(VLLM.inputs) == STOCK_INPUTS
    assert table(VLLM.outputs) == STOCK_OUTPUTS
    assert (VLLM.batches, VLLM.decoupled) == (False, True)


def table(tensors: tuple[Tensor, ...]) -> dict[str, tuple[str, list[int], bool]]:
    return {
        one.name: (f"TYPE_{'STRING' if one.datatype == 'BYTES' else one.datatype}", list(one.dims), one.optional)
        for one in tensors
    }


def test_the_backend_completes_a_configuration_with_the_stock_tensors(backend: Any) -> None:
    tensors = backend("tensors")
    for stated, stock in ((tensors.INPUTS, STOCK_INPUTS), (tensors.OUTPUTS, STOCK_OUTPUTS)):
        assert {one["name"]: (one["data_type"], one["dims"], one.get("optional", False)) for one in stated} == stock


def test_the_template_is_a_whole_example_with_the_stock_tensors() -> None:
    config = model_config_pb2.ModelConfig()
    text_format.Parse((templates_directory() / "vllm" / "config.pbtxt").read_text(encoding="utf-8"), config)
    for stated, stock in ((config.input, STOCK_INPUTS), (config.output, STOCK_OUTPUTS)):
        found = {
            one.name: (model_config_pb2.DataType.Name(one.data_type), list(one.dims), getattr(one, "optional", False))
            for one in stated
        }
        assert found == stock
    assert (config.backend, config.max_batch_size, config.model_transaction_policy.decoupled) == ("vllm", 0, True)


def test_only_one_module_of_the_backend_knows_vllm() -> None:
    knows = {path.name for path in BACKEND.rglob("*.py") if imports_of(path, "vllm")}
    assert knows == {"compat.py"}


def test_a_prompt_that_is_too_long_is_marked_as_the_gateway_knows_it(backend: Any) -> None:
    error = backend("errors").TooLong("too long")
    read = stream_error("m", str(error))
    assert (type(read), str(read)) == (ContextExceeded, "too long")


def test_the_backend_imports_nothing_of_modelium() -> None:
    assert not [path for path in BACKEND.rglob("*.py") if imports_of(path, "modelium")]


def imports_of(path: Path, package: str) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        if any(name.partition(".")[0] == package for name in names):
            return True
    return False


FIELDS = {
    "n": int,
    "temperature": float,
    "seed": int | None,
    "ignore_eos": bool,
    "stop": str | list[str] | None,
    "stop_token_ids": list[int] | None,
    "logit_bias": dict[int, float] | None,
    "extra_args": dict[str, Any] | None,
}


@pytest.mark.parametrize(
    ("given_value", "read"),
    [
        ({"temperature": "0.7"}, {"temperature": 0.7}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"n": "2"}, {"n": 2}),
        ({"n": 2.0}, {"n": 2}),
        ({"seed": None}, {"seed": None}),
        ({"ignore_eos": "false"}, {"ignore_eos": False}),
        ({"ignore_eos": 1}, {"ignore_eos": True}),
        ({"stop": "."}, {"stop": "."}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_token_ids": "[1, 2]"}, {"stop_token_ids": [1, 2]}),
        ({"logit_bias": {"5": "-100"}}, {"logit_bias": {5: -100.0}}),
        ({"extra_args": {"x": [1]}}, {"extra_args": {"x": [1]}}),
    ],
)
def test_parameters_get_the_types_of_their_fields(backend: Any, given_value: dict[str, Any], read: dict[str, Any]) -> None:
    assert backend("parameters").read_parameters(given_value, FIELDS) == read


@pytest.mark.parametrize(
    ("given_value", "words"),
    [
        ({"temprature": 1}, "unknown sampling parameter 'temprature'; did you mean 'temperature'?"),
        ({"lora": "x"}, "unknown sampling parameter 'lora'; did you mean 'lora_name'?"),
        ({"temperature": "hot"}, "invalid sampling parameter 'temperature': \"hot\" is not a number"),
        ({"n": 1.5}, "invalid sampling parameter 'n': 1.5 is not a whole number"),
        ({"n": None}, "invalid sampling parameter 'n': null is not a whole number"),
        ({"ignore_eos": "perhaps"}, "invalid sampling parameter 'ignore_eos': \"perhaps\" is not true or false"),
        ({"stop_token_ids": "1"}, "invalid sampling parameter 'stop_token_ids': \"1\" is not a list"),
        ({"logit_bias": {"a": 1}}, "invalid sampling parameter 'logit_bias': \"a\" is not a whole number"),
        ({"stop": 5}, "invalid sampling parameter 'stop': 5 is not a text"),
    ],
)
def test_a_wrong_parameter_is_named(backend: Any, given_value: dict[str, Any], words: str) -> None:
    with pytest.raises(backend("errors").BadRequest) as raised:
        backend("parameters").read_parameters(given_value, FIELDS, others=["lora_name"])
    assert str(raised.value) == words


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), json_values, max_size=3))
def test_any_json_is_read_or_refused_with_the_name(backend: Any, given_value: dict[str, Any]) -> None:
    try:
        read = backend("parameters").read_parameters(given_value, FIELDS)
    except backend("errors").BadRequest as error:
        assert any(f"'{name}'" in str(error) for name in given_value)
    else:
        assert read.keys() == given_value.keys()


@pytest.mark.parametrize("line", ["[core.py:12] ValueError: too little", "builtins.ValueError: too little"])
def test_the_cause_of_a_failed_start_is_found_in_what_was_printed(backend: Any, line: str) -> None:
    script = (
        "import os, sys; from vllm_backend.logs import Log; log = Log('m'); log.capture();"
        f"os.write(2, b'a\\n' + {line.encode()!r} + b'\\nRuntimeError: See root cause above.\\n');"
        "log.release(); print(log.cause())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=BACKEND, capture_output=True, text=True, check=True)
    assert done.stdout == "ValueError: too little\n"
    assert done.stderr.splitlines()[0] == "[m] a"


def test_only_a_process_that_is_not_taken_over_ends(backend: Any) -> None:
    asked, ended = threading.Event(), threading.Event()

    def fails() -> bool:
        asked.set()
        raise OSError("the server stops")

    backend("handover").end_unless_taken(fails, ended.set, within_s=0.1)
    assert ended.wait(PATIENCE_S) and asked.is_set()
    ended.clear()
    backend("handover").end_unless_taken(lambda: True, ended.set, within_s=0.1)
    for thread in threading.enumerate():
        if thread.name == "vllm-handover":
            thread.join(PATIENCE_S)
    assert not ended.is_set()


def picture(width: int, height: int) -> bytes:
    """A PNG that states its size and holds nothing of it, in base64."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    framed = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (picture(20_000, 20_000), "pixels"),  # refused by the decoder
        (picture(9000, 9000), "9000 × 9000 pixels"),
        (picture(10, 10), "image 1 cannot be read"),
        (base64.b64encode(b"no picture"), "image 1 cannot be read"),
        (b"no base64!", "image 1 cannot be read"),
    ],
)
def test_a_picture_that_cannot_be_read_is_the_clients_fault(backend: Any, value: bytes, words: str) -> None:
    file = io.BytesIO()
    Image.new("L", (3, 2)).save(file, "PNG")
    good = base64.b64encode(file.getvalue())
    (read,) = backend("tensors").decode((good,))
    assert (read.size, read.mode) == ((3, 2), "RGB")
    with pytest.raises(backend("errors").BadRequest, match=words):
        backend("tensors").decode((good, value))


def test_a_picture_is_read_as_people_see_it(backend: Any) -> None:
    """Upright, and on white where it is transparent; a GIF's transparent colour too."""
    turned, clear, gif = io.BytesIO(), io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    Image.new("RGB", (3, 2)).save(turned, "JPEG", exif=exif)
    Image.new("RGBA", (1, 1), (255, 0, 0, 0)).save(clear, "PNG")
    Image.new("P", (1, 1), 0).save(gif, "GIF", transparency=0)
    read = backend("tensors").decode(tuple(base64.b64encode(file.getvalue()) for file in (turned, clear, gif)))
    assert read[0].size == (2, 3)
    assert [image.getpixel((0, 0)) for image in read[1:]] == [(255, 255, 255), (255, 255, 255)]


def test_the_backend_s_own_words_are_taken_out_of_the_parameters(backend: Any) -> None:
    given_values = {"temperature": 0, "prompt_token_ids": [1, 2], "details": True, "truncate_prompt_tokens": 3}
    words = backend("words").take(given_values)
    assert given_values == {"temperature": 0}
    assert (words.prompt("text"), words.details) == ({"prompt_token_ids": [1, 2]}, True)
    assert words.tokenizing == {"truncate_prompt_tokens": 3}
    assert backend("words").take({}).prompt("text") == {"prompt": "text"}
    given_values = {"beam_width": 3, "length_penalty": 2, "facts": True, "max_tokens": 5}
    words = backend("words").take(given_values)
    assert given_values == {"max_tokens": 5}
    assert (words.beams.width, words.beams.length_penalty, words.facts) == (3, 2.0, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt_token_ids": [1, -1]},
        {"prompt_token_ids": [True]},
        {"prompt_token_ids": "12"},
        {"details": 1},
        {"facts": "true"},
        {"beam_width": 0},
        {"beam_width": True},
        {"length_penalty": "1"},
        {"length_penalty": math.inf},
        {"truncate_prompt_tokens": "5"},
        {"add_special_tokens": 0},
    ],
)
def test_the_backend_s_own_words_are_checked(backend: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(backend("errors").BadRequest, match=next(iter(wrong))):
        backend("words").take(wrong)


def test_what_a_killed_stub_leaves_is_ended(tmp_path: Path) -> None:
    """The stub leads a group; its guard ends the group, with a grandchild that nobody else would find, its shared memory and
    its sockets."""
    told = tmp_path / "told"
    grandchild = (
        "import json, os, pathlib, signal; from multiprocessing import shared_memory;"
        "memory = shared_memory.SharedMemory(create=True, size=4096);"
        "socket = pathlib.Path(os.environ['VLLM_RPC_BASE_PATH'], 'socket'); socket.touch();"
        f"pathlib.Path({str(told)!r} + '.new').write_text(json.dumps([os.getpid(), memory.name, str(socket)]));"
        f"os.replace({str(told)!r} + '.new', {str(told)!r}); signal.pause()"
    )
    stub = (
        "import subprocess, sys; from vllm_backend import processes; guard = processes.start_guard(processes.lead_group());"
        f"subprocess.run([sys.executable, '-c', {grandchild!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", stub], cwd=BACKEND) as process:
        wait_until(told.exists, "the grandchild runs")
        pid, memory, socket = json.loads(told.read_text())
        assert Path(socket).exists()
        left = psutil.Process(pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_until(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE, "the grandchild has ended")
    wait_until(lambda: not Path("/dev/shm", memory).exists(), "its shared memory is gone")
    wait_until(lambda: not Path(socket).parent.exists(), "its sockets are gone")


def test_an_engine_whose_sockets_a_user_directs_has_a_directory_for_its_other_files(tmp_path: Path) -> None:
    stub = (
        "import os; from vllm_backend import processes; processes.start_guard(processes.lead_group());"
        "print(os.environ['VLLM_RPC_BASE_PATH'], processes.own_directory(), os.path.isdir(processes.own_directory()))"
    )
    variables = {**os.environ, "TMPDIR": str(tmp_path), "VLLM_RPC_BASE_PATH": "/chosen"}
    told = subprocess.run(
        [sys.executable, "-c", stub], cwd=BACKEND, env=variables, stdout=subprocess.PIPE, text=True, check=True
    )
    chosen, place, was_made = told.stdout.split()
    assert (chosen, Path(place).parent, was_made) == ("/chosen", tmp_path, "True")
    wait_until(lambda: not Path(place).exists(), "it went with the engine")


def test_sockets_of_an_engine_that_was_killed_with_its_guard_go_when_the_next_one_starts(tmp_path: Path) -> None:
    """Those of one that lives stay."""
    start = "from vllm_backend import processes; guard = processes.start_guard(processes.lead_group());"
    stub = f"import os, signal; {start} print(os.environ['MODELIUM_VLLM_SOCKETS'], guard.pid, flush=True); signal.pause()"
    with contextlib.ExitStack() as stack:
        places, stubs = [], []
        for _ in range(3):
            variables = {**os.environ, "TMPDIR": str(tmp_path)}
            command = [sys.executable, "-c", stub]
            process = subprocess.Popen(command, cwd=BACKEND, env=variables, stdout=subprocess.PIPE, text=True)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            place, guard = process.stdout.readline().split()
            places.append(Path(place))
            stubs.append(process)
            if len(stubs) == 1:
                os.kill(int(guard), signal.SIGKILL)
                process.kill()
                process.wait()
                (Path(place) / "socket").touch()
        assert [place.exists() for place in places] == [False, True, True]


def wait_until(holds: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what}"
        os.sched_yield()
