"""Ollama's API: requests to ``/api`` enter, answers that its clients understand leave, streamed ones as lines of JSON."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from time import monotonic
from typing import TypeVar

import numpy as np
import orjson
from aiohttp import web

from modelium.errors import UnknownModel
from modelium.gateway.asking import Asking
from modelium.gateway.codecs import Body
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.counting import MODEL
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, LOADING, NAMING, Reply, describes
from modelium.gateway.http.events import EventStream
from modelium.gateway.neighbours import shapes
from modelium.gateway.neighbours.chatting import Turn
from modelium.gateway.neighbours.inferring import answer_to, headers_of
from modelium.gateway.neighbours.ollama import directory
from modelium.gateway.neighbours.ollama.requests import (
    Asked,
    ChatAsked,
    EmbedAsked,
    EmbeddingsAsked,
    GenerateAsked,
    ShowAsked,
    Writing,
)
from modelium.gateway.openai import OpenAI
from modelium.gateway.openai.directory import require
from modelium.gateway.openai.embeddings import check_dimensions, shortened
from modelium.gateway.openai.errors import BadRequest, told
from modelium.gateway.openai.reading import ignore, make, read_request
from modelium.gateway.openai.requests import Request
from modelium.gateway.openai.values import Delta

__all__ = ["Ollama"]

Json = dict[str, object]
R = TypeVar("R", bound=Request)

VERSION = "0.12.6"  # of the Ollama whose routes these are: its tools ask for one that is new enough
_LATEST = ":latest"
_LINES = "application/x-ndjson"


class Ollama:
    """The handlers of ``/api``."""

    def __init__(self, openai: OpenAI, asking: Asking, *, timeout_s: float) -> None:
        self._openai = openai
        self._controller = openai.directory.controller
        self._asking = asking
        self._timeout_s = timeout_s

    def routes(self) -> list[web.RouteDef]:
        """All below ``/api``."""
        return [
            web.get("/api/version", self.version),
            web.get("/api/tags", self.tags),
            web.get("/api/ps", self.running),
            web.post("/api/show", self.show),
            web.post("/api/chat", self.chat),
            web.post("/api/generate", self.generate),
            web.post("/api/embed", self.embed),
            web.post("/api/embeddings", self.embeddings),
        ]

    @describes("The version of Ollama whose API this is.", gives=shapes.Version)
    async def version(self, _request: web.Request) -> web.Response:
        """``GET /api/version``."""
        return json_response({"version": VERSION})

    @describes("Every model, in Ollama's words.", gives=shapes.Tags)
    async def tags(self, _request: web.Request) -> web.Response:
        """``GET /api/tags``."""
        return json_response(await directory.tags(self._openai.directory))

    @describes("Those that are loaded.", gives=shapes.Tags)
    async def running(self, _request: web.Request) -> web.Response:
        """``GET /api/ps``."""
        return json_response(await directory.running(self._openai.directory))

    @describes("One model.", takes=ShowAsked, gives=shapes.Shown, fails=(*NAMING, BadRequest), example={"model": "NAME"})
    async def show(self, request: web.Request) -> web.Response:
        """``POST /api/show``. Raises ``UnknownModel``."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await self._read(ShowAsked, request, deadline)
        served = await self._openai.directory.find(request, asked.model, deadline)
        return json_response(await directory.show(self._openai.directory, self._controller.status(served.name)))

    @describes(
        "A chat. Without messages: load, or with `keep_alive: 0` unload.",
        takes=ChatAsked,
        gives=shapes.Line,
        also=(Reply(content_type=_LINES, says="unless `stream` is false: lines of JSON"),),
        fails=(*ASKING, *LOADING, BadRequest),
        example={"model": "NAME", "messages": [{"role": "user", "content": "Hello"}], "stream": False},
    )
    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/chat``. Raises ``BadRequest`` and what the generator raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await self._read(ChatAsked, request, deadline)
        if not asked.messages:
            return await self._load(request, asked, deadline, {"message": {"role": "assistant", "content": ""}})
        chat = await make(request, deadline, asked.asks)
        turn = Turn.of(await self._openai.chat.begin(request, chat, deadline))
        return await self._answer(request, asked, turn, _message, deadline)

    @describes(
        "A text. Without a prompt: load, or with `keep_alive: 0` unload.",
        takes=GenerateAsked,
        gives=shapes.Line,
        also=(Reply(content_type=_LINES, says="unless `stream` is false: lines of JSON"),),
        fails=(*ASKING, *LOADING, BadRequest),
        example={"model": "NAME", "prompt": "Hello", "stream": False},
    )
    async def generate(self, request: web.Request) -> web.StreamResponse:
        """``POST /api/generate``. Raises the same."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await self._read(GenerateAsked, request, deadline)
        if not asked.prompt:
            return await self._load(request, asked, deadline, {"response": ""})
        served = await self._openai.directory.find(request, asked.model, deadline)
        form = await self._openai.directory.chat_format(served.profile)
        if asked.raw or form.template(tools=False) is None:  # Ollama's own default is a template of the bare prompt
            text = await make(request, deadline, lambda: asked.continues(served.profile.max_length))
            begun = await self._openai.completion.begin(request, text, deadline)
            return await self._answer(request, asked, Turn.of_text(begun.streams[0]), _response, deadline)
        turn = Turn.of(await self._openai.chat.begin(request, await make(request, deadline, asked.asks), deadline))
        return await self._answer(request, asked, turn, _response, deadline)

    @describes(
        "The vectors of texts.",
        takes=EmbedAsked,
        gives=shapes.Embedded,
        fails=(*ASKING, *LOADING, BadRequest),
        example={"model": "NAME", "input": "Hello"},
    )
    async def embed(self, request: web.Request) -> web.Response:
        """``POST /api/embed``. Raises ``BadRequest`` and what asking a model raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await self._read(EmbedAsked, request, deadline)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input or []
        texts = [text for text in texts if text] if len(texts) == 1 else texts
        parameters: Json = {"normalize": True, **({"truncate": False} if asked.truncate is False else {})}
        vectors, tokens, headers = await self._vectors(request, asked, texts, parameters, deadline, asked.dimensions)
        if asked.dimensions is not None and len(texts):
            vectors = shortened(vectors, asked.dimensions)
        took = {"total_duration": _ns(deadline.elapsed_s()), "prompt_eval_count": tokens}
        return json_response({"model": asked.model, "embeddings": list(vectors), **took}, headers=headers)

    @describes(
        "The vector of one text, in the older form.",
        takes=EmbeddingsAsked,
        gives=shapes.OneEmbedded,
        fails=(*ASKING, *LOADING, BadRequest),
        example={"model": "NAME", "prompt": "Hello"},
    )
    async def embeddings(self, request: web.Request) -> web.Response:
        """``POST /api/embeddings``, the older form of it. Raises the same."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await self._read(EmbeddingsAsked, request, deadline)
        texts = [asked.prompt] if asked.prompt else []
        vectors, _, headers = await self._vectors(request, asked, texts, {}, deadline)
        return json_response({"embedding": vectors[0] if len(texts) else []}, headers=headers)

    async def _vectors(
        self,
        request: web.Request,
        asked: Asked,
        texts: list[str],
        parameters: Json,
        deadline: Deadline,
        dimensions: int | None = None,
    ) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], int, dict[str, str]]:
        """Of no text there is none: such a request asks for a load."""
        served = await self._openai.directory.find(request, asked.model, deadline)
        require(served, lambda row: row.embeds_texts, "embeddings")
        check_dimensions(served, dimensions)
        if not texts:
            await self._controller.load(served.name, timeout_s=deadline.remaining_s())
            return np.empty((0, 0), dtype=np.float32), 0, {}
        answered = await answer_to(self._asking, served, Body(inputs=texts, at_root=parameters), deadline)
        within_s = deadline.timeout_s - deadline.elapsed_s()
        tokens = await self._openai.tokenizing.count(served.profile, texts, within_s=within_s)
        return answered.answer.astype(np.float32, copy=False), tokens, headers_of(answered)

    async def _load(self, request: web.Request, asked: Writing, deadline: Deadline, empty: Json) -> web.Response:
        """A request that asks nothing of its model wants it loaded, or with ``keep_alive: 0`` unloaded."""
        target = await self._controller.known_target(asked.model, timeout_s=deadline.remaining_s())
        request[MODEL] = target.model
        do = self._controller.unload if asked.ends else self._controller.load
        await do(target.model, timeout_s=deadline.remaining_s())
        done = {"done": True, "done_reason": "unload" if asked.ends else "load"}
        return json_response({"model": asked.model, "created_at": _now(), **empty, **done})

    async def _answer(
        self,
        request: web.Request,
        asked: Writing,
        turn: Turn,
        said: Callable[[Delta | None, Turn | None], Json],
        deadline: Deadline,
    ) -> web.StreamResponse:
        def line(body: Json, *, done: bool = False) -> Json:
            return {"model": asked.model, "created_at": _now(), **body, "done": done}

        if not asked.streams:
            await turn.whole()
            return json_response(line(said(None, turn), done=True) | _figures(turn))
        name = request[MODEL]
        stream = EventStream(
            request,
            comment=lambda: self._asking.waiting(name),
            error_event=lambda error: _line({"error": told(error, request).message, "type": error.type}),
            deadline=deadline,
            content_type=_LINES,
            quiet=lambda: _line(line(said(Delta(), None))),
        )
        async with stream as lines, aclosing(turn.deltas()) as deltas:
            async for delta in deltas:
                if delta.text or delta.reasoning:
                    await lines.send(_line(line(said(delta, None))))
            turn.end()
            if turn.calls:
                await lines.send(_line(line(_message(None, turn, text=False))))
            await lines.send(_line(line(said(Delta(), None), done=True) | _figures(turn)))
        return lines.response

    async def _read(self, kind: type[R], request: web.Request, deadline: Deadline) -> R:
        """Ollama's clients may put ``:latest`` behind any name."""
        asked = await read_request(kind, request, deadline)
        if asked.model.endswith(_LATEST):
            try:
                await self._controller.known_target(asked.model, timeout_s=deadline.remaining_s())
            except UnknownModel:
                asked.model = asked.model.removesuffix(_LATEST)
        if isinstance(asked, Asked):
            ignore(request, *asked.unheard)
        return asked


