"""One answer out of n generations: their pieces enter, JSON or server-sent events leave.

Chats and completions differ in how a piece becomes JSON alone: that is their ``Writer``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from aiohttp import web

from modelium.errors import ModeliumError
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation import Piece
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.events import EventStream
from modelium.gateway.openai.answers import DONE, Head, Json, chunk, event, usage_chunk, whole
from modelium.gateway.openai.errors import told
from modelium.gateway.openai.interleave import Stream, interleave
from modelium.gateway.openai.requests import StreamOptions
from modelium.gateway.openai.values import Usage


class Writer(Protocol):
    """Of one choice."""

    def chunk(self, piece: Piece) -> Json | None:
        """What a streamed answer says of ``piece``; None when nothing can be said yet."""

    def add(self, piece: Piece) -> None:
        """Keep ``piece`` for ``whole``."""

    def whole(self) -> Json:
        """The choice of an answer in one piece."""

    def beside(self) -> Json:
        """What the answer says beside its choices; each thing is said once."""

    def reasoning_tokens(self) -> int | None:
        """How many tokens of what was written so far were thoughts; None of a model that does not think."""


async def answer_whole(head: Head, writers: Sequence[Writer], streams: Sequence[Stream], per_prompt: int) -> web.Response:
    """One answer when all of ``streams`` have ended. Each gives the pieces of one choice, or of several (beam searches do)."""
    usage, several = Usage(), len(writers) // len(streams)
    async with aclosing(interleave(streams)) as pieces:
        async for index, piece in pieces:
            at = index * several + piece.sequence
            count(usage, at // per_prompt, piece)
            writers[at].add(piece)
    usage.reasoning_tokens = thought_tokens(writers)
    return json_response(whole(head, [writer.whole() for writer in writers], usage, writers[0].beside()))


async def answer_streamed(
    request: web.Request,
    head: Head,
    writers: Sequence[Writer],
    streams: Sequence[Stream],
    per_prompt: int,
    *,
    options: StreamOptions | None,
    deadline: Deadline,
    waiting: Callable[[], str],
) -> web.StreamResponse:
    """Nothing is sent before the first piece (or a second's silence), so an error up to there has its own status."""
    usage, several = Usage(), len(writers) // len(streams)
    include_usage = options is not None and bool(options.include_usage)
    continuous = include_usage and options is not None and bool(options.continuous_usage_stats)
    own = [Usage() for _ in writers]

    def beside(index: int) -> Json:
        """With usage every chunk has the field: what this choice took up to here, or null on all but the last."""
        said = writers[index].beside()
        return said | ({"usage": own[index].json() if continuous else None} if include_usage else {})

    def error_event(error: ModeliumError) -> bytes:
        """OpenAI's clients raise an APIError for it."""
        return event(told(error, request).body)

    async with EventStream(request, comment=waiting, error_event=error_event, deadline=deadline) as events:
        async with aclosing(interleave(streams)) as pieces:
            async for index, piece in pieces:
                at = index * several + piece.sequence
                count(usage, at // per_prompt, piece)
                count(own[at], 0, piece)
                if (choice := writers[at].chunk(piece)) is not None:
                    await events.send(chunk(head, choice, beside(at)))
        if include_usage:
            usage.reasoning_tokens = thought_tokens(writers)
            await events.send(usage_chunk(head, usage))
        await events.send(DONE)
    return events.response


def count(usage: Usage, prompt: int, piece: Piece) -> None:
    """Add what a piece says of tokens to ``usage``."""
    if piece.prompt_tokens is not None:
        usage.prompts[prompt] = piece.prompt_tokens
    usage.completion_tokens += piece.output_tokens
    if piece.cached is not None:
        usage.cached[prompt] = piece.cached


def thought_tokens(writers: Sequence[Writer]) -> int | None:
    """Of all choices together; None of a model that does not think."""
    counts = [count for writer in writers if (count := writer.reasoning_tokens()) is not None]
    return sum(counts) if counts else None
