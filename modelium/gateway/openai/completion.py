"""``POST /v1/completions``: prompts enter, what follows them leaves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.gateway.asking import Asking
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation import GenerationRequest
from modelium.gateway.generation.values import MOST_GENERATIONS
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, EVENTS, Reply, describes
from modelium.gateway.openai import shapes
from modelium.gateway.openai.answering import answer_streamed, answer_whole
from modelium.gateway.openai.answers import new_head
from modelium.gateway.openai.completion_choice import CompletionWriter
from modelium.gateway.openai.directory import Directory, Served, require
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.interleave import Stream
from modelium.gateway.openai.own_words import has_own_words, require_beams
from modelium.gateway.openai.reading import ignore, read_request
from modelium.gateway.openai.requests import CompletionRequest
from modelium.gateway.openai.sampling import Sampling, max_tokens, sampling_of, seed_of, unheard
from modelium.gateway.openai.tokenizing import Tokenizing
from modelium.values import JsonValue, ModelProfile

if TYPE_CHECKING:
    from modelium.controller import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """``ids``: it was sent as those. ``fault``: why they have no text, where they have none."""

    text: str = ""
    ids: tuple[int, ...] | None = None
    fault: BadRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Completions that are asked as soon as their streams are read, in whatever words they are answered."""

    served: Served
    prompts: list[Prompt]
    streams: list[Stream]  # n for each prompt, or one of n beams


class Completion:
    """The handler."""

    def __init__(
        self, directory: Directory, asking: Asking, tokenizing: Tokenizing, *, timeout_s: float, own_vllm: bool = True
    ) -> None:
        """``own_vllm``: the server's vLLM backend is Modelium's, which has words of its own."""
        self._directory = directory
        self._asking = asking
        self._tokenizing = tokenizing
        self._timeout_s = timeout_s
        self._own_vllm = own_vllm

    @describes(
        "A plain prompt, continued.",
        takes=CompletionRequest,
        gives=shapes.Completion,
        also=(Reply(content_type=EVENTS, says="with `stream`: chunks, then `[DONE]`"),),
        fails=ASKING,
        example={"model": "NAME", "prompt": "Once upon a time", "max_tokens": 16},
    )
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``. Raises ``BadRequest`` and what the generator raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(CompletionRequest, request, deadline)
        begun = await self.begin(request, asked, deadline)
        served, prompts, streams, n = begun.served, begun.prompts, begun.streams, asked.choices
        writers = [
            CompletionWriter(at * n + index, asked, prompt.text) for at, prompt in enumerate(prompts) for index in range(n)
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
            options=asked.stream_options,
            deadline=deadline,
            waiting=lambda: self._asking.waiting(served.name),
        )

    async def begin(self, request: web.Request, asked: CompletionRequest, deadline: Deadline) -> Begun:
        """Look the model up and read the prompts for it; nothing is loaded yet. Raises ``BadRequest``."""
        if asked.max_tokens == 0 and not asked.echo:
            raise BadRequest("max_tokens: must be at least 1, found 0", param="max_tokens")
        served = await self._directory.find(request, asked.model, deadline)
        require(served, lambda row: row.generates, "completions")
        self._check(asked, served)
        prompts = await self._prompts(asked, served, deadline)
        language = served.profile.language
        sampling = sampling_of(asked, language.generation_defaults if language is not None else {})
        ignore(request, *unheard(asked))
        n = 1 if asked.use_beam_search else asked.choices  # one stream has all its beams
        streams = [
            self._asking.generate(served.name, partial(self._generation, asked, served, prompt, sampling, index), deadline)
            for prompt in prompts
            for index in range(n)
        ]
        return Begun(served=served, prompts=prompts, streams=streams)

    async def _prompts(self, asked: CompletionRequest, served: Served, deadline: Deadline) -> list[Prompt]:
        """Token ids stay what they are for an engine that takes them. For others they become the text that they spell: now,
        where it is not known yet who will answer."""
        sent = asked.prompt
        if not sent:
            raise BadRequest(f"prompt: {'the text' if sent == '' else 'the list'} is empty", param="prompt")
        if isinstance(sent, str):
            return [Prompt(text=sent)]
        if isinstance(sent[0], str):
            return [Prompt(text=each) for each in sent if isinstance(each, str)]
        rows = [_ids(sent)] if isinstance(sent[0], int) else [each for each in sent if isinstance(each, list)]
        placement = self._directory.controller.status(served.name).placement
        if placement is not None and has_own_words(placement, own_vllm=self._own_vllm):
            return [Prompt(ids=tuple(row)) for row in rows]
        return [await self._spelled(row, served, deadline, known=placement is not None) for row in rows]

    async def _spelled(self, row: list[int], served: Served, deadline: Deadline, *, known: bool) -> Prompt:
        try:
            text = await self._tokenizing.decode(served.profile, row, param="prompt", deadline=deadline)
            return Prompt(text=text, ids=tuple(row))
        except BadRequest as fault:
            if known:
                raise
            return Prompt(ids=tuple(row), fault=fault)

    def _generation(
        self, asked: CompletionRequest, served: Served, prompt: Prompt, sampling: Sampling, index: int, lease: Lease
    ) -> GenerationRequest:
        engine = lease.placement.engine
        own: dict[str, JsonValue] = dict(sampling)
        own["max_tokens"] = max_tokens(asked, engine.max_model_len if engine is not None else lease.profile.max_length)
        if (seed := seed_of(asked, index)) is not None:
            own["seed"] = seed
        own_words = has_own_words(lease.placement, own_vllm=self._own_vllm)
        require_beams(asked, lease, own_words=own_words)
        by_ids = prompt.ids is not None and own_words
        if not by_ids and prompt.fault is not None:
            raise prompt.fault
        return GenerationRequest(
            prompt="" if by_ids else prompt.text,
            prompt_ids=prompt.ids if by_ids else None,
            sampling=own,
            adapter=served.adapter,
            logprobs="logprobs" in sampling or "logprob_token_ids" in sampling,
            details=asked.wants_details and lease.placement.by_vllm,
            facts=own_words,
        )

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


async def prompts_of(
    sent: str | list[int] | list[str] | list[list[int]],
    profile: ModelProfile,
    param: str,
    tokenizing: Tokenizing,
    deadline: Deadline,
) -> list[str]:
    """Texts; token ids become the text that they spell, for the engine takes text."""
    if isinstance(sent, str):
        return [sent]
    if not sent:
        raise BadRequest(f"{param}: the list is empty", param=param)
    if isinstance(sent[0], int):
        return [await tokenizing.decode(profile, _ids(sent), param=param, deadline=deadline)]
    if isinstance(sent[0], str):
        return [item for item in sent if isinstance(item, str)]
    return [await tokenizing.decode(profile, item, param=param, deadline=deadline) for item in sent if isinstance(item, list)]


def _ids(sent: list[int] | list[str] | list[list[int]]) -> list[int]:
    return [item for item in sent if isinstance(item, int)]
