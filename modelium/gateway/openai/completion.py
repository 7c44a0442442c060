"""``POST /v1/completions``: prompts enter, what follows them leaves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.gateway.asking import Asking
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation import GenerationRequest, Piece, TokenLogprob
from modelium.gateway.generation.values import MOST_GENERATIONS
from modelium.gateway.http.counting import MODEL
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.openai.answering import answer_streamed, answer_whole
from modelium.gateway.openai.answers import CompletionLogprobs, Json, new_head
from modelium.gateway.openai.choices import finish_reason
from modelium.gateway.openai.directory import Directory, Served, require
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.interleave import Stream
from modelium.gateway.openai.reading import read_request
from modelium.gateway.openai.requests import CompletionRequest
from modelium.gateway.openai.sampling import Sampling, max_tokens, sampling_of, seed_of
from modelium.gateway.openai.tokenizing import Tokenizing
from modelium.values import JsonValue, ModelProfile

if TYPE_CHECKING:
    from modelium.controller import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Completions that are asked as soon as their streams are read, in whatever words they are answered."""

    served: Served
    prompts: list[str]
    streams: list[Stream]  # n for each prompt


class Completion:
    """The handler."""

    def __init__(self, directory: Directory, asking: Asking, tokenizing: Tokenizing, *, timeout_s: float) -> None:
        self._directory = directory
        self._asking = asking
        self._tokenizing = tokenizing
        self._timeout_s = timeout_s

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``. Raises ``BadRequest`` and what the generator raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(CompletionRequest, request, deadline)
        begun = await self.begin(request, asked, deadline)
        served, prompts, streams, n = begun.served, begun.prompts, begun.streams, asked.choices
        writers = [
            _CompletionWriter(at * n + index, prompt if asked.echo else "", asked.logprobs)
            for at, prompt in enumerate(prompts)
            for index in range(n)
        ]
        head = new_head("text_completion", asked.model, served.fingerprint)
        if not asked.stream:
            return await answer_whole(head, writers, streams, n)
        return await answer_streamed(
            request,
            head,
            writers,
            streams,
            n,
            include_usage=asked.include_usage,
            deadline=deadline,
            waiting=lambda: self._asking.waiting(served.name),
        )

    async def begin(self, request: web.Request, asked: CompletionRequest, deadline: Deadline) -> Begun:
        """Look the model up and read the prompts for it; nothing is loaded yet. Raises ``BadRequest``."""
        if asked.echo and asked.logprobs is not None:
            raise BadRequest("logprobs: those of an echoed prompt are not offered; leave echo out", param="logprobs")
        served = await self._directory.find(asked.model, deadline)
        request[MODEL] = served.name
        require(served, lambda row: row.generates, "completions")
        self._check(asked, served)
        prompts = await prompts_of(asked.prompt, served.profile, "prompt", self._tokenizing)
        language = served.profile.language
        sampling = sampling_of(asked, language.generation_defaults if language is not None else {})
        n = asked.choices
        streams = [
            self._asking.generate(served.name, partial(_generation, asked, served, prompt, sampling, index), deadline)
            for prompt in prompts
            for index in range(n)
        ]
        return Begun(served=served, prompts=prompts, streams=streams)

    def _check(self, asked: CompletionRequest, served: Served) -> None:
        """What would fail later is refused before anything is loaded for it."""
        prompts = 1 if isinstance(asked.prompt, str) or isinstance(next(iter(asked.prompt), ""), int) else len(asked.prompt)
        if (wanted := prompts * asked.choices) > MOST_GENERATIONS:
            raise BadRequest(
                f"prompt: one request makes at most {MOST_GENERATIONS} generations, found {wanted}", param="prompt"
            )
        if not served.profile.task.row.continues:
            placement = self._directory.controller.status(served.name).placement
            if placement is None or not placement.by_vllm:
                said = f"model: {served.name!r} does {served.profile.task.value}, it does not continue texts"
                raise BadRequest(f"{said}; ask POST /predict/{served.name}", param="model", code="unsupported_model")


class _CompletionWriter:
    """A choice of a completion as JSON."""

    def __init__(self, index: int, echo: str, alternatives: int | None) -> None:
        self._index = index
        self._text = [echo] if echo else []
        self._pending = echo
        self._tokens: list[TokenLogprob] = []
        self._reason: str | None = None
        self._logprobs = CompletionLogprobs(len(echo)) if alternatives is not None else None

    def chunk(self, piece: Piece) -> Json | None:
        text, self._pending = self._pending + piece.text, ""
        if not (text or piece.finish_reason or piece.logprobs):
            return None
        return self._json(text, piece.logprobs, finish_reason(piece))

    def add(self, piece: Piece) -> None:
        self._text.append(piece.text)
        self._tokens += piece.logprobs
        self._reason = finish_reason(piece) or self._reason

    def whole(self) -> Json:
        return self._json("".join(self._text), self._tokens, self._reason or "stop")

    def reasoning_tokens(self) -> int | None:
        return None

    def _json(self, text: str, tokens: list[TokenLogprob] | tuple[TokenLogprob, ...], reason: str | None) -> Json:
        logprobs = self._logprobs.json(tokens) if self._logprobs is not None else None
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": reason}


async def prompts_of(
    sent: str | list[int] | list[str] | list[list[int]], profile: ModelProfile, param: str, tokenizing: Tokenizing
) -> list[str]:
    """Texts; token ids become the text that they spell, for the engine takes text."""
    if isinstance(sent, str):
        return [sent]
    if not sent:
        raise BadRequest(f"{param}: the list is empty", param=param)
    if isinstance(sent[0], int):
        return [await tokenizing.decode(profile, _ids(sent), param=param)]
    if isinstance(sent[0], str):
        return [item for item in sent if isinstance(item, str)]
    return [await tokenizing.decode(profile, item, param=param) for item in sent if isinstance(item, list)]


def _ids(sent: list[int] | list[str] | list[list[int]]) -> list[int]:
    return [item for item in sent if isinstance(item, int)]


def _generation(
    asked: CompletionRequest, served: Served, prompt: str, sampling: Sampling, index: int, lease: Lease
) -> GenerationRequest:
    engine = lease.placement.engine
    own: dict[str, JsonValue] = dict(sampling)
    own["max_tokens"] = max_tokens(asked, engine.max_model_len if engine is not None else lease.profile.max_length)
    if (seed := seed_of(asked, index)) is not None:
        own["seed"] = seed
    return GenerationRequest(prompt=prompt, sampling=own, adapter=served.adapter, logprobs="logprobs" in sampling)
