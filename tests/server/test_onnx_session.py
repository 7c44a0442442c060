"""The options that the onnxruntime backend makes of a config.pbtxt, asked in the model runtime (it alone has onnxruntime)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]

_ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import onnx_session

config, gpu, available = json.load(sys.stdin)
log = []
try:
    options = onnx_session.session_options(config, log.append)
    answer = {
        "providers": onnx_session.choose_providers(config, gpu, available, log.append),
        "threads": [options.intra_op_num_threads, options.inter_op_num_threads],
        "mode": options.execution_mode.name,
        "level": options.graph_optimization_level.name,
        "arena": options.enable_cpu_mem_arena,
        "pattern": options.enable_mem_pattern,
    }
except ValueError as error:
    answer = {"error": str(error)}
json.dump(answer | {"log": log}, sys.stdout)
"""

GPU_BUILD = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
CPU = ["CPUExecutionProvider", {}]


def ask(config: dict[str, Any], *, gpu: int | None = None, available: list[str] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        [ROOT / ".runtime" / "bin" / "python", "-B", "-c", _ASK, ROOT / "triton" / "backends" / "onnxruntime"],
        input=json.dumps([{"name": "m"} | config, gpu, available or ["CPUExecutionProvider"]]),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def strings(**values: str) -> dict[str, Any]:
    return {"parameters": {key: {"string_value": value} for key, value in values.items()}}


def test_without_parameters_everything_is_onnxruntimes_default() -> None:
    assert ask({}) == {
        "providers": [CPU],
        "threads": [0, 0],
        "mode": "ORT_SEQUENTIAL",
        "level": "ORT_ENABLE_ALL",
        "arena": True,
        "pattern": True,
        "log": [],
    }


def test_the_stock_backends_parameters_are_understood_and_unknown_ones_logged() -> None:
    config = strings(
        intra_op_thread_count="2",
        inter_op_thread_count="3",
        execution_mode="1",
        enable_mem_arena="0",
        enable_mem_pattern="false",
        model_path="/m",
        colour="blue",
    ) | {"optimization": {"graph": {"level": 1}}}
    assert ask(config) == {
        "providers": [CPU],
        "threads": [2, 3],
        "mode": "ORT_PARALLEL",
        "level": "ORT_ENABLE_EXTENDED",
        "arena": False,
        "pattern": False,
        "log": ["m: unknown parameter 'colour' is ignored"],
    }


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"execution_mode": "2"}, "parameter 'execution_mode' is 2; expected one of 0, 1"),
        ({"intra_op_thread_count": "many"}, "parameter 'intra_op_thread_count' is 'many'; expected a whole number"),
        ({"enable_mem_arena": "maybe"}, "parameter 'enable_mem_arena' is 'maybe'; expected 1 or 0"),
    ],
)
def test_a_wrong_value_stops_the_load_with_its_key(parameters: dict[str, str], error: str) -> None:
    assert ask(strings(**parameters))["error"] == error


def test_a_gpu_instance_runs_on_its_own_gpu_with_the_cpu_behind_it() -> None:
    config = strings(gpu_mem_limit="1000", cudnn_conv_algo_search="1") | {
        "optimization": {
            "execution_accelerators": {
                "gpu_execution_accelerator": [
                    {"name": "tensorrt", "parameters": {"precision_mode": "FP16", "max_workspace_size_bytes": "9"}},
                    {"name": "cuda", "parameters": {"enable_cuda_graph": "1"}},
                    {"name": "quantum"},
                ]
            }
        }
    }
    answer = ask(config, gpu=3, available=GPU_BUILD)
    cuda = {"gpu_mem_limit": "1000", "cudnn_conv_algo_search": "HEURISTIC", "enable_cuda_graph": "1", "device_id": "3"}
    tensorrt = {"trt_fp16_enable": "1", "trt_max_workspace_size": "9", "device_id": "3"}
    assert answer["providers"] == [["TensorrtExecutionProvider", tensorrt], ["CUDAExecutionProvider", cuda], CPU]
    assert answer["log"] == ["m: unknown execution accelerator 'quantum' is ignored"]


def test_a_gpu_instance_without_a_gpu_build_says_so_and_runs_on_the_cpu() -> None:
    answer = ask({}, gpu=0)
    assert answer["providers"] == [CPU]
    assert "no CUDAExecutionProvider" in answer["log"][0]
