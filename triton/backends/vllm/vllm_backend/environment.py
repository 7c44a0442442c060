"""What must be so before vLLM is imported (``prepare_imports``) and before an engine starts (``prepare``): what enters are
Triton's words about the instance, what leaves is ``os.environ``.

Import nothing of torch or vLLM before the first has run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ALWAYS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",  # the engine's sockets; every process of it is on this machine
    "VLLM_LOOPBACK_IP": "127.0.0.1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_COLOR": "0",
    "NO_COLOR": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # never block-buffered, and Triton's log is stderr
}
_UNLESS_SET = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts, and with it GPU_DEVICE_IDS
    # vLLM would bind the threads of every engine to the same cores, and leave one core of each engine idle: on two cores, all
    # engines on one. The kernel spreads them better.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Threads that spin while they wait take the cores from the other models.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def prepare_imports() -> None:
    """The same for every engine of this environment. A process that has it can import vLLM, and fork engines."""
    os.environ.update(_ALWAYS)
    if _is_for_cpu():
        os.environ.setdefault("OMP_NUM_THREADS", str(_cores()))  # unset, vLLM takes one
    for name, value in _UNLESS_SET.items():
        os.environ.setdefault(name, value)


def prepare(model: str, *, kind: str, device_id: int, gpus: str, engine_args: Mapping[str, object]) -> None:
    """Environment of this process and of every engine process under it.

    1. ``gpus`` (parameter ``GPU_DEVICE_IDS``: ordinals in PCI order) pins an instance of KIND_MODEL.
    2. KIND_GPU takes the one GPU that Triton assigned; an engine that needs several cannot have that kind.
    """
    world = int(str(engine_args.get("tensor_parallel_size", 1))) * int(str(engine_args.get("pipeline_parallel_size", 1)))
    if world > 1 and _is_for_cpu():
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // world)))
    prepare_imports()
    os.environ["VLLM_LOGGING_PREFIX"] = f"[{model}] "
    if kind == "GPU":
        if gpus:
            raise ValueError("the parameter GPU_DEVICE_IDS is for instances of KIND_MODEL; KIND_GPU has its own gpus")
        if world > 1:
            raise ValueError(
                "KIND_GPU is currently for single-GPU models, please specify KIND_MODEL in the model's config.pbtxt "
                "for multi-GPU models"
            )
        if device_id >= 0:  # 2
            os.environ["CUDA_VISIBLE_DEVICES"] = _visible(device_id)
    elif gpus:  # 1
        ordinals = [part.strip() for part in gpus.split(",")]
        if not all(part.isdigit() for part in ordinals) or len(set(ordinals)) != len(ordinals):
            raise ValueError(f'the parameter GPU_DEVICE_IDS is {gpus!r}; expected different ordinals, like "2,3"')
        if world > len(ordinals):
            raise ValueError(f"the engine takes {world} GPUs, the parameter GPU_DEVICE_IDS names {len(ordinals)}: {gpus}")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(ordinals)


def _visible(device_id: int) -> str:
    """Triton counts the GPUs that it sees: under CUDA_VISIBLE_DEVICES=2,3 its number 0 is 2."""
    seen = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return seen[device_id] if device_id < len(seen) else str(device_id)


def _is_for_cpu() -> bool:
    """Is the vLLM of this environment the one for the CPU? Asked without importing it."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def _cores() -> int:
    """Cores that this process may use; the second thread of a core adds nothing to matrix products."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text(encoding="utf-8") if siblings.is_file() else str(cpu))
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, period = quota.read_text(encoding="utf-8").split() if quota.is_file() else ("max", "1")
    return len(cores) if limit == "max" else max(1, min(len(cores), round(int(limit) / int(period))))
