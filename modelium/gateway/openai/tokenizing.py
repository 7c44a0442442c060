"""A model's tokenizer beside the controller, for what only it can do: token ids enter, text leaves; texts enter, counts leave.

Prompts are not tokenized here, the engine does that. What reads a model's tokenizer.json is a process of its own
(``token_process``): the library stops every thread of the process that it reads in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from modelium.gateway.deadline import Deadline
from modelium.gateway.openai.child_process import Child, ChildFailed, Children
from modelium.gateway.openai.errors import BadRequest
from modelium.values import ModelProfile

READ_SECONDS = 30.0
_WORK_SECONDS = 20.0
_TRIES = 2  # of a process that ended while it read: it may have had little memory left
_MOST_GIVEN_UP = 1000
_PROGRAM = Path(__file__).with_name("token_process.py")
# As many threads as texts of one request are worth, each with little address space of its own.
_ENVIRONMENT = {"RAYON_NUM_THREADS": "4", "MALLOC_ARENA_MAX": "2"}

_Answer = dict[str, Any]


class _Stopped(Exception):
    """What was asked took too much time or memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A text's tokens: their ids, and as the vocabulary has them."""

    ids: list[int]
    words: list[str]


@dataclass(slots=True)
class Tokenizing:
    """``close`` ends its processes."""

    read_seconds: float = READ_SECONDS
    _children: Children = field(default_factory=lambda: Children(_PROGRAM, _ENVIRONMENT))
    _given_up: dict[tuple[str, str], None] = field(default_factory=dict)  # revisions whose tokenizer takes too much to be read

    async def decode(self, profile: ModelProfile, tokens: Sequence[int], *, param: str, deadline: Deadline) -> str:
        """The text that a model reads as ``tokens``. Raises ``BadRequest``."""
        return await self._decode(profile, "tokens", tokens, param, deadline)

    async def spell(self, profile: ModelProfile, tokens: Sequence[int], *, param: str, deadline: Deadline) -> str:
        """The text of ``tokens`` as they stand, special ones included. Raises ``BadRequest``."""
        return await self._decode(profile, "spelt", tokens, param, deadline)

    async def _decode(self, profile: ModelProfile, how: str, tokens: Sequence[int], param: str, deadline: Deadline) -> str:
        what = {how: [token if 0 <= token < 2**32 else 0 for token in tokens]}
        try:
            vocabulary, answer = await self._ask_within(deadline, profile, what)
        except _Stopped:
            raise BadRequest(
                f"{param}: to read token ids for {profile.name!r} takes too much; send text", param=param
            ) from None
        if not vocabulary:
            raise BadRequest(f"{param}: {profile.name!r} has no tokenizer.json to read token ids with; send text", param=param)
        if any(not 0 <= token < vocabulary for token in tokens):
            raise BadRequest(f"{param}: {profile.name!r} has token ids from 0 to {vocabulary - 1}", param=param)
        if "text" not in answer:
            raise BadRequest(
                f"{param}: no text has these token ids in the tokenizer of {profile.name!r}, and it reads text; send that",
                param=param,
            )
        return str(answer["text"])

    async def encode(self, profile: ModelProfile, text: str, *, special: bool, param: str, deadline: Deadline) -> Encoded:
        """The tokens of ``text``; ``special``: with those that the tokenizer puts around it. Raises ``BadRequest``."""
        try:
            vocabulary, answer = await self._ask_within(deadline, profile, {"text": text, "special": special})
        except _Stopped:
            raise BadRequest(f"{param}: to tokenize this text takes too much; send a shorter one", param=param) from None
        if not vocabulary:
            raise BadRequest(f"model: {profile.name!r} has no tokenizer.json that can be read", param="model")
        if "ids" not in answer:
            raise BadRequest(
                f"{param}: the tokenizer of {profile.name!r} cannot read this text, or it is too long", param=param
            )
        return Encoded(ids=answer["ids"], words=answer["words"])

    async def count(self, profile: ModelProfile, texts: Sequence[str | tuple[str, str]], *, within_s: float) -> int:
        """How many tokens the model reads of texts or pairs, special ones included; 0 where that is not to be had in time."""
        try:
            async with asyncio.timeout(within_s):
                _, answer = await self._ask(profile, {"texts": list(texts), "limit": profile.max_length})
        except (_Stopped, TimeoutError, ChildFailed):
            return 0
        return int(answer.get("count", 0))

    async def close(self) -> None:
        """End its processes."""
        await self._children.close()

    async def _ask_within(self, deadline: Deadline, profile: ModelProfile, what: Mapping[str, object]) -> tuple[int, _Answer]:
        """Others may ask the same tokenizer: who comes later waits, as long as its request may last."""
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                return await self._ask(profile, what)
        except TimeoutError:
            raise deadline.exceeded(" of the tokenizer") from None

    async def _ask(self, profile: ModelProfile, what: Mapping[str, object]) -> tuple[int, _Answer]:
        """How large the vocabulary is (0: there is none to be read), and the answer."""
        # The process ends itself a little later than it is ended: that is for when the controller is gone.
        seconds = self.read_seconds + _WORK_SECONDS + 1
        file, request = await asyncio.to_thread(_written, profile, {**what, "seconds": seconds})
        key = (file, profile.fingerprint)
        for _ in range(_TRIES):
            if key in self._given_up:
                raise _Stopped
            async with self._children.one(file) as child:
                try:
                    vocabulary = await self._read(child, request)
                except TimeoutError:
                    break
                except (EOFError, ConnectionError, ValueError):
                    continue
                return vocabulary, await self._rest(child)
        self._given_up[key] = None
        if len(self._given_up) > _MOST_GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]
        raise _Stopped

    async def _read(self, child: Child, request: bytes) -> int:
        async with asyncio.timeout(self.read_seconds):
            await child.send(request)
            return int(orjson.loads(await child.receive()).get("vocabulary", 0))

    async def _rest(self, child: Child) -> _Answer:
        try:
            async with asyncio.timeout(_WORK_SECONDS):
                answer: _Answer = orjson.loads(await child.receive())
        except (TimeoutError, EOFError, ConnectionError, ValueError):
            raise _Stopped from None
        child.keep = True
        return answer


def _written(profile: ModelProfile, what: Mapping[str, object]) -> tuple[str, bytes]:
    """The file and the request, in a thread: the disk may be slow, the texts many."""
    folder = profile.path if profile.path.is_dir() else profile.path.parent
    file = str((folder / "tokenizer.json").absolute())
    return file, orjson.dumps({**what, "file": file, "fingerprint": profile.fingerprint})
