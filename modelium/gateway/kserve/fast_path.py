"""Inferences on the fast path: a small ``POST /v2/models/NAME/infer`` enters whole, Triton's answer leaves.

Only what needs nothing to be waited for: the model takes one more request now, and a connection to Triton is idle. The handlers
(``models``) answer all else, and each error that is Modelium's own: they get the same request, and are told what happened.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict

from modelium.api_keys import ApiKeys
from modelium.errors import ModelGone, ModeliumError, NotExecuted
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import waited_headers
from modelium.gateway.http.browsers import Guard, headers_for_programs
from modelium.gateway.http.counting import CLIENT_GONE
from modelium.gateway.http.errors import request_id
from modelium.gateway.http.fast_path import FastConnection
from modelium.gateway.http.keys import sent_keys
from modelium.gateway.http.sent import Sent
from modelium.gateway.http.statuses import status_of
from modelium.gateway.kserve.passing import LARGE_BYTES, Passage, broken_off, passed_headers
from modelium.gateway.kserve.upstream import Answer
from modelium.metrics import Recorder
from modelium.triton.faults import http_fault

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease

_INFER = re.compile(rb"/v2/models/(?P<model>[A-Za-z0-9._~-]+)(?:/versions/[0-9]{1,9})?/infer")
_MOST_HOSTS = 64


class FastInfer:
    """Takes inferences for the gateway. ``deadline``: makes that of a request that says nothing of it."""

    def __init__(
        self,
        controller: Controller,
        passage: Passage,
        recorder: Recorder,
        guard: Guard,
        keys: ApiKeys | None,
        deadline: Callable[[], Deadline],
        max_body_bytes: int,
    ) -> None:
        self.controller = controller
        self.passage = passage
        self.recorder = recorder
        self.deadline = deadline
        self._guard = guard
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        self._known_hosts: set[bytes] = set()
        added = {**headers_for_programs(guard), **waited_headers(0.0, cold=False), "Server": SERVER_SOFTWARE}
        self.added = "".join(f"{name}: {value}\r\n" for name, value in added.items())

    def wants(self, sent: Sent) -> bool:
        """An inference of somebody who may ask."""
        return (
            sent.method == b"POST"
            and sent.size <= self._max_body_bytes
            and _INFER.fullmatch(sent.path) is not None
            and self._knows(sent.host)
            and (self._keys is None or self._has_key(sent, self._keys))
        )

    def begin(self, sent: Sent, connection: FastConnection) -> _Inference | None:
        """It is on its way to Triton; None where it has to wait for anything."""
        if not self.passage.is_idle or (match := _INFER.fullmatch(sent.path)) is None:
            return None
        lease = self.controller.lease_now(match["model"].decode("ascii"))
        return None if lease is None else _Inference(self, sent, connection, lease)

    def _knows(self, host: bytes) -> bool:
        if host in self._known_hosts:
            return True
        if not host or not self._guard.hosts.know(host.decode("latin-1")):
            return False
        if len(self._known_hosts) < _MOST_HOSTS:
            self._known_hosts.add(host)
        return True

    def _has_key(self, sent: Sent, keys: ApiKeys) -> bool:
        headers = CIMultiDict((name.decode("latin-1"), value.decode("utf-8", "replace")) for name, value in sent.headers)
        return any(keys.find(key) is not None for key in sent_keys(headers))


class _Inference(Answer):
    """One inference, and Triton's answer to it as it comes."""

    __slots__ = ("_begun", "_client", "_deadline", "_gathered", "_give_back", "_lease", "_over", "_sent", "_timer", "_way")

    def __init__(self, way: FastInfer, sent: Sent, connection: FastConnection, lease: Lease) -> None:
        super().__init__()
        self._way = way
        self._sent = sent
        self._client = connection
        self._lease = lease
        self._gathered = b""
        self._begun = self._over = False  # the answer has begun to go to the client; nothing more is to be done
        self._deadline = way.deadline()
        self._timer = asyncio.get_running_loop().call_later(self._deadline.timeout_s, self._late)
        give_back = way.passage.ask_now(sent.headers, sent.path.decode("ascii"), sent.body, self)
        assert give_back is not None, "there was an idle connection in this very turn"
        self._give_back = give_back

    # -- what happens ------------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """More came from Triton, or nothing more will."""
        if self._over:
            return
        if self.fault is not None:
            self._fail(broken_off(self.fault, begun=self.has_begun))
        elif self._begun or self._is_large():
            self.go_on()
        elif self.has_begun:
            self._gathered = self._gathered + self.take() if self._gathered else self.take()
            if self.ended:
                self._said(self._gathered)

    def go_on(self) -> None:
        """Pass on what came, if the client takes it."""
        wire = self._client.wire
        if not self._begun or self._over or wire is None or self._client.writing_paused:
            return
        wire.write(self.take())
        if self.ended:
            self._end(self.status)
            self._client.answered()

    def cancel(self) -> None:
        """The client is gone."""
        if not self._over:
            self._end(CLIENT_GONE)

    def _late(self) -> None:
        self._fail(self._deadline.exceeded())

    # -- how it ends -------------------------------------------------------------------------------------------------

    def _is_large(self) -> bool:
        """Passed on as it comes. Triton tells the length of all that it answers to inferences; what has none is gathered."""
        size = self.content_length
        if self.status != 200 or size is None or size <= LARGE_BYTES:
            return False
        self._begun = True
        if (wire := self._client.wire) is not None:
            wire.write(self._head(size))
        return True

    def _said(self, body: bytes) -> None:
        """It is all there. What is no answer of the model's is the handlers' to say, or to ask again."""
        name = self._lease.profile.name
        if self.status >= 400 and (fault := http_fault(name, self.status, body)) is not None:
            self._way.controller.report_gone(name, str(fault))
            if isinstance(fault, NotExecuted):
                self._way.recorder.infer_retry(name)
                self._end(None)
                self._client.hand_over(self._sent)
                return
        wire = self._client.wire
        self._end(self.status)
        if wire is not None:
            wire.write(self._head(len(body)) + body)
        self._client.answered()

    def _fail(self, error: ModeliumError) -> None:
        """No answer came, or half of one."""
        if isinstance(error, ModelGone):
            self._way.controller.report_gone(self._lease.profile.name, str(error))
        if self._begun:
            self._end(status_of(error))
            self._client.abort()
        else:
            self._end(None)
            self._client.hand_over(self._sent, error)

    def _end(self, status: int | None) -> None:
        """The lease is back. ``status``: counted so; None: aiohttp's handlers count it."""
        self._over = True
        self._timer.cancel()
        self._give_back()
        self._lease.release()
        if status is not None:
            self._way.recorder.request(self._lease.profile.name, status, self._deadline.elapsed_s())

    def _head(self, size: int) -> bytes:
        known_as = request_id(self._sent.id.decode("latin-1"))
        headers = "".join(f"{name}: {value}\r\n" for name, value in passed_headers(self))
        return (
            f"HTTP/1.1 {self.status} {self.words}\r\n{headers}{self._way.added}Content-Length: {size}\r\n"
            f"Date: {rfc822_formatted_time()}\r\nX-Request-Id: {known_as}\r\n\r\n"
        ).encode("latin-1")
