"""One answer from a model that answers in one piece: a way to make its tensors enters, its outputs leave.

Lease → tensors → Triton, in as many inferences as the batch size asks for, and again when the model went away meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelium.errors import ModelGone, TritonUnavailable
from modelium.gateway.codecs import Call, Tensors
from modelium.gateway.codecs.finite import check_finite
from modelium.gateway.generation.watching import unless_lost
from modelium.gateway.http.deadline import Deadline
from modelium.metrics import Recorder
from modelium.values import Runtime

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease
    from modelium.triton.client import TritonClient

# Inference is idempotent, so it is tried again when the model went away under it. A request that kills its stub each time
# must end, though, for each reload hurts everybody else.
ATTEMPTS = 3
# Chunks of one request that may be under way at once beside those that the instances work on: enough to keep them busy, too
# few for a request of 10,000 texts to fill the model's queue and starve the others.
SPARE_CHUNKS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """``outputs`` of all chunks of ``call``, in order. ``waited_s`` for a load; ``cold``: there was one."""

    call: Call
    outputs: Sequence[Tensors]
    cold: bool
    waited_s: float

    @property
    def headers(self) -> dict[str, str]:
        return waited_headers(self.waited_s, cold=self.cold)


class Inference:
    """Asks models. One for the whole gateway."""

    def __init__(self, controller: Controller, client: TritonClient, recorder: Recorder) -> None:
        self._controller = controller
        self._client = client
        self._recorder = recorder

    async def infer(self, name: str, make: Callable[[Lease], Awaitable[Call]], deadline: Deadline) -> Inferred:
        """What ``name`` makes of ``make(lease)``. Raises what ``Controller.lease``, ``make`` and the client raise."""
        cold, waited_s = False, 0.0
        for attempt in range(1, ATTEMPTS + 1):
            with await self._controller.lease(name, timeout_s=deadline.remaining_s()) as lease:
                cold, waited_s = cold or lease.cold, waited_s + lease.waited_s
                call = await make(lease)
                try:
                    asking = self._infer(lease, call, deadline)
                    rays = lease.placement.runtime is Runtime.RAY
                    outputs = await (unless_lost(asking, lease.lost, name) if rays else asking)
                    check_finite(lease.profile, outputs)
                    break
                except (ModelGone, TritonUnavailable) as error:
                    self._controller.report_gone(name, str(error))
                    if attempt == ATTEMPTS:
                        raise
            self._recorder.infer_retry(name)
        if cold:
            self._recorder.cold_start(name, waited_s)
        return Inferred(call=call, outputs=outputs, cold=cold, waited_s=waited_s)

    async def _infer(self, lease: Lease, call: Call, deadline: Deadline) -> list[Tensors]:
        """The first failure cancels the other chunks."""
        name, placement = lease.profile.name, lease.placement
        chunks = call.chunks(max(1, placement.max_batch_size))
        if len(chunks) == 1:
            return [await self._client.infer(name, chunks[0], timeout_s=deadline.remaining_s())]
        slots = asyncio.Semaphore(placement.instance_count + SPARE_CHUNKS)

        async def infer(chunk: Tensors) -> Tensors:
            async with slots:
                return await self._client.infer(name, chunk, timeout_s=deadline.remaining_s())

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(infer(chunk)) for chunk in chunks]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]


def waited_headers(waited_s: float, *, cold: bool) -> dict[str, str]:
    """What the client is told of a load that it waited for."""
    return {"X-Modelium-Waited-Ms": f"{waited_s * 1000:.0f}"} | ({"X-Modelium-Cold": "1"} if cold else {})
