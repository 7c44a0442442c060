"""A model that Ray Serve runs, behind Triton's python backend.

What enters: ``parameters`` of config.pbtxt (``modelium_ray.settings``), then requests. What leaves: responses, each through
its own sender, in whatever order they come: this process only forwards, so any number of requests is under way at a time.

Loading deploys an application of Ray Serve, unloading deletes it; should this process die, its guard deletes it. A replica
that dies is Ray's to replace; a request that it took along is tried again, unless it went to an application of the user's,
which may have acted on it.
"""

import locale

# The stub's interpreter starts in the C locale, where open() means ascii; this has to come before the other imports.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

import asyncio  # noqa: E402
import json  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from contextlib import aclosing  # noqa: E402
from typing import Any  # noqa: E402

import triton_python_backend_utils as pb_utils  # noqa: E402
from modelium_ray import guard  # noqa: E402
from modelium_ray.deployment import Deployment  # noqa: E402
from modelium_ray.forwarding import NotForwarded, Reply, forwarder_of  # noqa: E402
from modelium_ray.settings import Settings  # noqa: E402
from vllm_backend.exchanges import Exchange, Exchanges  # noqa: E402

_UNLOAD_TIMEOUT_S = 20.0
_OVERDUE_S = 5.0
_EXIT_S = 0.5


class TritonPythonModel:
    """One instance: one application of Ray Serve."""

    def initialize(self, args: dict[str, str]) -> None:
        """Deploy; whatever goes wrong leaves nothing deployed."""
        sys.dont_write_bytecode = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # see _leave_within; only this thread may
        config = json.loads(args["model_config"])
        self._name = args["model_name"]
        given = {name: value["string_value"] for name, value in config["parameters"].items()}
        self._settings = Settings.of(given, config, directory=pb_utils.get_model_dir(), name=self._name)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="forwarding", daemon=True).start()
        self._deployment = Deployment(self._settings, say=pb_utils.Logger.log_info)
        self._guard = guard.start(self._deployment)
        try:
            self._deployment.start()
            self._forward = forwarder_of(self._settings, self._deployment)
            self._run(self._forward.open()).result()
        except BaseException:
            self._end_deployment()
            _leave_within(_EXIT_S)
            raise
        self._exchanges = Exchanges(pb_utils, lambda: None, self._loop.call_soon_threadsafe)

    def execute(self, requests: list[Any]) -> None:
        """Take the requests over."""
        for request in requests:
            exchange = self._exchanges.open(request.get_response_sender())
            try:
                ask = self._forward.read(_Incoming(request))
            except Exception as error:
                kind = pb_utils.TritonError.INVALID_ARG if isinstance(error, NotForwarded) else pb_utils.TritonError.INTERNAL
                exchange.send(_error(str(error), kind), last=True)
            else:
                self._run(self._answer(exchange, ask))

    def finalize(self) -> None:
        """Wait for what is under way, then delete the application; within the time, whatever hangs."""
        deadline = time.monotonic() + _UNLOAD_TIMEOUT_S
        _leave_within(_UNLOAD_TIMEOUT_S + _OVERDUE_S)
        if not self._exchanges.wait_for_end(_UNLOAD_TIMEOUT_S / 2):
            self._exchanges.end_all(lambda: _error("it was unloaded", pb_utils.TritonError.UNAVAILABLE))
            self._exchanges.wait_for_end(1.0)
        self._run(self._forward.close())
        deleting = threading.Thread(target=self._end_deployment, name="delete", daemon=True)
        deleting.start()
        deleting.join(max(0.1, deadline - time.monotonic()))
        self._exchanges.close()
        _leave_within(_EXIT_S)

    async def _answer(self, exchange: Exchange, ask: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        exchange.cancel = lambda: self._loop.call_soon_threadsafe(task.cancel)
        try:
            async with aclosing(self._forward.answer(ask)) as replies:
                async for reply in replies:
                    exchange.send(_response(reply), last=reply.last)
                    await exchange.room()
                    if exchange.closed:
                        break
            if not exchange.closed:
                exchange.send(_error("the answer broke off", pb_utils.TritonError.INTERNAL), last=True)
        except asyncio.CancelledError:
            exchange.send(_error("Request was cancelled", pb_utils.TritonError.CANCELLED), last=True)
        except NotForwarded as error:
            exchange.send(_error(str(error), pb_utils.TritonError.INVALID_ARG), last=True)
        except Exception as error:
            pb_utils.Logger.log_error(f"[{self._name}] a request failed: {type(error).__name__}: {error}")
            exchange.send(_error(str(error), pb_utils.TritonError.INTERNAL), last=True)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _end_deployment(self) -> None:
        if self._deployment.end():
            guard.dismiss(self._guard)


class _Incoming:
    """A request as the forwarders read it."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self.parameters = request.parameters

    def array(self, name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(self._request, name)
        return None if tensor is None else tensor.as_numpy()


def _response(reply: Reply) -> Any:
    """None closes an answer that has said all."""
    if not reply.arrays:
        return None
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, array) for name, array in reply.arrays.items()])


def _error(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _leave_within(seconds: float) -> None:
    """End this process after so long, by a signal, whatever hangs; the guard then deletes what is deployed."""
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
