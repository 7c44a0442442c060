"""``/tokenize`` and ``/detokenize``, as vLLM has them: text enters, token ids leave, and the other way round.

Nothing is loaded.
"""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from modelium.gateway.http.answers import json_response
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import NAMING, describes
from modelium.gateway.neighbours import shapes
from modelium.gateway.openai import OpenAI
from modelium.gateway.openai.chat_fields import Message, Object, Tool
from modelium.gateway.openai.directory import Served
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.fields import Arguments, Ids, Many, Text
from modelium.gateway.openai.reading import read_request
from modelium.gateway.openai.requests import ChatRequest, Request


class TokenizeRequest(Request):
    """The body of ``/tokenize``: a ``prompt``, or the ``messages`` of a chat with what its template takes."""

    prompt: Text | None = None
    messages: Annotated[Many[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None  # those around a prompt come by default; a chat has its template's own
    return_token_strs: bool = False
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    tools: Annotated[Many[Tool], Arguments] | None = None
    chat_template_kwargs: Annotated[Object, Arguments] | None = None


class DetokenizeRequest(Request):
    """The body of ``/detokenize``."""

    tokens: Ids


class Tokens:
    """The handlers."""

    def __init__(self, openai: OpenAI, *, timeout_s: float) -> None:
        self._openai = openai
        self._timeout_s = timeout_s

    @describes(
        "The tokens of a prompt or a chat; loads nothing.",
        takes=TokenizeRequest,
        gives=shapes.Tokenized,
        fails=NAMING,
        example={"model": "NAME", "prompt": "Hello"},
    )
    async def tokenize(self, request: web.Request) -> web.Response:
        """``POST /tokenize``. Raises ``BadRequest``."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(TokenizeRequest, request, deadline)
        if (asked.prompt is None) == (asked.messages is None):
            raise BadRequest("prompt: send either a prompt or messages", param="prompt", code="missing_required_parameter")
        if asked.messages is not None:
            chat = ChatRequest(
                model=asked.model,
                messages=asked.messages,
                tools=asked.tools,
                add_generation_prompt=asked.add_generation_prompt,
                continue_final_message=asked.continue_final_message,
                chat_template_kwargs=asked.chat_template_kwargs,
            )
            served, ready = await self._openai.chat.ready(request, chat, deadline)
            text, special = ready.rendered, asked.add_special_tokens is True
        else:
            served = await self._openai.directory.find(request, asked.model, deadline)
            text, special = asked.prompt or "", asked.add_special_tokens is not False
        encoded = await self._openai.tokenizing.encode(served.profile, text, special=special, param="prompt", deadline=deadline)
        body = {
            "count": len(encoded.ids),
            "max_model_len": self._longest(served),
            "tokens": encoded.ids,
            "token_strs": encoded.words if asked.return_token_strs else None,
        }
        return json_response(body)

    @describes(
        "The text of tokens; loads nothing.",
        takes=DetokenizeRequest,
        gives=shapes.Detokenized,
        fails=NAMING,
        example={"model": "NAME", "tokens": [1, 2]},
    )
    async def detokenize(self, request: web.Request) -> web.Response:
        """``POST /detokenize``. Raises ``BadRequest``."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(DetokenizeRequest, request, deadline)
        served = await self._openai.directory.find(request, asked.model, deadline)
        text = await self._openai.tokenizing.spell(served.profile, asked.tokens, param="tokens", deadline=deadline)
        return json_response({"prompt": text})

    def _longest(self, served: Served) -> int | None:
        placement = self._openai.directory.controller.status(served.name).placement
        engine = placement.engine if placement is not None else None
        return engine.max_model_len if engine is not None else served.profile.max_length
