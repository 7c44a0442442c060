"""Anthropic's API: requests to ``/v1/messages`` enter, answers that its clients understand leave, streamed ones as events."""

from __future__ import annotations

from contextlib import aclosing

from aiohttp import web

from modelium.gateway.asking import Asking
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.counting import MODEL
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, EVENTS, NAMING, Reply, describes
from modelium.gateway.http.events import EventStream
from modelium.gateway.neighbours import shapes
from modelium.gateway.neighbours.anthropic.answers import (
    Blocks,
    error_body,
    event,
    new_message,
    stop_reason,
    usage_of,
    whole_message,
)
from modelium.gateway.neighbours.anthropic.requests import CountAsked, MessagesAsked
from modelium.gateway.neighbours.chatting import Turn
from modelium.gateway.openai import OpenAI
from modelium.gateway.openai.errors import told
from modelium.gateway.openai.reading import make, read_request

__all__ = ["Anthropic", "error_body"]


class Anthropic:
    """The handlers of ``/v1/messages``."""

    def __init__(self, openai: OpenAI, asking: Asking, *, timeout_s: float) -> None:
        self._openai = openai
        self._asking = asking
        self._timeout_s = timeout_s

    def routes(self) -> list[web.RouteDef]:
        """Both."""
        return [web.post("/v1/messages", self.answer), web.post("/v1/messages/count_tokens", self.count)]

    @describes(
        "A chat in Anthropic's API.",
        takes=MessagesAsked,
        gives=shapes.AnthropicMessage,
        also=(Reply(content_type=EVENTS, says="with `stream`: Anthropic's events"),),
        fails=ASKING,
        example={"model": "NAME", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]},
    )
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages``. Raises ``BadRequest`` and what the generator raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(MessagesAsked, request, deadline)
        chat = await make(request, deadline, asked.asks)
        turn = Turn.of(await self._openai.chat.begin(request, chat, deadline))
        if not asked.stream:
            await turn.whole()
            return json_response(whole_message(asked.model, turn))
        name, blocks = request[MODEL], Blocks()
        stream = EventStream(
            request,
            comment=lambda: self._asking.waiting(name),
            error_event=lambda error: event(error_body((said := told(error, request)).status, said.message)),
            deadline=deadline,
        )
        begun = False
        async with stream as events, aclosing(turn.deltas()) as deltas:
            async for delta in deltas:
                if not begun:
                    await events.send(event({"type": "message_start", "message": _begun(asked.model, turn)}))
                    begun = True
                for one in blocks.events(delta):
                    await events.send(one)
            for one in blocks.end():
                await events.send(one)
            ended = {"stop_reason": stop_reason(turn), "stop_sequence": turn.stop_text}
            await events.send(event({"type": "message_delta", "delta": ended, "usage": usage_of(turn)}))
            await events.send(event({"type": "message_stop"}))
        return events.response

    @describes(
        "How many tokens a prompt has; loads nothing.",
        takes=CountAsked,
        gives=shapes.Count,
        fails=NAMING,
        example={"model": "NAME", "messages": [{"role": "user", "content": "Hello"}]},
    )
    async def count(self, request: web.Request) -> web.Response:
        """``POST /v1/messages/count_tokens``; images are not counted. Raises ``BadRequest``; loads nothing."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(CountAsked, request, deadline)
        chat = await make(request, deadline, asked.asks)
        served, ready = await self._openai.chat.ready(request, chat, deadline)
        encoded = await self._openai.tokenizing.encode(
            served.profile, ready.rendered, special=False, param="messages", deadline=deadline
        )
        return json_response({"input_tokens": len(encoded.ids)})


def _begun(model: str, turn: Turn) -> dict[str, object]:
    return new_message(model) | {"usage": usage_of(turn)}
