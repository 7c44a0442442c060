"""Everything that this backend takes from vLLM, and the only module that imports it: versions 0.27 to 0.33.

What enters: ``model.json`` and requests as plain values. What leaves: vLLM's objects, used elsewhere only through the functions
here and through what has not changed between these versions (``RequestOutput``, ``IterationStats``).

What differs: 0.27 tokenizes raw prompts on its event loop and all warn of them, so prompts are rendered first, which every
version takes. What later versions add to the stat logger's ``record`` is taken and dropped. ``build_1_2_5_buckets`` moved, so
``metrics.py`` has its own. Errors of the client are ``VLLMClientError`` or plain ``ValueError``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import types
import typing
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

import torch
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.model_executor.models import registry
from vllm.platforms import current_platform
from vllm.pooling_params import PoolingParams
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.utils import network_utils
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.metrics.loggers import StatLoggerBase

from . import processes
from .errors import BadRequest, EngineDead, TooLong
from .parameters import suggest

# Fields of SamplingParams that are not the client's: how answers are delivered, and what vLLM computes itself.
_RESERVED = frozenset({"output_kind", "skip_clone", "output_text_buffer_length"})

# Imported by vLLM where it computes.
_IN_WORKER = f"{__package__}.worker.OnProcessor"

Record = Callable[[Any, Any], None]


def engine_args(given: Mapping[str, Any]) -> AsyncEngineArgs:
    """``model.json`` as vLLM's arguments; a key that this version lacks is named."""
    known = [field.name for field in dataclasses.fields(AsyncEngineArgs) if field.init]
    for name in given:
        if name not in known:
            near = suggest(name, known).split("; known are")[0]
            raise TypeError(f"model.json has '{name}', which is no engine argument of this vLLM{near}")
    return AsyncEngineArgs(**given)