def _message(delta: Delta | None, turn: Turn | None, *, text: bool = True) -> Json:
    """Of ``/api/chat``: of a delta, or of all that was said. Calls come whole: clients read their arguments as objects."""
    said = delta if delta is not None else turn
    assert said is not None
    message: Json = {"role": "assistant", "content": said.text if text else ""}
    if text and said.reasoning:
        message["thinking"] = said.reasoning
    if turn is not None and turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.parsed()}}
            for index, call in enumerate(turn.calls)
        ]
    return {"message": message}


def _response(delta: Delta | None, turn: Turn | None) -> Json:
    """Of ``/api/generate``."""
    said = delta if delta is not None else turn
    assert said is not None
    body: Json = {"response": said.text}
    return body | {"thinking": said.reasoning} if said.reasoning else body


def _figures(turn: Turn) -> Json:
    """In nanoseconds, as Ollama counts. A load is part of what came before the first token."""
    now = monotonic()
    first = turn.first_at if turn.first_at is not None else now
    return {
        "done_reason": "length" if turn.finish_reason == "length" else "stop",
        "total_duration": _ns(now - turn.began_at),
        "load_duration": 0,
        "prompt_eval_count": turn.prompt_tokens,
        "prompt_eval_duration": _ns(first - turn.began_at),
        "eval_count": turn.output_tokens,
        "eval_duration": _ns(now - first),
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _line(value: Json) -> bytes:
    return orjson.dumps(value) + b"\n"
