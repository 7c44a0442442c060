"""``POST /predict/{model}``: a body in Hugging Face's schema enters, the task's usual output shape leaves.

Body → codec → lease → Triton → codec. Time spent on the upload, on waiting for the load and on retries all counts against
one deadline. A cancelled handler (the client went away) cancels the gRPC call and releases the lease on its way out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.errors import ModelGone, TritonUnavailable
from modelium.gateway.answer import json_response
from modelium.gateway.codecs import Call, Tensors, encode
from modelium.gateway.counting import MODEL
from modelium.gateway.deadline import Deadline, deadline_of
from modelium.gateway.errors import MAX_BODY_BYTES
from modelium.gateway.names import model_of
from modelium.metrics import Recorder

if TYPE_CHECKING:
    from modelium.controller import Controller, Lease
    from modelium.triton.client import TritonClient

# Inference is idempotent, so it is tried again when the model went away under it. A request that kills its stub each time
# must end, though, for each reload hurts everybody else.
ATTEMPTS = 3
# Chunks of one request that may be under way at once beside those that the instances work on: enough to keep them busy, too
# few for a request of 10,000 texts to fill the model's queue and starve the others.
SPARE_CHUNKS = 1


class Predict:
    """The handler of ``/predict/{model}``."""

    def __init__(self, controller: Controller, client: TritonClient, recorder: Recorder, *, timeout_s: float) -> None:
        self._controller = controller
        self._client = client
        self._recorder = recorder
        self._timeout_s = timeout_s

    async def answer(self, request: web.Request) -> web.StreamResponse:
        deadline = deadline_of(request, self._timeout_s)
        status = await self._controller.known(model_of(request), timeout_s=deadline.remaining_s())
        name = request[MODEL] = status.name  # counted under its name from here on: it exists
        data = await _read(request, deadline)
        # Encoded before the lease where the profile is known: a body that does not fit must not load a model.
        profile = status.profile
        call = encode(profile, request.content_type, data) if profile is not None else None
        cold, waited_s = False, 0.0
        for attempt in range(1, ATTEMPTS + 1):
            with await self._controller.lease(name, timeout_s=deadline.remaining_s()) as lease:
                cold, waited_s = cold or lease.cold, waited_s + lease.waited_s
                if call is None or lease.profile != profile:  # a new revision arrived meanwhile
                    profile = lease.profile
                    call = encode(profile, request.content_type, data)
                try:
                    answer = call.answer(await self._infer(lease, call, deadline))
                    break
                except (ModelGone, TritonUnavailable) as error:
                    self._controller.report_gone(name, str(error))
                    if attempt == ATTEMPTS:
                        raise
            self._recorder.infer_retry(name)
        if cold:
            self._recorder.cold_start(name, waited_s)
        headers = {"X-Modelium-Waited-Ms": f"{waited_s * 1000:.0f}"} | ({"X-Modelium-Cold": "1"} if cold else {})
        return json_response(answer, headers=headers)

    async def _infer(self, lease: Lease, call: Call, deadline: Deadline) -> list[Tensors]:
        """Outputs of all chunks, in order. The first failure cancels the others."""
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


async def _read(request: web.Request, deadline: Deadline) -> bytes:
    """The body, read before any lease: a slow upload must not hold a model."""
    limit = request.app[MAX_BODY_BYTES]
    if request.content_length is not None and request.content_length > limit:  # before anything is read; chunks are counted
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length)
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            return await request.read()
    except TimeoutError:
        raise deadline.exceeded(" of the body") from None
