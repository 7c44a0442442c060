"""Responses on their way to the server, in order: what enters are responses, what leaves is word of each that was sent.

A stub's message to the server is waited for, so a thread sends it (``InTurn``). A child of a nursery hands over to its stub,
and waits for nobody: there the event loop sends what an engine's step has given in one message (``Together``).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol


class Item(NamedTuple):
    """A response, and who waits for it. ``last``: nothing more comes."""

    exchange: Any
    response: Any
    last: bool


class Sending(Protocol):
    """The way of responses to the server."""

    def post(self, item: Item) -> None:
        """Send it soon; any thread may call this, and nobody waits."""

    def flush(self) -> None:
        """See to it that what was posted is sent, though the event loop may do nothing more."""

    def close(self) -> None:
        """Nothing more comes."""


Survive = Callable[[str], AbstractContextManager[None]]
_COULD_NOT = "a response could not be sent"


class InTurn:
    """A thread sends one after the other."""

    def __init__(self, final_flag: int, surviving: Survive, sent: Callable[[Item], None]) -> None:
        self._final_flag, self._surviving, self._sent = final_flag, surviving, sent
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, name="vllm-responses", daemon=True)
        self._thread.start()

    def post(self, item: Item) -> None:
        self._items.put(item)

    def flush(self) -> None:
        """The thread does."""

    def close(self) -> None:
        self._items.put(None)
        self._thread.join(timeout=1.0)

    def _send(self) -> None:
        while (item := self._items.get()) is not None:
            exchange, response, last = item
            with exchange.lock:
                exchange.unsent -= 1
            # Triton drops the outputs that the request did not name, without holding Python's lock: while these are referred
            # to, that frees nothing (measured: an array in Ray's memory took the whole stub along).
            outputs = response.output_tensors() if response is not None else []
            with self._surviving(_COULD_NOT), exchange.sender_lock:
                if last:
                    exchange.sender.send(response, flags=self._final_flag)
                else:
                    exchange.sender.send(response)
            del outputs
            self._sent(item)


class Together:
    """The event loop sends all that there is. Where the stub is behind, it waits, and vLLM joins what it makes meanwhile."""

    def __init__(
        self,
        send_all: Callable[[list[tuple[Any, Any, int]]], None],
        final_flag: int,
        surviving: Survive,
        sent: Callable[[Item], None],
        soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """``send_all``: of ``modelium_nursery.pb``. ``soon``: call on the event loop, after what is about to run there."""
        self._send_all, self._final_flag, self._surviving, self._sent, self._soon = send_all, final_flag, surviving, sent, soon
        self._items: list[Item] = []
        self._lock = threading.Lock()  # around the items; held for a moment
        self._sending = threading.Lock()  # what was taken first is sent first

    def post(self, item: Item) -> None:
        with self._lock:
            self._items.append(item)
            is_first = len(self._items) == 1
        if is_first:
            self._soon(self.flush)

    def flush(self) -> None:
        with self._sending:
            with self._lock:
                items, self._items = self._items, []
            if items:
                with self._surviving(_COULD_NOT):
                    self._send_all([(one.exchange.sender, one.response, self._final_flag if one.last else 0) for one in items])
            for item in items:
                with item.exchange.lock:
                    item.exchange.unsent -= 1
                self._sent(item)

    def close(self) -> None:
        with self._surviving(_COULD_NOT):
            self.flush()
