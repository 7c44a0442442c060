"""``GET /events``: what happens to models leaves, as server-sent events.

1. Each stream begins with the states as they are, or with what was missed since ``Last-Event-ID``.
2. Then a ``state`` comes for each change, with an id; while models load, a ``progress`` each second, which needs none: it is
   out of date when the next one comes. A comment comes where nothing else does.
3. A client that does not read loses its connection; it may come back with ``Last-Event-ID``.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from modelium.errors import QueueFull, UnknownModel
from modelium.gateway.http.answers import write_within
from modelium.gateway.http.describing import EVENTS, NAMING, Reply, describes
from modelium.gateway.http.errors import REQUEST_ID
from modelium.gateway.places import Places
from modelium.names import printable
from modelium.pace import in_pieces
from modelium.values import LoadingStatus, ModelStatus, State
from modelium.views import Loading, written

if TYPE_CHECKING:
    from modelium.controller import Controller, Listener, News

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would collect events otherwise
}
_PROGRESS_S = 1.0
_HEARTBEAT_S = 10.0
_MOST_STREAMS = 256
_DIGITS = 18  # of a number that somebody sent
_RETRY_AFTER_S = 10.0
_AGAIN_MS = 2000  # after which a browser connects again


class Events:
    """The handler of ``/events``."""

    def __init__(
        self,
        controller: Controller,
        places: Places,
        *,
        stall_s: float,
        progress_s: float = _PROGRESS_S,
        heartbeat_s: float = _HEARTBEAT_S,
    ) -> None:
        """``places``: what is left out of all reasons."""
        self._controller = controller
        self._places = places
        self._stall_s = stall_s
        self._progress_s = progress_s
        self._heartbeat_s = heartbeat_s

    @describes(
        "What happens to models, as it happens.",
        gives=Reply(content_type=EVENTS, says="`state`, `progress` and `gone`, each with JSON"),
        fails=NAMING,
        query={"model": "about this model alone"},
    )
    async def show(self, request: web.Request) -> web.StreamResponse:
        """``GET /events[?model=NAME]``. Raises ``UnknownModel``, and ``QueueFull`` where too many listen."""
        newsroom = self._controller.news
        called = request.query.get("model", "")
        model = self._controller.target(called).model if called else ""
        if newsroom.listeners >= _MOST_STREAMS:
            raise QueueFull(f"{_MOST_STREAMS} clients listen to events already; try again later", _RETRY_AFTER_S)

        def cut() -> None:
            if request.transport is not None:
                request.transport.abort()

        response = web.StreamResponse(headers=_HEADERS | {"X-Request-Id": request[REQUEST_ID]})
        with newsroom.listening(model, cut) as listener:
            await response.prepare(request)
            await self._send(request, response, f"retry: {_AGAIN_MS}\n\n".encode())
            told = await self._begin(request, response, model)
            await self._go_on(request, response, listener, told)
        await write_within(request, self._stall_s, response.write_eof())
        return response

    async def _begin(self, request: web.Request, response: web.StreamResponse, model: str) -> int:
        """What was missed, or how all is. Answers the number of the last news in that."""
        last = self._controller.news.last
        missed = self._missed(request.headers.get("Last-Event-ID", ""), model)
        if missed is None:
            await self._send_states(request, response, model, last)
            return last
        for news in missed:
            await self._send(request, response, self._of(news))
        return last

    async def _go_on(self, request: web.Request, response: web.StreamResponse, listener: Listener, told: int) -> None:
        """Until there is no more news. What is in it up to number ``told`` was said."""
        quiet_since = monotonic()
        while not listener.is_over:
            news = await listener.next(self._progress_s)
            if news is not None and news.number > told:
                said = self._of(news)
            elif news is None and not listener.is_over:
                said = self._progress(listener.model)
                if not said and monotonic() - quiet_since >= self._heartbeat_s:
                    said = b": nothing new\n\n"
            else:
                continue
            if said:
                await self._send(request, response, said)
                quiet_since = monotonic()
            if news is not None and listener.model and news.state is None:
                return

    async def close(self, _app: web.Application) -> None:
        """For the application's ``on_shutdown``: streams have no end of their own."""
        self._controller.news.close()

    async def _send(self, request: web.Request, response: web.StreamResponse, event: bytes) -> None:
        await write_within(request, self._stall_s, response.write(event))

    def _missed(self, sent: str, model: str) -> list[News] | None:
        newsroom = self._controller.news
        era, dash, number = sent.rpartition("-")
        if not dash or era != newsroom.era or not number.isascii() or not number.isdigit() or len(number) > _DIGITS:
            return None
        return newsroom.since(int(number), model)

    async def _send_states(self, request: web.Request, response: web.StreamResponse, model: str, last: int) -> None:
        """All carry the id of what was told ``last`` before, so that whoever comes back with it misses nothing."""
        ident = self._id(last)
        if model:
            statuses: tuple[ModelStatus, ...] = (self._controller.status(model),)
        else:
            statuses = (await self._controller.snapshot()).models
        async for status in in_pieces(statuses):
            data = self._data(status.name, status.state, status.reason, status.loading) | {"at": time()}
            await self._send(request, response, _event("state", data, ident))

    def _of(self, news: News) -> bytes:
        ident = self._id(news.number)
        if news.state is None:
            return _event("gone", {"model": news.model, "reason": self._said(news.reason), "at": news.at}, ident)
        loading = self._controller.loading(news.model) if news.state is State.LOADING else None
        if loading is not None and news.stage is not None and news.stage is not loading.stage:
            loading = None  # it is further by now, and the news of that comes next
        stage = {"stage": news.stage.value} if news.stage is not None else {}
        return _event("state", self._data(news.model, news.state, news.reason, loading) | stage | {"at": news.at}, ident)

    def _progress(self, model: str) -> bytes:
        said = []
        for name in (model,) if model else self._controller.under_load():
            try:
                status = self._controller.status(name)
            except UnknownModel:
                continue  # it went meanwhile, and the news of that comes
            if status.loading is not None:
                data = self._data(name, status.state, status.reason, status.loading) | {"waiting": status.waiting}
                said.append(_event("progress", data | {"at": time()}))
        return b"".join(said)

    def _data(self, model: str, state: State, reason: str, loading: LoadingStatus | None) -> dict[str, object]:
        said = written(Loading, loading) if loading is not None else None
        return {"model": model, "state": state.value, "reason": self._said(reason), "loading": said}

    def _said(self, reason: str) -> str:
        return printable(self._places.left_out_of(reason), longest=2000)

    def _id(self, number: int) -> str:
        return f"{self._controller.news.era}-{number}"


def _event(kind: str, data: dict[str, object], ident: str = "") -> bytes:
    head = f"id: {ident}\n" if ident else ""
    return f"{head}event: {kind}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
