"""What every engine of this environment needs, imported before the process that needs it is forked.

It is imported once, in a nursery, for all engines; or in the stub, for that one's own processes. What a process has imported
before it forks costs the fork no time, and both together its memory once. ``environment.prepare_imports`` comes first.

What leaves this module: a process with one thread, no sockets and no CUDA context.
"""

from __future__ import annotations

import contextlib
import gc
import importlib

# In the process that serves an engine. vllm.config first: the others import each other.
MODULES = (
    "vllm.config",
    f"{__package__}.compat",
    "multiprocessing.popen_fork",
    "setproctitle",
    "vllm._aiter_ops",
    "vllm.model_executor.models.config",
    "vllm.plugins.lora_resolvers.filesystem_resolver",
    "vllm.plugins.lora_resolvers.hf_hub_resolver",
    "vllm.renderers.hf",
    "vllm.transformers_utils.chat_templates.registry",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.engine.core",
)
# In the process that computes, on the processor. With a GPU, some of this may look at it, and a process that has done so can't
# be forked: there, each engine imports it.
MODULES_ON_CPU = (
    "vllm.distributed.elastic_ep.elastic_execute",
    "vllm.lora.ops.torch_ops",
    "vllm.lora.punica_wrapper.punica_cpu",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.model_loader",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.v1.attention.backends.zentorch_sdpa",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.pool.flash_maxsim",
    "vllm.v1.worker.cpu_worker",
)


def up() -> None:
    """Import them. Those that this version of vLLM lacks are left out."""
    enabled = gc.isenabled()
    gc.disable()  # each look for cycles passes over all that was imported so far, and finds nothing
    try:
        _import(MODULES)
        from . import compat

        if compat.is_on_cpu():
            _import(MODULES_ON_CPU)
            compat.override_kernels()
    finally:
        gc.freeze()  # what was imported stays; and no look writes on pages that forks share
        if enabled:
            gc.enable()


def _import(modules: tuple[str, ...]) -> None:
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)
