"""``triton_python_backend_utils`` in a child: the names that models use, with what they mean in Triton's stub.

What enters: messages of the stub. What leaves: requests as models know them, and answers as messages carry them. What the
server itself has to do (write its log, keep metrics, unload a model) the stub is asked for over a socket of its own, by any
thread.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from . import packets, tensors
from .entries import UTILS
from .packets import Buffer

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
# By its own name Triton's code would be chosen; these are its names in the C API, which both sides have.
CODES = ("UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS", "CANCELLED")


class TritonModelException(Exception):
    """An error of the server's, as the stub raises it."""


class TritonError:
    """An error as an answer: what happened, and of which kind it is."""

    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        self._message, self._code = str(message), code

    def message(self) -> str:
        return self._message

    def code(self) -> str:
        return self._code


for _code in CODES:
    setattr(TritonError, _code, _code)


class Tensor:
    """A name and an array."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array

    def shape(self) -> list[int]:
        return list(self._array.shape)


class InferenceResponse:
    """Tensors, or an error."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def write(self, buffers: list[Buffer]) -> dict[str, Any]:
        """As messages carry it; the arrays' bytes are added to ``buffers``."""
        if self._error is not None:
            return {"error": [self._error.message(), self._error.code()]}
        return {"tensors": tensors.pack(((one.name(), one.as_numpy()) for one in self._tensors), buffers)}


class Answer(NamedTuple):
    """One to a request that is answered through its sender. ``number``: the request's."""

    number: int
    response: InferenceResponse | None
    flags: int


class InferenceRequest:
    """One request of a batch."""

    def __init__(
        self,
        given: dict[str, Any],
        buffers: Iterator[memoryview],
        is_cancelled: Callable[[], bool],
        answer: Callable[[Sequence[Answer]], None],
    ) -> None:
        self._given = given
        self._inputs = [Tensor(name, array) for name, array in tensors.unpack(given["tensors"], buffers)]
        self.is_cancelled = is_cancelled
        self._answer = answer

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def requested_output_names(self) -> list[str]:
        return list(self._given["outputs"])

    def request_id(self) -> str:
        return str(self._given["id"])

    def parameters(self) -> str:
        return str(self._given["parameters"])

    def get_response_sender(self) -> ResponseSender:
        return ResponseSender(self._given["number"], self._answer, self.is_cancelled)


class ResponseSender:
    """Sends any number of answers to one request, from any thread."""

    def __init__(self, number: int, answer: Callable[[Sequence[Answer]], None], is_cancelled: Callable[[], bool]) -> None:
        self.number, self.answer = number, answer
        self.is_cancelled = is_cancelled

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        self.answer([Answer(self.number, response, flags)])


def send_all(answers: Sequence[tuple[ResponseSender, InferenceResponse | None, int]]) -> None:
    """Send answers to requests of one model in one message: sender, response and flags of each. Triton has no such thing."""
    if answers:
        answers[0][0].answer([Answer(sender.number, response, flags) for sender, response, flags in answers])


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


class Services:
    """What the stub does for its child. One call at a time, from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.RLock()  # a metric that goes while its thread is at a call tells of it

    def tell(self, what: str, *arguments: Any) -> None:
        """Do not wait for an answer."""
        with self._lock:
            packets.send(self._connection, {"tell": what, "arguments": arguments})

    def ask(self, what: str, *arguments: Any) -> Any:
        """The answer. Raises ``TritonModelException`` as the stub would."""
        with self._lock:
            packets.send(self._connection, {"ask": what, "arguments": arguments})
            answer, _ = packets.receive(self._connection)
        if "raised" in answer:
            raise TritonModelException(answer["raised"])
        return answer["value"]


def make_module(services: Services, model_dir: str) -> ModuleType:
    """The module, as ``sys.modules`` is to have it: that which code has that was imported before, or a new one."""
    module = sys.modules.setdefault(UTILS, ModuleType(UTILS, __doc__))
    vars(module).update(
        TritonModelException=TritonModelException,
        TritonError=TritonError,
        Tensor=Tensor,
        InferenceResponse=InferenceResponse,
        InferenceRequest=InferenceRequest,
        Logger=Logger(services),
        MetricFamily=_metric_family(services),
        send_all=send_all,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=TRITONSERVER_RESPONSE_COMPLETE_FINAL,
        get_input_tensor_by_name=get_input_tensor_by_name,
        using_decoupled_model_transaction_policy=using_decoupled_model_transaction_policy,
        get_model_dir=lambda: model_dir,
        is_model_ready=lambda name, version="": bool(services.ask("is_model_ready", name, version)),
        unload_model=lambda name: services.ask("unload_model", name),
    )
    return module


class Logger:
    """Lines of the server's log."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def log_info(self, message: str) -> None:
        self._services.tell("log", "info", str(message))

    def log_warn(self, message: str) -> None:
        self._services.tell("log", "warn", str(message))

    def log_error(self, message: str) -> None:
        self._services.tell("log", "error", str(message))

    def log_verbose(self, message: str) -> None:
        self._services.tell("log", "verbose", str(message))


class _Numbered:
    """Something that the stub keeps, under a number of ours, until it is dropped here."""

    numbers = itertools.count()

    def __init__(self, services: Services) -> None:
        self._services = services
        self._number = next(self.numbers)

    def __del__(self) -> None:
        # The stub has ended, or this interpreter does.
        with contextlib.suppress(packets.Closed, OSError, TypeError, AttributeError):
            self._services.tell("drop", self._number)


class Metric(_Numbered):
    """One series of a family."""

    def __init__(self, services: Services, family: int, labels: dict[str, str] | None, buckets: Sequence[float] | None) -> None:
        super().__init__(services)
        services.ask("new_metric", self._number, family, labels, None if buckets is None else list(buckets))

    def increment(self, value: float) -> None:
        self._services.tell("metric", self._number, "increment", value)

    def set(self, value: float) -> None:
        self._services.tell("metric", self._number, "set", value)

    def observe(self, value: float) -> None:
        self._services.tell("metric", self._number, "observe", value)

    def observe_all(self, values: Sequence[float]) -> None:
        """Each of them, in one message. Triton has no such thing."""
        self._services.tell("observe_all", self._number, list(values))

    def value(self) -> float:
        return float(self._services.ask("metric_value", self._number))


def _metric_family(services: Services) -> type[_Numbered]:
    """The class of families; models make them without knowing whose."""

    class MetricFamily(_Numbered):
        """A metric by name."""

        COUNTER, GAUGE, HISTOGRAM = "COUNTER", "GAUGE", "HISTOGRAM"

        def __init__(self, name: str, description: str, kind: str) -> None:
            super().__init__(services)
            services.ask("new_family", self._number, name, description, kind)

        def Metric(self, labels: dict[str, str] | None = None, buckets: Sequence[float] | None = None) -> Metric:
            return Metric(services, self._number, labels, buckets)

    return MetricFamily
