"""``POST /v1/responses``, what OpenAI's newer clients ask: a conversation enters, items leave, streamed ones as events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

from aiohttp import web

from modelium.errors import ModeliumError
from modelium.gateway.asking import Asking
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.counting import MODEL
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, EVENTS, Reply, describes
from modelium.gateway.http.events import EventStream
from modelium.gateway.neighbours import shapes
from modelium.gateway.neighbours.chatting import Turn
from modelium.gateway.neighbours.responses.answers import Answer
from modelium.gateway.neighbours.responses.requests import ResponsesAsked
from modelium.gateway.openai import OpenAI
from modelium.gateway.openai.errors import told
from modelium.gateway.openai.reading import ignore, make, read_request

__all__ = ["Responses"]


class Responses:
    """The handler."""

    def __init__(self, openai: OpenAI, asking: Asking, *, timeout_s: float) -> None:
        self._openai = openai
        self._asking = asking
        self._timeout_s = timeout_s

    @describes(
        "A conversation in OpenAI's newer API; nothing of it is kept.",
        takes=ResponsesAsked,
        gives=shapes.ResponseAnswer,
        also=(Reply(content_type=EVENTS, says="with `stream`: OpenAI's events"),),
        fails=ASKING,
        example={"model": "NAME", "input": "Hello"},
    )
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/responses``. Raises ``BadRequest`` and what the generator raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(ResponsesAsked, request, deadline)
        chat = await make(request, deadline, asked.asks)
        ignore(request, *asked.unheard)
        turn = Turn.of(await self._openai.chat.begin(request, chat, deadline))
        answer = Answer(asked.model, asked.echoed())
        if not asked.stream:
            async with aclosing(turn.deltas()) as deltas:
                async for delta in deltas:
                    _all(answer.add(delta))
            _all(answer.end(turn))
            return json_response(answer.whole(turn))
        name = request[MODEL]

        def error_event(error: ModeliumError) -> bytes:
            said = told(error, request)
            return answer.error(said.message, said.code)

        stream = EventStream(request, comment=lambda: self._asking.waiting(name), error_event=error_event, deadline=deadline)
        begun = False
        async with stream as events, aclosing(turn.deltas()) as deltas:
            async for delta in deltas:
                for one in (*(() if begun else answer.begin()), *answer.add(delta)):
                    await events.send(one)
                begun = True
            for one in answer.end(turn):
                await events.send(one)
        return events.response


def _all(events: Iterator[bytes]) -> None:
    """Have the items made, of which nobody wants to see the events."""
    for _ in events:
        pass
