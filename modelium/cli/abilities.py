"""What a serve with these settings could run, without one: settings enter, ``Capabilities`` leave. The runtime is looked at."""

from __future__ import annotations

from modelium import repository, runtime_env
from modelium.config import Settings
from modelium.ray import ELSEWHERE
from modelium.triton.backends import usable_backends
from modelium.values import Capabilities, DeviceKind, Fleet, RayFacts, Runtime, VllmFacts

# What the embedded server brings; what a running Triton really has is only known to a running Modelium.
_EMBEDDED = frozenset({"python", "onnxruntime", "vllm"})
_EXTERNAL = frozenset({"python", "onnxruntime"})


def likely_capabilities(settings: Settings, fleet: Fleet, *, for_cuda: bool = False) -> Capabilities:
    """About 80 ms with the embedded server: its Python is started once, its vLLM's registry is read. ``for_cuda``: of the
    runtime as it would be installed on a machine with an NVIDIA GPU."""
    if settings.triton.mode == "embedded":
        report = runtime_env.inspect(settings.triton.runtime_directory)
        vllm, ray = runtime_env.read_vllm(report, for_cuda=for_cuda), runtime_env.read_ray(report)
        brought = usable_backends(_EMBEDDED, vllm)
    else:
        vllm, brought = VllmFacts(), frozenset(settings.triton.backends) or _EXTERNAL
        ray = RayFacts(missing=ELSEWHERE if settings.ray.own else None)
    if not ray.missing:
        brought |= {Runtime.RAY.value}
    gpu = any(device.kind is DeviceKind.CUDA for device in fleet.devices)
    return settings.capabilities(brought & repository.writable_runtimes(), vllm, ray, gpu=gpu)
