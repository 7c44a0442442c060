"""The ways in which a leased model answers: a lease and what to ask enter, tensors or pieces of text leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from modelium.errors import InvalidBody
from modelium.gateway.asking.watching import unless_lost, while_serving
from modelium.gateway.codecs import Call, Tensors
from modelium.gateway.codecs.finite import check_finite
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation import GenerationRequest, Piece, python_runtime, vllm_runtime

if TYPE_CHECKING:
    from modelium.controller import Lease
    from modelium.triton.client import TritonClient

# Chunks of one request that may be under way at once beside those that the instances work on: enough to keep them busy, too
# few for a request of 10,000 texts to fill the model's queue and starve the others.
SPARE_CHUNKS = 1


async def outputs_of(client: TritonClient, lease: Lease, call: Call, deadline: Deadline) -> list[Tensors]:
    """The outputs of all chunks of ``call``, in order."""
    asking = _infer(client, lease, call, deadline)
    outputs = await (unless_lost(asking, lease.lost, lease.profile.name) if lease.placement.by_ray else asking)
    check_finite(lease.profile, outputs)
    return outputs


async def _infer(client: TritonClient, lease: Lease, call: Call, deadline: Deadline) -> list[Tensors]:
    """The first failure cancels the other chunks."""
    name, placement = lease.profile.name, lease.placement
    chunks = call.chunks(max(1, placement.max_batch_size))
    if len(chunks) == 1:
        return [await client.infer(name, chunks[0], timeout_s=deadline.remaining_s())]
    slots = asyncio.Semaphore(placement.instance_count + SPARE_CHUNKS)

    async def infer(chunk: Tensors) -> Tensors:
        async with slots:
            return await client.infer(name, chunk, timeout_s=deadline.remaining_s())

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(infer(chunk)) for chunk in chunks]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def pieces_of(
    client: TritonClient, lease: Lease, request: GenerationRequest, deadline: Deadline, serves: Callable[[], bool]
) -> AsyncGenerator[Piece, None]:
    """The pieces of one generation. vLLM stops within a token or two when the generator is closed."""
    name = lease.profile.name
    if not lease.placement.by_vllm:
        if not lease.profile.task.row.continues:
            raise InvalidBody(f"{name!r} does {lease.profile.task.value}; it does not continue texts")
        inputs = python_runtime.tensors_of(request, lease.profile)
        yield python_runtime.piece_of(await client.infer(name, inputs, timeout_s=deadline.remaining_s()))
        return
    inputs = vllm_runtime.tensors_of(request, lease.placement.engine)
    read = vllm_runtime.PieceReader(request)
    async with aclosing(responses_of(client, name, inputs, deadline, serves)) as responses:
        async for outputs in responses:
            for piece in read.pieces(outputs):
                yield piece


def responses_of(
    client: TritonClient, name: str, inputs: Tensors, deadline: Deadline, serves: Callable[[], bool]
) -> AsyncGenerator[Tensors, None]:
    """The responses to ``inputs``, until ``serves()`` is False while one is waited for."""
    return while_serving(client.stream(name, inputs, timeout_s=deadline.remaining_s()), serves, name)