def start_engine(arguments: AsyncEngineArgs, record: Record | None, *, fork: bool = True) -> AsyncLLM:
    """Start the engine and its processes; call it on the event loop that will serve. ``record`` gets the statistics.

    ``fork`` False: this process is none to make copies of (a worker of Ray's has threads and connections of its own).
    """

    class Forward(StatLoggerBase):
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            pass

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_rest: Any, **_more: Any) -> None:
            assert record is not None
            record(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

    _meet_in_own_directory()
    if current_platform.is_cpu():
        arguments.worker_extension_cls = arguments.worker_extension_cls or _IN_WORKER
        _look_at_classes_here()
        _take_threads()
    with _spared_processes() if _is_unbound_cpu() else contextlib.nullcontext(lambda: None) as fork_them:
        config = arguments.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
        if fork:
            fork_them()
        return AsyncLLM.from_vllm_config(
            vllm_config=config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[Forward] if record is not None else None,
            enable_log_requests=arguments.enable_log_requests,
            aggregate_engine_logging=arguments.aggregate_engine_logging,
            # vLLM's own loggers would count everything once more, for nobody. Given a logger of ours it counts for that one.
            disable_log_stats=True,
        )


def is_on_cpu() -> bool:
    """Does vLLM compute on the processor here?"""
    return bool(current_platform.is_cpu())


def override_kernels() -> None:
    """Put vLLM's functions in the place of its Triton kernels, where there is no such compiler: now, not in each worker.

    vLLM looks at every name of every module for it: 0.3 s, and each object that is looked at is written to, so a fork that does
    it shares 130 MB less with its parent.
    """
    platform = type(current_platform)
    if "register_triton_kernel_overrides" in vars(platform):
        current_platform.register_triton_kernel_overrides()
        platform.register_triton_kernel_overrides = classmethod(lambda cls: None)


def _meet_in_own_directory() -> None:
    """The ranks of an engine, also a single one, find each other by a file, which vLLM makes in /tmp and leaves there. Nothing
    else in that module asks where temporary files go.
    """
    if (place := processes.own_directory()) and hasattr(network_utils, "tempfile"):
        network_utils.tempfile = types.SimpleNamespace(gettempdir=lambda: place)


def _look_at_classes_here() -> None:
    """Whether a model generates text, sees pictures and so on says its class. vLLM imports it in a process of its own, lest the
    import touches a GPU, and keeps in a file what it has found: 10 s for each architecture when it is new. Without a GPU it is
    imported here. The engine is a fork of this process, and needs the class too.
    """
    lazy = getattr(registry, "_LazyRegisteredModel", None)
    if lazy is not None and hasattr(registry, "_ModelInfo"):
        lazy.inspect_model_cls = lambda model: registry._ModelInfo.from_model_cls(model.load_model_cls())


def _take_threads() -> None:
    """OpenMP has read the variable when it was loaded, which may have been before it was set for this engine."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    if threads > 0 and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)  # of this thread, and so of the engine that it forks


def _is_unbound_cpu() -> bool:
    """Does the engine compute on cores that the kernel chooses?"""
    return current_platform.is_cpu() and os.environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind"


@contextlib.contextmanager
def _spared_processes() -> Iterator[Callable[[], None]]:
    """While an engine is configured and started: how vLLM divides it into processes where no threads are bound to cores.

    1. An engine of one rank computes in the process of its core. With a worker apart, each of the two spins on a core while it
       waits for the other. On two cores that starves the stub, the gateway and every other model: tokens came in bursts, a
       fifth of a second late. vLLM takes the worker back in only where this variable is 0; what else it means is for
       ``LLMEngine``, which is not used here. The core inherits it: it makes configurations of its own (for a drafting model),
       and they have to say the same.
    2. They are forked, as vLLM does it by itself on GPUs. That spares each the imports: a load takes a third of the time, and
       they share 0.5 GB. What is yielded says so; to be called after the configuration, which wants them spawned on the CPU
       (OpenMP reads on which cores to bind its threads when it is loaded).
    """
    names = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_WORKER_MULTIPROC_METHOD")
    before = {name: os.environ.get(name) for name in names}
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # 1
    try:
        yield lambda: os.environ.update(VLLM_WORKER_MULTIPROC_METHOD="fork")  # 2
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def max_model_len(engine: AsyncLLM) -> int:
    return int(engine.model_config.max_model_len)


def sampling_fields() -> dict[str, Any]:
    """What clients may set, with its types."""
    hints = typing.get_type_hints(SamplingParams)
    return {
        name: hints[name] for name in SamplingParams.__struct_fields__ if not name.startswith("_") and name not in _RESERVED
    }


def sampling_params(values: Mapping[str, Any], *, stream: bool) -> SamplingParams:
    """Raises ``BadRequest`` with the parameter's name."""
    kind = RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY
    try:
        return SamplingParams(**values, output_kind=kind)
    except Exception as error:
        raise BadRequest(_blame(values, error)) from None


def likeliest(count: int, temperature: float) -> SamplingParams:
    """One token, with the ``count`` likeliest ones in its place."""
    return SamplingParams(logprobs=count, max_tokens=1, temperature=temperature, detokenize=False)


def max_logprobs(engine: AsyncLLM) -> int:
    most = int(engine.model_config.max_logprobs)
    return most if most >= 0 else int(engine.model_config.get_vocab_size())


def _blame(values: Mapping[str, Any], error: Exception) -> str:
    """Which parameter it is that vLLM refuses: the one that it names, or refuses when it stands alone."""
    sentence = _sentence(error)
    stated = [name for name in values if re.search(rf"\b{re.escape(name)}\b", sentence)]
    refused = [name for name, value in values.items() if not _stands_alone(name, value)]
    named = next((name for name in (getattr(error, "parameter", None), *refused, *stated) if name in values), None)
    return f"invalid sampling parameter '{named}': {sentence}" if named else f"invalid sampling parameters: {sentence}"


def _sentence(error: BaseException) -> str:
    """Without the "(parameter=…, value=…)" that vLLM's own errors add."""
    return error.args[0] if error.args and isinstance(error.args[0], str) else str(error)


def _stands_alone(name: str, value: Any) -> bool:
    try:
        SamplingParams(**{name: value})
    except Exception:
        return False
    return True


def pooling_params(dimensions: int | None) -> PoolingParams:
    return PoolingParams(task="embed", dimensions=dimensions)


def lora_request(name: str, number: int, path: str) -> LoRARequest:
    return LoRARequest(lora_name=name, lora_int_id=number, lora_path=path)


async def generate(
    engine: AsyncLLM,
    prompt: Any,
    params: SamplingParams,
    request_id: str,
    lora: LoRARequest | None,
    tokenizing: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Any, None]:
    """The engine's outputs. Ends the request in the engine when it is closed early. ``tokenizing``: of ``TokenizeParams``."""
    async with spoken(engine) as said:
        rendered = await render(engine, prompt, tokenizing or {})
        said.prompt_tokens = len(rendered.get("prompt_token_ids") or ())
        outputs = engine.generate(rendered, params, request_id, lora_request=lora)
        try:
            async for output in outputs:
                yield output
        finally:
            await outputs.aclose()


async def rehearse(engine: AsyncLLM) -> None:
    """Compute one token, as the first request would: it costs seconds on the CPU, where vLLM warms nothing up.

    A kernel that does not fit the model ends the engine here, and with it the load, instead of at every request.
    """
    with contextlib.suppress(BadRequest):  # a model that takes no bare tokens
        async for _ in generate(engine, {"prompt_token_ids": [1]}, SamplingParams(max_tokens=1), "rehearsal", None):
            pass


async def encode(engine: AsyncLLM, prompt: Any, params: PoolingParams, request_id: str) -> Any:
    """The last output of a pooling request: its ``outputs.data`` is a tensor."""
    async with spoken(engine):
        last = None
        async for output in engine.encode(await render(engine, prompt), params, request_id):
            last = output
        return last


def unfinished(engine: AsyncLLM) -> int:
    """Sequences that the engine still has to work for."""
    return int(engine.output_processor.get_num_unfinished_requests())


def silence() -> None:
    """No more of vLLM's log in this process."""
    logging.getLogger("vllm").setLevel(logging.CRITICAL + 1)


def has_transfers(engine: AsyncLLM) -> bool:
    """Does the engine share its caches with others?"""
    transfers = ("kv_transfer_config", "ec_transfer_config")
    return any(getattr(engine.vllm_config, name, None) is not None for name in transfers)


def shut_down(engine: AsyncLLM, timeout_s: float) -> None:
    """vLLM's own way: SIGTERM, then SIGKILL after the time, sockets closed."""
    engine.shutdown(timeout=timeout_s)


def tokenizer(engine: AsyncLLM) -> Any:
    """The model's own, as transformers has them."""
    return engine.renderer.get_tokenizer()


async def render(engine: AsyncLLM, prompt: Any, tokenizing: Mapping[str, Any] = types.MappingProxyType({})) -> Any:
    """A prompt as the engine takes it. A text that brings its own first special token doesn't get a second one."""
    usual = engine.renderer.default_cmpl_tok_params
    # A token of the context is left for the answer, as in vLLM's server.
    wanted = dataclasses.replace(usual, **tokenizing, max_output_tokens=1) if tokenizing else usual
    (rendered,) = await engine.renderer.render_cmpl_async([parse_model_prompt(engine.model_config, prompt)], wanted)
    ids = rendered.get("prompt_token_ids")
    if rendered.get("type") == "token" and isinstance(prompt, dict) and "prompt" in prompt and len(ids) > 1:
        own = engine.renderer.tokenizer
        first = getattr(own, "bos_token_id", None)
        if first is not None and ids[0] == ids[1] == first and prompt["prompt"].startswith(str(own.bos_token)):
            rendered["prompt_token_ids"] = ids[1:]
    return rendered


class spoken:
    """vLLM's errors → ours: the client's fault, or a dead engine."""

    def __init__(self, engine: AsyncLLM) -> None:
        self._engine = engine
        self.prompt_tokens = 0  # once they are known

    async def __aenter__(self) -> spoken:
        if self._engine.errored:
            raise EngineDead("it gave up")
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        cause = error.__cause__ if isinstance(error, EngineGenerateError) and error.__cause__ is not None else error
        if isinstance(cause, EngineDeadError) or (cause is not None and self._engine.errored and isinstance(cause, Exception)):
            raise EngineDead(str(cause)) from error
        if isinstance(cause, (VLLMClientError, ValueError)):
            raise (TooLong if self._is_too_long(cause) else BadRequest)(_sentence(cause)) from error
        if cause is not error and cause is not None:
            raise cause from error

    def _is_too_long(self, cause: Exception) -> bool:
        """Its renderer names what is too long, its engine doesn't."""
        parameter = getattr(cause, "parameter", None)
        too_many = parameter is None and self.prompt_tokens >= max_model_len(self._engine)
        return too_many or parameter in ("input_tokens", "input_text")
