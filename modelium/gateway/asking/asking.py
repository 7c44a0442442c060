"""The one loop of asking a model: lease → try → report that it is gone → try again, until the deadline.

What enters is a model's name and what to do with a lease of it; what leaves is what that gives. The lease is held until the
last part was taken, or until the generator is closed: closing it (a client that goes away does) cancels the request at Triton.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from modelium.errors import ModelGone, NotExecuted, TritonUnavailable, UnknownModel
from modelium.gateway.asking import answers
from modelium.gateway.codecs import Call, Tensors
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation import GenerationRequest, Piece
from modelium.metrics import Recorder

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease
    from modelium.triton.client import TritonClient

T = TypeVar("T")

# Inference is idempotent, so it is tried again when the model went away under it. A request that kills its stub each time
# must end, though, for each reload hurts everybody else.
ATTEMPTS = 3


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Waited:
    """What a request waited for loads, over all its attempts; ``cold``: there was one."""

    seconds: float = 0.0
    cold: bool = False

    def add(self, lease: Lease) -> None:
        """One more lease was waited for."""
        self.cold = self.cold or lease.cold
        self.seconds += lease.waited_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Generic[T]):
    """An answer in one piece."""

    answer: T
    waited: Waited


class Asking:
    """Asks models. One for the whole gateway.

    Everything raises what ``Controller.lease`` and the client raise, and what the callables that it is given raise.
    """

    def __init__(self, controller: Controller, client: TritonClient, recorder: Recorder) -> None:
        self._controller = controller
        self._client = client
        self._recorder = recorder

    async def each(
        self,
        name: str,
        ask: Callable[[Lease], AsyncGenerator[T, None]],
        deadline: Deadline,
        *,
        waited: Waited | None = None,
        attempts: int = ATTEMPTS,
        on_wait: Callable[[], None] = _nothing,
    ) -> AsyncGenerator[T, None]:
        """The parts of the answer that ``ask`` gets with a lease of ``name``; waits for the model's load first.

        An answer of which somebody has seen a part is not asked for again: the parts would be others. ``waited`` is told what
        there was to wait for before the first part comes, ``on_wait`` is called before it waits. Close this generator when it
        is not read to its end.
        """
        waited = waited if waited is not None else Waited()
        for attempt in range(1, attempts + 1):
            with await self._controller.lease(name, timeout_s=deadline.remaining_s(), on_wait=on_wait) as lease:
                waited.add(lease)
                begun = False
                try:
                    async with aclosing(ask(lease)) as parts:
                        async for part in parts:
                            if not begun and waited.cold:
                                self._recorder.cold_start(name, waited.seconds)
                            begun = True
                            yield part
                    return
                except (ModelGone, TritonUnavailable) as error:
                    self._controller.report_gone(name, str(error))
                    if begun or attempt == attempts:
                        raise
            self._recorder.infer_retry(name)

    async def once(
        self,
        name: str,
        ask: Callable[[Lease], Awaitable[T]],
        deadline: Deadline,
        *,
        on_wait: Callable[[], None] = _nothing,
    ) -> Asked[T]:
        """The answer in one piece that ``ask`` gets with a lease of ``name``; ``on_wait`` is called before it waits for one."""

        async def whole(lease: Lease) -> AsyncGenerator[T, None]:
            yield await ask(lease)

        waited = Waited()
        async with aclosing(self.each(name, whole, deadline, waited=waited, on_wait=on_wait)) as parts:
            return Asked(answer=await anext(parts), waited=waited)

    async def hold(self, name: str, ask: Callable[[Lease], Awaitable[T]], deadline: Deadline, waited: Waited) -> T:
        """What ``ask`` does with a lease of ``name``, which it has until it returns: for what somebody else has written.

        Such a request is sent again where it was certainly not executed (``NotExecuted``), never otherwise: what it does in
        the model is unknown here. ``waited`` is told what there was to wait for before ``ask`` is called.
        """
        for attempt in range(1, ATTEMPTS + 1):
            with await self._controller.lease(name, timeout_s=deadline.remaining_s()) as lease:
                waited.add(lease)
                try:
                    answer = await ask(lease)
                except (ModelGone, TritonUnavailable) as error:
                    self._controller.report_gone(name, str(error))
                    if attempt == ATTEMPTS or not isinstance(error, NotExecuted):
                        raise
                else:
                    if waited.cold:
                        self._recorder.cold_start(name, waited.seconds)
                    return answer
            self._recorder.infer_retry(name)
        raise AssertionError("the last attempt returns or raises")

    async def infer(self, lease: Lease, call: Call, deadline: Deadline) -> Sequence[Tensors]:
        """What the leased model makes of ``call``, in as many inferences as its batch size asks for, in order."""
        return await answers.outputs_of(self._client, lease, call, deadline)

    async def generate(
        self, name: str, build: Callable[[Lease], GenerationRequest], deadline: Deadline
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of what ``name`` generates for ``build(lease)``, which is called anew for each attempt.

        The engine's limits are in ``lease.placement.engine``.
        """

        def ask(lease: Lease) -> AsyncGenerator[Piece, None]:
            return answers.pieces_of(self._client, lease, build(lease), deadline, lambda: self.serves(name))

        begun = False
        async with aclosing(self.each(name, ask, deadline)) as pieces:
            async for piece in pieces:
                if not begun:
                    self._recorder.first_token(name, deadline.elapsed_s(), piece.prompt_tokens or 0)
                begun = True
                self._recorder.output_tokens(name, piece.output_tokens)
                yield piece

    def stream(self, lease: Lease, inputs: Tensors, deadline: Deadline) -> AsyncGenerator[Tensors, None]:
        """What the leased model answers to ``inputs``, response by response, as long as it serves."""
        name = lease.profile.name
        return answers.responses_of(self._client, name, inputs, deadline, lambda: self.serves(name))

    def waiting(self, name: str) -> str:
        """What a client that waits for ``name`` may be told meanwhile: ``llama is LOADING``."""
        try:
            return f"{name} is {self._controller.status(name).state.name}"
        except UnknownModel:
            return f"{name} is gone"  # its folder was taken away meanwhile; the lease will say so in a moment

    def serves(self, name: str) -> bool:
        """May an answer of ``name`` that has begun go on?"""
        try:
            return self._controller.status(name).state.still_answers
        except UnknownModel:
            return True  # its folder was taken away; Triton answers to the end what it has begun
