"""Requests under way and their responses.

What enters: Triton's response senders, and responses from the event loop. What leaves: responses, in order (``sending.py``),
and the cancellation of requests whose client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .sending import InTurn, Item, Sending, Together

_LOOK_S = 0.1
_PULSE_S = 1.0
_MOST_UNSENT = 4


class Exchange:
    """One request: whoever ends it first, ends it."""

    def __init__(self, sender: Any, post: Callable[[Item], None]) -> None:
        self.sender = sender
        self.cancel: Callable[[], object] | None = None
        self.cancelled = False
        self.lock = threading.Lock()  # around the numbers here; never held for longer than a moment
        self.sender_lock = threading.Lock()  # around the sender, which knows nothing of threads and may take its time
        self.closed = False  # the last response is on its way
        self.unsent = 0
        self._post = post

    def send(self, response: Any, *, last: bool) -> None:
        with self.lock:
            if self.closed:
                return
            self.closed = last
            self.unsent += 1
            self._post(Item(self, response, last))  # under the lock: what is accepted first is sent first

    async def room(self) -> None:
        """Wait while the server is behind: vLLM joins what it makes meanwhile into one response."""
        while self.unsent > _MOST_UNSENT and not self.closed:  # noqa: ASYNC110 — the number is another thread's
            await asyncio.sleep(0.001)


class Exchanges:
    """All that are under way."""

    def __init__(self, pb_utils: Any, pulse: Callable[[], None], soon: Callable[[Callable[[], None]], object]) -> None:
        """``pulse`` is called once a second while something is under way. ``soon`` calls on the engine's event loop."""
        self._pulse = pulse
        self._log = pb_utils.Logger.log_warn
        self._told = ""
        self._live: set[Exchange] = set()
        self._changed = threading.Condition()
        self._over = threading.Event()
        final_flag, send_all = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL, getattr(pb_utils, "send_all", None)
        self._sending: Sending = (
            InTurn(final_flag, self._surviving, self._sent)
            if send_all is None
            else Together(send_all, final_flag, self._surviving, self._sent, soon)
        )
        self._thread = threading.Thread(target=self._look_for_cancellations, name="vllm-cancellations", daemon=True)
        self._thread.start()

    def open(self, sender: Any) -> Exchange:
        exchange = Exchange(sender, self._sending.post)
        with self._changed:
            self._live.add(exchange)
            self._changed.notify_all()
        return exchange

    def end_all(self, response: Callable[[], Any]) -> None:
        """Answer every request that is under way with ``response()`` as its last."""
        for exchange in self._snapshot():
            exchange.send(response(), last=True)
        self._sending.flush()

    def wait_for_end(self, within_s: float) -> bool:
        """Until every last response is sent."""
        deadline = time.monotonic() + within_s
        with self._changed:
            while self._live:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self) -> None:
        self._over.set()
        with self._changed:
            self._changed.notify_all()
        self._sending.close()
        self._thread.join(timeout=1.0)

    def _snapshot(self) -> list[Exchange]:
        with self._changed:
            return list(self._live)

    def _sent(self, item: Item) -> None:
        if item.last:
            with self._changed:
                self._live.discard(item.exchange)
                self._changed.notify_all()

    def _look_for_cancellations(self) -> None:
        """A few times a second: Triton tells nobody, it has to be asked."""
        beat = time.monotonic()
        while not self._over.wait(_LOOK_S):
            with self._changed:
                while not self._live and not self._over.is_set():
                    self._changed.wait()
            if time.monotonic() > beat + _PULSE_S:
                beat = time.monotonic()
                with self._surviving("it is not known whether the model is being unloaded"):
                    self._pulse()
            for exchange in self._snapshot():
                with self._surviving("it is not known whether a request was cancelled"):
                    if exchange.cancel is not None and not exchange.cancelled and self._is_cancelled(exchange):
                        exchange.cancelled = True
                        exchange.cancel()

    def _is_cancelled(self, exchange: Exchange) -> bool:
        """A sender that is busy is asked the next time; one that sent its last response must not be asked any more."""
        if not exchange.sender_lock.acquire(blocking=False):
            return False
        try:
            return not exchange.closed and bool(exchange.sender.is_cancelled())
        finally:
            exchange.sender_lock.release()

    @contextlib.contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """These threads outlive any error (a server that stops answers nothing any more), and say each only once in a row."""
        try:
            yield
        except Exception as error:
            told, self._told = self._told, f"{what}: {error}"
            if told != self._told:
                with contextlib.suppress(Exception):
                    self._log(self._told)
