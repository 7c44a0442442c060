"""What a child asks its stub for: messages enter, and the server's log, metrics and models are asked; answers leave."""

from __future__ import annotations

import socket
from typing import Any

import triton_python_backend_utils as pb_utils

from . import packets


class Errands:
    """What a child asks its stub for: the server's log, metrics, the state of models."""

    def __init__(self, services: socket.socket) -> None:
        self._socket = services
        self._made: dict[int, Any] = {}  # families and series, by the child's numbers

    def serve(self) -> None:
        """Until the child ends."""
        while True:
            try:
                message, _ = packets.receive(self._socket)
                if "tell" in message:
                    self._answer(message["tell"], message["arguments"])  # whatever goes wrong: nobody waits to hear it
                    continue
                packets.send(self._socket, self._answer(message["ask"], message["arguments"]))
            except packets.Closed:
                return

    def _answer(self, what: str, arguments: list[Any]) -> dict[str, Any]:
        try:
            return {"value": self._perform(what, arguments)}
        except Exception as error:
            return {"raised": str(error)}

    def _perform(self, what: str, arguments: list[Any]) -> Any:
        match what, arguments:
            case "log", [level, text]:
                getattr(pb_utils.Logger, f"log_{level}")(text)
            case "is_model_ready", [name, version]:
                return pb_utils.is_model_ready(name, version) if version else pb_utils.is_model_ready(name)
            case "unload_model", [name]:
                pb_utils.unload_model(name)
            case "new_family", [number, name, description, kind]:
                kinds = pb_utils.MetricFamily
                self._made[number] = kinds(name=name, description=description, kind=getattr(kinds, kind))
            case "new_metric", [number, family, labels, buckets]:
                more = {} if buckets is None else {"buckets": buckets}
                self._made[number] = self._made[family].Metric(labels=labels, **more)
            case "metric", [number, verb, value]:
                getattr(self._made[number], verb)(value)
            case "observe_all", [number, values]:
                for value in values:
                    self._made[number].observe(value)
            case "metric_value", [number]:
                return self._made[number].value()
            case "drop", [number]:
                self._made.pop(number, None)
        return None
