"""A model of Triton's vLLM backend, for a server that comes without it: ``backend: "vllm"`` and ``1/model.json`` as stock.

What enters: an entry (``model.json`` with vLLM's engine arguments, ``multi_lora.json`` with adapters where ``enable_lora`` is
true) and requests. What leaves: responses (``vllm_backend/tensors.py`` says which), vLLM's metrics, and at the end nothing.

Parameters of config.pbtxt, the first two as in the stock backend:
- ``REPORT_CUSTOM_METRICS`` "true": vLLM's statistics on Triton's /metrics, unless ``disable_log_stats`` is true in model.json.
- ``ENABLE_VLLM_HEALTH_CHECK`` "true": an unhealthy engine makes Triton unload the model (otherwise this process ends).
- ``GPU_DEVICE_IDS`` "2,3": the GPUs of an instance of KIND_MODEL, in PCI order.
- ``modelium_unload_timeout_s`` "15": how long an unload may take, with what is under way and the engine's own shutdown.

Differences to the stock backend: a wrong parameter is named in the answer; a stream's ``n`` sequences keep their places; a dead
engine is reported and this process ends with it; a prompt that brings its own first special token doesn't get a second one.
"""

import gc
import locale

# The stub's interpreter starts in the C locale, where open() means ascii; this has to come before the other imports.
locale.setlocale(locale.LC_ALL, "C.UTF-8")
gc.disable()  # each look for cycles passes over all that was imported so far, and finds nothing: 4 of the imports' 18 s

import asyncio  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
import uuid  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import triton_python_backend_utils as pb_utils  # noqa: E402
from vllm_backend import entry, environment, processes, tensors, words  # noqa: E402
from vllm_backend.engine import Engine  # noqa: E402
from vllm_backend.errors import BadRequest, EngineDead  # noqa: E402
from vllm_backend.exchanges import Exchange, Exchanges  # noqa: E402
from vllm_backend.handover import end_unless_taken  # noqa: E402
from vllm_backend.logs import Log, says_elsewhere  # noqa: E402
from vllm_backend.metrics import Metrics  # noqa: E402
from vllm_backend.parameters import read_parameters  # noqa: E402
from vllm_backend.responses import embedding_tensors  # noqa: E402
from vllm_backend.tensors import Ask  # noqa: E402
from vllm_backend.unloading import OVERDUE_S, parameter, unload_timeout_s  # noqa: E402

gc.freeze()  # what was imported stays; and no look writes on pages that the engine's process, a fork, shares with this one
gc.enable()

_UNHEALTHY = "Model is unavailable due to unhealthy vLLM engine"  # the stock backend's words
_SHUTDOWN_S = 5.0
_EXIT_S, _EXIT_AFTER_ERROR_S = 0.5, 3.0


