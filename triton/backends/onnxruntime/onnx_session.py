"""An onnxruntime session out of a ``config.pbtxt``.

What enters: Triton's model configuration (as the dictionary that Triton passes) and a directory. What leaves: a session with
the options that the stock C++ backend would set for the same configuration. Keys that this backend doesn't know are logged,
keys with a wrong value stop the load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

Config = Mapping[str, Any]
Log = Callable[[str], None]

# config.pbtxt's optimization.graph.level: the numbers are the stock backend's own, 0 is its default.
_GRAPH_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_RUN_KEYS = ("memory.enable_memory_arena_shrinkage",)
# Options of the CUDA provider that older configurations have among the parameters, with what their numbers mean.
_OLD_CUDA_KEYS: dict[str, tuple[str, ...]] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "gpu_mem_limit": (),
    "do_copy_in_default_stream": (),
}
_TENSORRT_KEYS = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
_TENSORRT_PRECISIONS = {"FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}

Provider = tuple[str, dict[str, str]]


def find_model(config: Config, version_directory: Path) -> Path:
    """The ONNX file: ``default_model_filename`` or ``model.onnx`` of the version, or ``model.onnx`` in a directory so named.

    An entry that was moved has a link that leads nowhere; then the parameter ``model_path`` (Modelium writes it) says where.
    Links are not resolved here: external data lie beside the name, which in a Hugging Face cache is not beside the file.
    """
    path = version_directory / (config.get("default_model_filename") or "model.onnx")
    if not path.exists() and parameters(config).get("model_path"):
        path = Path(parameters(config)["model_path"])
    if path.is_dir():
        path = path / "model.onnx"
    if not path.is_file():
        where = f" (a link to '{path.readlink()}')" if path.is_symlink() else ""
        raise FileNotFoundError(f"unable to find '{path}'{where} for model instance '{config['name']}'")
    return path


def parameters(config: Config) -> dict[str, str]:
    """The ``parameters`` of a configuration as plain strings."""
    return {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}


def open_session(config: Config, path: Path, *, gpu: int | None, log: Log) -> ort.InferenceSession:
    """The session, on GPU number ``gpu`` where that is given and this onnxruntime has a provider for it."""
    options = session_options(config, log)
    providers = choose_providers(config, gpu, ort.get_available_providers(), log)
    session = ort.InferenceSession(path, sess_options=options, providers=providers)
    missing = [name for name, _ in providers if name not in session.get_providers()]
    if missing:
        log(f"{config['name']}: {', '.join(missing)} could not start and will not be used; onnxruntime's log says why")
    return session


def session_options(config: Config, log: Log) -> ort.SessionOptions:
    """Threads, execution mode, memory and graph optimization. Unset keys keep onnxruntime's defaults, as stock."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors: warnings of every load would drown the server's log
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    if level not in _GRAPH_LEVELS:
        raise ValueError(f"optimization.graph.level is {level}; expected -1, 0, 1 or 2")
    options.graph_optimization_level = _GRAPH_LEVELS[level]
    for key, value in parameters(config).items():
        match key:
            case "intra_op_thread_count":
                options.intra_op_num_threads = max(0, _number(key, value))
            case "inter_op_thread_count":
                options.inter_op_num_threads = max(0, _number(key, value))
            case "execution_mode":
                parallel = _number(key, value, allowed=(0, 1)) == 1
                options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if parallel else ort.ExecutionMode.ORT_SEQUENTIAL
            case "enable_mem_arena":
                options.enable_cpu_mem_arena = _switch(key, value)
            case "enable_mem_pattern":
                options.enable_mem_pattern = _switch(key, value)
            case _ if key.startswith("session."):
                options.add_session_config_entry(key, value)
            case _ if key != "model_path" and key not in _RUN_KEYS and key not in _OLD_CUDA_KEYS:
                log(f"{config['name']}: unknown parameter '{key}' is ignored")
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library)
    return options


def run_options(config: Config) -> ort.RunOptions | None:
    """Options of each run, None when there are none."""
    wanted = {key: value for key, value in parameters(config).items() if key in _RUN_KEYS}
    if not wanted:
        return None
    options = ort.RunOptions()
    for key, value in wanted.items():
        options.add_run_config_entry(key, value)
    return options


def choose_providers(config: Config, gpu: int | None, available: list[str], log: Log) -> list[Provider]:
    """Who executes the graph, in order of preference; the CPU always comes last, for operators that the others lack."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    chosen: list[Provider] = []
    if gpu is not None:
        cuda = _old_cuda_options(config)
        for accelerator in accelerators.get("gpu_execution_accelerator", []):
            match accelerator.get("name"):
                case "cuda":
                    cuda |= accelerator.get("parameters", {})
                case "tensorrt":
                    settings = _tensorrt_options(accelerator.get("parameters", {}))
                    chosen.append(("TensorrtExecutionProvider", {**settings, "device_id": str(gpu)}))
                case name:
                    log(f"{config['name']}: unknown execution accelerator '{name}' is ignored")
        chosen.append(("CUDAExecutionProvider", {**cuda, "device_id": str(gpu)}))
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        match accelerator.get("name"):
            case "openvino":
                chosen.append(("OpenVINOExecutionProvider", {"device_type": "CPU"}))
            case name:
                log(f"{config['name']}: unknown execution accelerator '{name}' is ignored")
    for name, _ in chosen:
        if name not in available:
            log(f"{config['name']}: this onnxruntime has no {name} (it has {', '.join(available)}); going on without it")
    return [(name, settings) for name, settings in chosen if name in available] + [("CPUExecutionProvider", {})]


def _old_cuda_options(config: Config) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parameters(config).items():
        if words := _OLD_CUDA_KEYS.get(key):
            options[key] = words[_number(key, value, allowed=tuple(range(len(words))))]
        elif key in _OLD_CUDA_KEYS:
            options[key] = value
    return options


def _tensorrt_options(settings: Mapping[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in settings.items():
        if key != "precision_mode":
            options[_TENSORRT_KEYS.get(key, key)] = value
        elif value in _TENSORRT_PRECISIONS:
            options[_TENSORRT_PRECISIONS[value]] = "1"
        elif value != "FP32":
            raise ValueError(f"unsupported precision mode '{value}' is requested")
    return options


def _number(key: str, value: str, *, allowed: tuple[int, ...] = ()) -> int:
    try:
        number = int(value)
    except ValueError:
        raise ValueError(f"parameter '{key}' is '{value}'; expected a whole number") from None
    if allowed and number not in allowed:
        raise ValueError(f"parameter '{key}' is {number}; expected one of {', '.join(map(str, allowed))}")
    return number


def _switch(key: str, value: str) -> bool:
    match value.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
        case _:
            raise ValueError(f"parameter '{key}' is '{value}'; expected 1 or 0")
