"""A chat that is under way for a neighbour's client: pieces of generated text enter, deltas leave, and what they add up to."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from time import monotonic

import orjson

from modelium.gateway.openai.answers import is_json
from modelium.gateway.openai.chat import Begun
from modelium.gateway.openai.choices import ChatChoice, Plain
from modelium.gateway.openai.interleave import Stream
from modelium.gateway.openai.values import CallDelta, Delta


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeCall:
    """A whole call of a tool; ``arguments`` is JSON."""

    id: str
    name: str
    arguments: str

    def parsed(self) -> dict[str, object]:
        """The arguments as an object; those that are none under one name."""
        try:
            found = orjson.loads(self.arguments or "{}")
        except orjson.JSONDecodeError:
            found = self.arguments
        return found if isinstance(found, dict) else {"arguments": found}


@dataclass(slots=True)
class Turn:
    """One answer of a chat, or the text that continues a bare prompt. Read its ``deltas`` once; the rest is what was said so
    far."""

    stream: Stream
    choice: ChatChoice
    text: str = ""
    reasoning: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    output_tokens: int = 0
    stop_text: str | None = None  # that ended it
    cached_tokens: int = 0  # of the prompt, where the engine told
    began_at: float = field(default_factory=monotonic)
    first_at: float | None = None
    _calls: dict[int, tuple[CallDelta, list[str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, begun: Begun) -> Turn:
        """The one answer that ``begun`` was asked for."""
        [stream] = begun.streams
        return cls(stream=stream, choice=begun.ready.choice())

    @classmethod
    def of_text(cls, stream: Stream) -> Turn:
        """What is generated is text, whatever it looks like."""
        return cls(stream=stream, choice=ChatChoice(Plain()))

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """What each piece adds, where it adds something."""
        async with aclosing(self.stream) as pieces:
            async for piece in pieces:
                self.first_at = self.first_at if self.first_at is not None else monotonic()
                self.prompt_tokens = piece.prompt_tokens if piece.prompt_tokens is not None else self.prompt_tokens
                self.output_tokens += piece.output_tokens
                self.stop_text = piece.stop_reason if isinstance(piece.stop_reason, str) else self.stop_text
                self.cached_tokens = piece.cached if piece.cached is not None else self.cached_tokens
                if delta := self.choice.take(piece):
                    self._add(delta)
                    yield delta

    async def whole(self) -> None:
        """Read all of it."""
        async with aclosing(self.deltas()) as deltas:
            async for _ in deltas:
                pass
        self.end()

    def end(self) -> None:
        """All is said: half a call, which nobody may run, is text."""
        if self._calls and not is_json(half := "".join(self._calls[max(self._calls)][1])):
            del self._calls[max(self._calls)]
            self.text += half

    @property
    def calls(self) -> list[MadeCall]:
        """The calls of tools, as far as they are there."""
        return [MadeCall(id=first.id, name=first.name, arguments="".join(parts)) for first, parts in self._calls.values()]

    @property
    def reasoning_tokens(self) -> int:
        """How many of the tokens were thoughts."""
        return self.choice.reasoning_tokens or 0

    def _add(self, delta: Delta) -> None:
        self.text += delta.text
        self.reasoning += delta.reasoning
        for call in delta.calls:
            self._calls.setdefault(call.index, (call, []))[1].append(call.arguments)
        self.finish_reason = delta.finish_reason or self.finish_reason