class TritonPythonModel:
    """One instance: one engine."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Add the tensors that config.pbtxt lacks; any number of responses; vLLM makes the batches."""
        config = auto_complete_model_config.as_dict()
        for kind, add, table in (
            ("input", auto_complete_model_config.add_input, tensors.INPUTS),
            ("output", auto_complete_model_config.add_output, tensors.OUTPUTS),
        ):
            given = {one["name"] for one in config[kind]}
            for tensor in table:
                if tensor["name"] not in given:
                    add(tensor)
        auto_complete_model_config.set_model_transaction_policy({"decoupled": True})
        auto_complete_model_config.set_max_batch_size(0)
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engine; whatever goes wrong leaves no process behind."""
        self._config = json.loads(args["model_config"])
        self._name = args["model_name"]
        if not pb_utils.using_decoupled_model_transaction_policy(self._config):
            raise ValueError("vLLM Triton backend must be configured to use decoupled model transaction policy")
        directory = Path(pb_utils.get_model_dir())
        arguments = entry.read_engine_args(directory)
        self._adapters = entry.read_adapters(directory, arguments)
        arguments["enable_lora"] = self._adapters is not None
        environment.prepare(
            self._name,
            kind=args["model_instance_kind"],
            device_id=int(args["model_instance_device_id"]),
            gpus=self._parameter("GPU_DEVICE_IDS"),
            engine_args=arguments,
        )
        self._unload_timeout_s = unload_timeout_s(self._config)
        self._checks_health = self._parameter("ENABLE_VLLM_HEALTH_CHECK").lower() == "true"
        self._dead = ""
        self._group = processes.lead_group()
        processes.start_guard(self._group)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # see _leave_within; only this thread may
        self._log = Log(self._name)
        self._log.capture()
        self._engine = Engine(self._group)
        self._metrics: Metrics | None = None
        reports = self._parameter("REPORT_CUSTOM_METRICS").lower() == "true" and not arguments.get("disable_log_stats")
        try:
            self._engine.start(arguments, self._record if reports else None)
            self._prepare(reports, args)
        except Exception as error:
            processes.end_group(self._group)
            self._log.release()
            _leave_within(_EXIT_AFTER_ERROR_S)
            if (isinstance(error, EngineDead) or says_elsewhere(str(error))) and (cause := self._log.cause()):
                raise RuntimeError(f"the vLLM engine did not start: {cause}") from error
            raise
        self._was_ready = not self._config.get("model_warmup")  # whose requests come before the model is ready
        self._unload_by = math.inf
        self._exchanges = Exchanges(pb_utils, self._notice_unload, self._engine.call)
        self._engine.watch(self._die)
        self._taken = False
        if sum(int(group.get("count", 1)) for group in self._config.get("instance_group", [])) <= 1:  # else others come first
            end_unless_taken(lambda: self._taken or pb_utils.is_model_ready(self._name), self._give_up)

    def execute(self, requests: list[Any]) -> None:
        """Take the requests over; each is answered through its own sender."""
        self._taken = True
        if self._checks_health and not self._is_healthy():
            pb_utils.unload_model(self._name)
        if self._metrics is not None:
            self._metrics.start()
        for request in requests:
            exchange = self._exchanges.open(request.get_response_sender())
            if self._dead:
                exchange.send(_error(self._dead, pb_utils.TritonError.UNAVAILABLE), last=True)
                continue
            try:
                self._engine.run(self._answer(exchange, tensors.read(request, pb_utils.get_input_tensor_by_name)))
            except BadRequest as error:
                exchange.send(_error(str(error), pb_utils.TritonError.INVALID_ARG), last=True)
            except Exception as error:
                self._fail(exchange, error)

    def finalize(self) -> None:
        """Wait for what is under way, then end the engine; within the time, whatever hangs."""
        deadline = min(self._unload_by, time.monotonic() + self._unload_timeout_s)
        _leave_within(deadline - time.monotonic() + OVERDUE_S)
        if not self._exchanges.wait_for_end(deadline - time.monotonic() - self._spare_s()):
            self._end_requests()
            self._exchanges.wait_for_end(1.0)
        self._engine.stop(within_s=max(0.1, min(_SHUTDOWN_S, deadline - time.monotonic())))
        self._exchanges.close()
        if self._metrics is not None:
            self._metrics.close()
        self._log.release()
        _leave_within(_EXIT_S)

    def _notice_unload(self) -> None:
        """Triton calls ``finalize`` only after the last answer: an unload that waits for a stuck request has to be noticed.

        From then on this process ends in time whatever hangs, be it between the last answer and ``finalize``.
        """
        if pb_utils.is_model_ready(self._name):
            if self._unload_by < math.inf:
                _stay()
            self._was_ready, self._unload_by = True, math.inf
        elif self._was_ready:
            if self._unload_by == math.inf:
                self._unload_by = time.monotonic() + self._unload_timeout_s
                _leave_within(self._unload_timeout_s + OVERDUE_S)
            if time.monotonic() > self._unload_by - self._spare_s():
                self._end_requests()

    def _end_requests(self) -> None:
        pb_utils.Logger.log_warn(f"[{self._name}] unloaded before every request was answered")
        self._exchanges.end_all(lambda: _error(f"{_UNHEALTHY}: it was unloaded", pb_utils.TritonError.UNAVAILABLE))

    def _spare_s(self) -> float:
        """What the engine's own end may take of the time."""
        return min(_SHUTDOWN_S, self._unload_timeout_s / 2)

    def _prepare(self, reports: bool, args: dict[str, str]) -> None:
        from vllm_backend import compat, generating

        self._compat, self._begin = compat, generating.begin
        self._fields = compat.sampling_fields()
        if reports:
            try:
                self._metrics = Metrics(
                    pb_utils,
                    {"model": self._name, "version": args["model_version"], "engine": str(os.getpid())},
                    context=compat.max_model_len(self._engine.llm),
                    unfinished=lambda: compat.unfinished(self._engine.llm),
                )
            except pb_utils.TritonModelException as error:  # of a server without metrics, or what it is
                if "metrics not supported" not in str(error):
                    raise

    def _record(self, scheduler: Any, iteration: Any) -> None:
        if self._metrics is not None:  # else the rehearsal
            self._metrics.record(scheduler, iteration)

    async def _answer(self, exchange: Exchange, ask: Ask) -> None:
        task = asyncio.current_task()
        assert task is not None
        exchange.cancel = lambda: self._engine.call(task.cancel)
        try:
            if ask.embedding is not None:
                await self._embed(exchange, ask)
            else:
                await self._generate(exchange, ask)
            if not exchange.closed:
                raise RuntimeError("the engine ended it without a last output")
        except asyncio.CancelledError:
            exchange.send(_error("Request was cancelled", pb_utils.TritonError.CANCELLED), last=True)
        except BadRequest as error:
            exchange.send(_error(str(error), pb_utils.TritonError.INVALID_ARG), last=True)
        except EngineDead as error:
            exchange.send(_error(f"{_UNHEALTHY}: {self._log.cause() or error}", pb_utils.TritonError.UNAVAILABLE), last=True)
        except Exception as error:
            self._fail(exchange, error)

    def _fail(self, exchange: Exchange, error: Exception) -> None:
        """An exchange that nobody ends would stay for ever, and its client with it."""
        pb_utils.Logger.log_error(f"[{self._name}] a request failed: {''.join(traceback.format_exception(error))}")
        exchange.send(_error(f"Error generating stream: {error}", pb_utils.TritonError.INTERNAL), last=True)

    async def _generate(self, exchange: Exchange, ask: Ask) -> None:
        self._require("generate")
        given = dict(ask.parameters)
        lora = self._lora(given.pop("lora_name", None))
        own = words.take(given)
        values = read_parameters(given, self._fields, others=["lora_name", *words.NAMES])
        params = self._compat.sampling_params(values, stream=ask.stream)
        prompt = own.prompt(ask.prompt)
        if ask.images:
            prompt["multi_modal_data"] = {"image": await asyncio.to_thread(tensors.decode, ask.images)}
        responses, outputs = self._begin(self._engine.llm, ask, own, prompt, params, lora)
        try:
            async for output in outputs:
                exchange.send(_response(responses.tensors(output)), last=output.finished)
                await exchange.room()
                if exchange.closed:
                    break
        finally:
            await outputs.aclose()

    async def _embed(self, exchange: Exchange, ask: Ask) -> None:
        self._require("embed")
        assert ask.embedding is not None
        given = ask.embedding.get("input")
        if isinstance(given, str):
            prompt: dict[str, Any] = {"prompt": given}
        elif isinstance(given, list) and given and all(isinstance(one, int) for one in given):
            prompt = {"prompt_token_ids": given}
        else:
            raise BadRequest("embedding_request's 'input' has to be a text or a list of token ids")
        sizes = (ask.embedding.get("pooling_params") or {}).get("dimensions") or [None]
        params = self._compat.pooling_params(sizes[0] if isinstance(sizes, list) else sizes)
        output = await self._compat.encode(self._engine.llm, prompt, params, uuid.uuid4().hex)
        exchange.send(_response(embedding_tensors(output, ask.wanted)), last=True)

    def _require(self, task: str) -> None:
        if task not in self._engine.tasks:
            raise BadRequest(f"Model {self._name} does not support '{task}' request")

    def _lora(self, name: object) -> Any:
        if name is None:
            return None
        if self._adapters is None:
            raise BadRequest("LoRA feature is not enabled.")
        if name not in self._adapters:
            raise BadRequest(f"LoRA {name} is not supported, we currently support {list(self._adapters)}")
        return self._compat.lora_request(str(name), list(self._adapters).index(str(name)) + 1, self._adapters[str(name)])

    def _is_healthy(self) -> bool:
        if not self._dead:
            try:
                self._engine.run(self._engine.llm.check_health()).result()
            except Exception as error:
                self._dead = f"{_UNHEALTHY}: {error}"
        return not self._dead

    def _die(self, what: str) -> None:
        """The engine is dead: say so to everybody who waits, and let Triton (or who watches this process) know."""
        self._dead = f"{_UNHEALTHY}: {what}"
        pb_utils.Logger.log_error(f"[{self._name}] {self._dead}")
        self._exchanges.end_all(lambda: _error(self._dead, pb_utils.TritonError.UNAVAILABLE))
        self._exchanges.wait_for_end(2.0)
        if self._checks_health:
            pb_utils.unload_model(self._name)
            return
        self._log.release()
        self._end()

    def _end(self) -> None:
        """This process and the engine; its metrics are withdrawn, or Triton would show the last values for ever."""
        _leave_within(_EXIT_AFTER_ERROR_S)
        processes.end_group(self._group)
        if self._metrics is not None:
            self._metrics.close()
            with contextlib.suppress(Exception):  # Triton hears of both in turn: its answer says that they are gone
                pb_utils.is_model_ready(self._name)
        os._exit(1)

    def _give_up(self) -> None:
        """Triton waits for the end of this process: the load fails and can be tried again."""
        self._log.say("Triton gave this process up while it started")  # first: who watches the engine ends this process too
        self._end()

    def _parameter(self, name: str) -> str:
        return parameter(self._config, name)


def _leave_within(seconds: float) -> None:
    """End this process after so long, by a signal: whoever holds the interpreter then, a thread that hangs or its own end (3 s
    with all that vLLM imported; by then Triton has its answer). The guard ends the engine with it."""
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))


def _stay() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def _response(arrays: dict[str, Any]) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, array) for name, array in arrays.items()])


def _error(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
