"""The clients by name: where Modelium is and which model to ask enters, what the client says of the answer leaves.

A client's library is imported by the function that uses it, because not every environment has it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 240.0  # until a client is taken to hang; only one that does hang waits so long
ADDER, CHAT, EMBEDS, RANKS = "adder", "tiny-llama", "minilm", "ranker"


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """Where to ask. ``files``: pictures and sounds of the tests. ``page``: the port of the page on another origin."""

    http: str
    grpc: str
    model: str
    files: str
    page: int

    @property
    def netloc(self) -> str:
        return self.http.removeprefix("http://")

    @property
    def openai(self) -> str:
        return f"{self.http}/v1"

    @property
    def predict(self) -> str:
        """The model's own address."""
        return f"{self.http}/predict/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """``model``: which one it asks. ``ask`` returns what the client got, and raises what the client raises."""

    name: str
    model: str
    ask: Callable[[At], Any] | Callable[[At], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one question: an answer, or the client's own error with its words."""

    seconds: float
    answer: str = ""
    error: str = ""
    words: str = ""


CLIENTS: dict[str, Client] = {}


def asks(model: str, name: str) -> Callable[[Callable[[At], Any]], Callable[[At], Any]]:
    """Enter a function under a client's name."""

    def enter(ask: Callable[[At], Any]) -> Callable[[At], Any]:
        assert name not in CLIENTS, name
        CLIENTS[name] = Client(name=name, model=model, ask=ask)
        return ask

    return enter


def outcome_of(client: Client, at: At) -> Outcome:
    """Ask once. An assertion of the client's function is an error like any other."""
    began = time.perf_counter()
    try:
        answer = client.ask(at)
        if inspect.isawaitable(answer):
            answer = asyncio.run(_awaited(answer))
    except Exception as error:
        seconds = time.perf_counter() - began
        kind = type(error)
        return Outcome(seconds=seconds, error=f"{kind.__module__.partition('.')[0]}.{kind.__name__}", words=words_of(error))
    return Outcome(seconds=time.perf_counter() - began, answer=" ".join(str(answer).split())[:80] or "(nothing)")


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def words_of(error: BaseException) -> str:
    """What a user would read: the error and those that it comes of."""
    said: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(said) < 5:
        said.append(" ".join(str(seen).split()))
        text = None
        with suppress(Exception):  # of a stream that nobody has read, there is none
            text = getattr(getattr(seen, "response", None), "text", None)
        if isinstance(text, str) and text not in said[-1]:
            said.append(" ".join(text.split()))
        seen = seen.__cause__ or seen.__context__
    return " | ".join(said)[:600]
