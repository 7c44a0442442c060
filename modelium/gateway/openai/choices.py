"""One choice of an answer: pieces of generated text enter, deltas of a chat leave: text, thoughts, tool calls.

A whole answer is the sum of the deltas of a streamed one, so the two cannot differ.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from typing import Protocol

import orjson

from modelium.gateway.generation import Piece, TokenLogprob
from modelium.gateway.openai.reasoning import Thoughts
from modelium.gateway.openai.tool_calls import Call, CallStream, Family, Part, Scanner
from modelium.gateway.openai.values import CallDelta, Delta

_LETTERS = string.ascii_letters + string.digits


class Reader(Protocol):
    """Makes text and tool calls of what a model writes. ``called``: it wrote one of its own accord."""

    @property
    def called(self) -> bool:
        """Was a tool called?"""

    def feed(self, text: str) -> Delta:
        """What the next piece of text brings."""

    def finish(self) -> Delta:
        """What was held back until the end."""


class ChatChoice:
    """Feed it every piece, in order."""

    def __init__(self, reader: Reader, thoughts: Thoughts | None = None, *, shows_thoughts: bool = True) -> None:
        self._reader = reader
        self._thoughts = thoughts
        self._shows_thoughts = shows_thoughts
        self._thought_tokens = 0
        self._logprobs: list[TokenLogprob] = []

    @property
    def reasoning_tokens(self) -> int | None:
        """How many tokens were thoughts, their marks not counted; None of a model that does not think."""
        return self._thought_tokens if self._thoughts is not None else None

    def take(self, piece: Piece) -> Delta:
        """What ``piece`` adds; nothing while it may still become a marker. Log-probabilities wait for the next text."""
        self._logprobs += piece.logprobs
        thought, answer = self._thoughts.feed(piece.text) if self._thoughts is not None else ("", piece.text)
        if self._thoughts is not None:
            self._thought_tokens += self._thoughts.tokens_of(piece.output_tokens)
        found = [self._reader.feed(answer)]
        reason = None
        if piece.finish_reason is not None:
            if self._thoughts is not None:
                more, answer = self._thoughts.finish()
                thought += more
                found.append(self._reader.feed(answer))
            found.append(self._reader.finish())
            reason = finish_reason(piece)
            if reason == "stop" and self._reader.called:
                reason = "tool_calls"
        delta = Delta(
            text="".join(part.text for part in found),
            reasoning=thought if self._shows_thoughts else "",
            calls=tuple(call for part in found for call in part.calls),
            finish_reason=reason,
        )
        if not delta:
            return delta
        logprobs, self._logprobs = tuple(self._logprobs), []
        return Delta(text=delta.text, reasoning=delta.reasoning, calls=delta.calls, logprobs=logprobs, finish_reason=reason)


def finish_reason(piece: Piece) -> str | None:
    """OpenAI's word: everything that ends a text on purpose is ``stop``."""
    return piece.finish_reason if piece.finish_reason in (None, "length") else "stop"


class Plain:
    """Text is text."""

    called = False

    def feed(self, text: str) -> Delta:
        """All of it is text."""
        return Delta(text=text)

    def finish(self) -> Delta:
        """Nothing was held back."""
        return Delta()


class Automatic:
    """The model calls tools when it wants to, in the way of its family."""

    def __init__(self, family: Family, *, parallel: bool, in_parts: bool = False) -> None:
        self._scanner = Scanner(family, in_parts=in_parts)
        self._family = family
        self._parallel = parallel
        self._count = 0

    @property
    def called(self) -> bool:
        """Was a tool called?"""
        return self._count > 0

    def feed(self, text: str) -> Delta:
        """Text and calls, as the model's family writes them."""
        return self._delta(self._scanner.feed(text))

    def finish(self) -> Delta:
        """What might have become a call and did not."""
        return self._delta(self._scanner.finish())

    def _delta(self, found: Sequence[str | Call | Part]) -> Delta:
        calls: list[CallDelta] = []
        for item in found:
            if isinstance(item, str):
                continue
            self._count += bool(item.name)
            if self._parallel or self._count == 1:
                calls.append(_part(item, self._count - 1, self._family))
        return Delta(text="".join(item for item in found if isinstance(item, str)), calls=tuple(calls))


class Named:
    """The client named the function: the whole text is its arguments. OpenAI says ``stop`` then, not ``tool_calls``."""

    called = False

    def __init__(self, name: str, family: Family | None) -> None:
        self._first: CallDelta | None = CallDelta(index=0, id=_new_id(family), name=name, arguments="")

    def feed(self, text: str) -> Delta:
        """Each text is a part of the one call's arguments."""
        if not text:
            return Delta()
        first, self._first = self._first, None
        if first is not None:
            return Delta(calls=(CallDelta(index=0, id=first.id, name=first.name, arguments=text),))
        return Delta(calls=(CallDelta(index=0, arguments=text),))

    def finish(self) -> Delta:
        """The call, where it has no arguments."""
        return Delta(calls=(self._first,) if self._first is not None else ())


class Required:
    """Some call must be made: the text is a list of ``{"name", "parameters"}``, each given out while it is written."""

    def __init__(self, family: Family | None) -> None:
        self._family = family
        self._text = ""
        self._stream = CallStream()
        self.called = False

    def feed(self, text: str) -> Delta:
        """What it says of calls."""
        self._text += text
        begun = self._stream.begun
        calls: list[CallDelta] = []
        for part in self._stream.feed(text):
            begun += bool(part.name)
            calls.append(_part(part, begun - 1, self._family))
        self.called = begun > 0
        return Delta(calls=tuple(calls))

    def finish(self) -> Delta:
        """What was written in another form; text where the list was cut short before a call began."""
        begun = self._stream.begun
        try:
            written = [
                Call(name=call["name"], arguments=orjson.dumps(call["parameters"]).decode())
                for call in orjson.loads(self._text)
            ]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return Delta(text="" if begun else self._text)  # cut off at max_tokens
        self.called = bool(written)
        return Delta(calls=tuple(_part(call, at, self._family) for at, call in enumerate(written) if at >= begun))


def _part(item: Call | Part, index: int, family: Family | None) -> CallDelta:
    """With an id where it is the beginning of a call."""
    return CallDelta(index=index, id=_new_id(family) if item.name else "", name=item.name, arguments=item.arguments)


def _new_id(family: Family | None) -> str:
    """Mistral's templates take ids of nine letters and digits only."""
    if family is not None and family.short_ids:
        return "".join(secrets.choice(_LETTERS) for _ in range(9))
    return "call_" + secrets.token_hex(12)
