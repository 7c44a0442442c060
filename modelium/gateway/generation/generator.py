"""One generation, from the lease to the last piece: a model's name and a request enter, pieces of text leave.

Lease → request → Triton → pieces. The lease is held until the last piece was taken, or until the generator is closed: closing
it (a client that goes away does) cancels the request at Triton, and vLLM stops within a token or two.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from modelium.errors import InvalidBody, ModelGone, TritonUnavailable, UnknownModel
from modelium.gateway.generation import python_runtime, vllm_runtime
from modelium.gateway.generation.values import GenerationRequest, Piece
from modelium.gateway.generation.watching import while_serving
from modelium.gateway.http.deadline import Deadline
from modelium.metrics import Recorder
from modelium.values import Task

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease
    from modelium.triton.client import TritonClient

# As for other predictions: tried again when the model went away under it, but not for ever. A generation of which somebody has
# seen a word is not repeated: the words would be others.
ATTEMPTS = 3


class Generator:
    """Generates with whatever model it is asked for. One for the whole gateway."""

    def __init__(self, controller: Controller, client: TritonClient, recorder: Recorder) -> None:
        self._controller = controller
        self._client = client
        self._recorder = recorder

    async def stream(
        self, name: str, build: Callable[[Lease], GenerationRequest], deadline: Deadline
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of what ``name`` generates for ``build(lease)``; waits for the model's load first.

        The engine's limits are in ``lease.placement.engine``; ``build`` is called anew for each attempt and may refuse with
        ``InvalidBody``. Close this generator when it is not read to its end (``contextlib.aclosing``). Raises what
        ``Controller.lease`` and ``TritonClient.infer`` raise.
        """
        cold, waited_s = False, 0.0
        for attempt in range(1, ATTEMPTS + 1):
            with await self._controller.lease(name, timeout_s=deadline.remaining_s()) as lease:
                cold, waited_s = cold or lease.cold, waited_s + lease.waited_s
                request = build(lease)
                begun = False
                try:
                    async with aclosing(self._pieces(lease, request, deadline)) as pieces:
                        async for piece in pieces:
                            if not begun:
                                begun = True
                                self._begin(name, piece, deadline, waited_s if cold else None)
                            self._recorder.output_tokens(name, piece.output_tokens)
                            yield piece
                    return
                except (ModelGone, TritonUnavailable) as error:
                    self._controller.report_gone(name, str(error))
                    if begun or attempt == ATTEMPTS:
                        raise
            self._recorder.infer_retry(name)

    def waiting(self, name: str) -> str:
        """What a client that waits for ``name`` may be told meanwhile: ``llama is LOADING``."""
        try:
            return f"{name} is {self._controller.status(name).state.name}"
        except UnknownModel:
            return f"{name} is gone"  # its folder was taken away meanwhile; the lease will say so in a moment

    def _begin(self, name: str, piece: Piece, deadline: Deadline, cold_s: float | None) -> None:
        if cold_s is not None:
            self._recorder.cold_start(name, cold_s)
        self._recorder.first_token(name, deadline.elapsed_s(), piece.prompt_tokens or 0)

    async def _pieces(self, lease: Lease, request: GenerationRequest, deadline: Deadline) -> AsyncGenerator[Piece, None]:
        name = lease.profile.name
        if not lease.placement.by_vllm:
            if lease.profile.task not in (Task.TEXT_GENERATION, Task.IMAGE_TEXT_TO_TEXT):
                raise InvalidBody(f"{name!r} does {lease.profile.task.value}; it does not continue texts")
            inputs = python_runtime.tensors_of(request, lease.profile)
            yield python_runtime.piece_of(await self._client.infer(name, inputs, timeout_s=deadline.remaining_s()))
            return
        inputs = vllm_runtime.tensors_of(request, lease.placement.engine)
        read = vllm_runtime.PieceReader(request)
        async with aclosing(self._client.stream(name, inputs, timeout_s=deadline.remaining_s())) as responses:
            async for outputs in while_serving(responses, lambda: self._serves(name), name):
                yield read.piece(outputs)

    def _serves(self, name: str) -> bool:
        try:
            return self._controller.status(name).state.still_answers
        except UnknownModel:
            return True  # its folder was taken away; Triton answers to the end what it has begun
