"""``POST /v1/chat/completions``: a conversation enters, the model's answer leaves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.gateway.asking import Asking
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation import GenerationRequest, Piece, PromptRead
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, EVENTS, Reply, describes
from modelium.gateway.openai import shapes
from modelium.gateway.openai.answering import answer_streamed, answer_whole
from modelium.gateway.openai.answers import Json, chat_choice, chat_delta, new_head
from modelium.gateway.openai.chat_prompt import ReadyChat, ready_chat
from modelium.gateway.openai.choices import ChatChoice
from modelium.gateway.openai.directory import Directory, Served, require
from modelium.gateway.openai.interleave import Stream
from modelium.gateway.openai.own_words import has_own_words, require_beams
from modelium.gateway.openai.reading import ignore, read_request
from modelium.gateway.openai.requests import ChatRequest
from modelium.gateway.openai.sampling import max_tokens, seed_of
from modelium.gateway.openai.template_renderer import Renderer
from modelium.gateway.openai.values import Delta
from modelium.values import JsonValue

if TYPE_CHECKING:
    from modelium.controller import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A chat that is asked as soon as its streams are read, in whatever words it is answered."""

    served: Served
    ready: ReadyChat
    streams: list[Stream]  # one for each of the n, or one of n beams


class Chat:
    """The handler."""

    def __init__(
        self, directory: Directory, asking: Asking, renderer: Renderer, *, timeout_s: float, own_vllm: bool = True
    ) -> None:
        """``own_vllm``: the server's vLLM backend is Modelium's, which has words of its own."""
        self._own_vllm = own_vllm
        self._directory = directory
        self._asking = asking
        self._renderer = renderer
        self._timeout_s = timeout_s

    @describes(
        "A chat, answered whole or in chunks.",
        takes=ChatRequest,
        gives=shapes.Chat,
        also=(Reply(content_type=EVENTS, says="with `stream`: chunks, then `[DONE]`"),),
        fails=ASKING,
        example={"model": "NAME", "messages": [{"role": "user", "content": "Hello"}]},
    )
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``. Raises ``BadRequest`` and what the generator raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(ChatRequest, request, deadline)
        begun = await self.begin(request, asked, deadline)
        served, ready, streams = begun.served, begun.ready, begun.streams
        head = new_head("chat.completion", asked.model, served.fingerprint)
        writers = [_ChatWriter(index, ready.choice(), asked, ready.echo) for index in range(asked.choices)]
        if not asked.stream:
            return await answer_whole(head, writers, streams, asked.choices)
        return await answer_streamed(
            request,
            head,
            writers,
            streams,
            asked.choices,
            options=asked.stream_options,
            deadline=deadline,
            waiting=lambda: self._asking.waiting(served.name),
        )

    async def begin(self, request: web.Request, asked: ChatRequest, deadline: Deadline) -> Begun:
        """Look the model up and make the chat ready for it; nothing is loaded yet. Raises ``BadRequest``."""
        served, ready = await self.ready(request, asked, deadline)
        streams = [
            self._asking.generate(served.name, partial(self._generation, asked, served, ready, index), deadline)
            for index in range(1 if asked.use_beam_search else asked.choices)
        ]
        return Begun(served=served, ready=ready, streams=streams)

    def _generation(self, asked: ChatRequest, served: Served, ready: ReadyChat, index: int, lease: Lease) -> GenerationRequest:
        own_words = has_own_words(lease.placement, own_vllm=self._own_vllm)
        return _generation(asked, served, ready, index, lease, own_words=own_words)

    async def ready(self, request: web.Request, asked: ChatRequest, deadline: Deadline) -> tuple[Served, ReadyChat]:
        """The model that was named, and its prompt."""
        served = await self._directory.find(request, asked.model, deadline)
        require(served, lambda row: row.generates, "chats")
        form = await self._directory.chat_format(served.profile)
        # Made ready before the lease: a request that the model cannot take must not load it.
        parser = self._directory.tool_parsers.get(served.name)
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                ready = await ready_chat(asked, served.profile, form, parser, self._renderer)
        except TimeoutError:
            raise deadline.exceeded(" while the chat template was rendered") from None
        ignore(request, *ready.ignored)
        return served, ready


class _ChatWriter:
    """A choice of a chat as JSON. ``echo``: the end of the conversation, which the answer goes on from."""

    def __init__(self, index: int, choice: ChatChoice, asked: ChatRequest, echo: str) -> None:
        self._index = index
        self._choice = choice
        self._asked = asked
        self._logprobs = bool(asked.logprobs) and (asked.include_reasoning is not False or choice.reasoning_tokens is None)
        self._deltas: list[Delta] = [Delta(text=echo)] if echo else []
        self._ids: list[int] = []
        self._stopped: str | int | None = None  # by which stop text or token
        self._read: PromptRead | None = None
        self._first = True

    def chunk(self, piece: Piece) -> Json | None:
        self._learn(piece)
        delta = self._choice.take(piece)
        if not delta and not self._first:
            return None
        first, self._first = self._first, False
        echoed = self._deltas.pop() if self._deltas else Delta()
        if echoed:
            delta = replace(delta, text=echoed.text + delta.text)
        return self._with_ids(
            chat_delta(
                self._index, delta, first=first, logprobs=self._logprobs, ids=bool(self._asked.return_tokens_as_token_ids)
            )
        )

    def add(self, piece: Piece) -> None:
        self._learn(piece)
        self._deltas.append(self._choice.take(piece))

    def whole(self) -> Json:
        ids = bool(self._asked.return_tokens_as_token_ids)
        return self._with_ids(chat_choice(self._index, self._deltas, logprobs=self._logprobs, ids=ids))

    def beside(self) -> Json:
        read, self._read = self._read, None
        said: Json = {}
        if read is not None and self._asked.return_token_ids:
            said["prompt_token_ids"] = list(read.token_ids)
        if read is not None and self._asked.prompt_logprobs is not None:
            said["prompt_logprobs"] = list(read.logprobs) or None
        return said

    def reasoning_tokens(self) -> int | None:
        return self._choice.reasoning_tokens

    def _learn(self, piece: Piece) -> None:
        self._ids += piece.token_ids
        self._stopped = piece.stop_reason if piece.stop_reason is not None else self._stopped
        self._read = piece.prompt or self._read

    def _with_ids(self, choice: Json) -> Json:
        if self._asked.return_token_ids:
            choice["token_ids"], self._ids = self._ids, []
        if self._stopped is not None:
            choice["stop_reason"] = self._stopped
        return choice


def _generation(
    asked: ChatRequest, served: Served, ready: ReadyChat, index: int, lease: Lease, *, own_words: bool
) -> GenerationRequest:
    """The index-th of the n. A revision that arrived since the prompt was rendered gets the prompt of the one before it: the
    next request has its own."""
    require_beams(asked, lease, own_words=own_words)
    engine = lease.placement.engine
    sampling: dict[str, JsonValue] = dict(ready.sampling)
    sampling["max_tokens"] = max_tokens(asked, engine.max_model_len if engine is not None else lease.profile.max_length)
    if (seed := seed_of(asked, index)) is not None:
        sampling["seed"] = seed
    return GenerationRequest(
        prompt=ready.prompt,
        sampling=sampling,
        images=ready.images,
        adapter=served.adapter,
        logprobs="logprobs" in ready.sampling or "logprob_token_ids" in ready.sampling,
        details=asked.wants_details and lease.placement.by_vllm,
        facts=own_words,
    )
