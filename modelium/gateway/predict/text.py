"""``/predict`` for models that continue texts: a ``TextCall`` enters, answers in Hugging Face's shapes leave, also as events.

vLLM's way of being asked differs from the python runtime's. Which of them serves a model is known for certain only once it is
loaded; so a body is checked before that against whatever may come, and taken apart after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from itertools import product
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.errors import InvalidBody
from modelium.gateway.asking import Asking
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation import GenerationRequest
from modelium.gateway.generation.huggingface import Options, TextCall, TextInput, options_for, request_of
from modelium.gateway.generation.tgi_answers import Answer, error_event
from modelium.gateway.generation.values import AT_ONCE
from modelium.gateway.http.events import EventStream
from modelium.gateway.http.telling import TELLING
from modelium.values import Target

if TYPE_CHECKING:
    from modelium.controller import Lease


class PredictText:
    """Generates for ``/predict/{model}``."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def answer(self, target: Target, call: TextCall, deadline: Deadline) -> object:
        """The whole answer: a list with one result for a single text, a list of such lists for several."""
        options = options_for(call)
        wanted = iter(list(product(range(len(call.inputs)), range(options.count))))
        made: dict[tuple[int, int], dict[str, object]] = {}

        async def generate(source: TextInput, sequence: int) -> dict[str, object]:
            answer = Answer(options, source.prompt, sequence=sequence)
            build = _builder(target, source, options, sequence=sequence, tokens=options.details)
            async with aclosing(self._asking.generate(target.model, build, deadline)) as pieces:
                async for piece in pieces:
                    answer.add(piece)
            return answer.result()

        async def work() -> None:
            for place, sequence in wanted:  # one iterator for all who work
                made[place, sequence] = await generate(call.inputs[place], sequence)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(call.inputs) * options.count)):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        results = [[made[place, sequence] for sequence in range(options.count)] for place in range(len(call.inputs))]
        return results if call.listed else results[0]

    async def stream(self, request: web.Request, target: Target, call: TextCall, deadline: Deadline) -> web.StreamResponse:
        """Server-sent events, one a token."""
        options = options_for(call)
        if options.count > 1:
            raise InvalidBody(f"a stream has one sequence, found {options.count}", field="parameters.num_return_sequences")
        source = call.inputs[0]
        answer = Answer(options, source.prompt)
        build = _builder(target, source, options, tokens=True)
        name = target.model
        telling = request.app[TELLING]
        stream = EventStream(
            request,
            comment=lambda: self._asking.waiting(name),
            error_event=lambda error: error_event(error, telling.words(error, request)),
            deadline=deadline,
        )
        async with stream as events, aclosing(self._asking.generate(name, build, deadline)) as pieces:
            async for piece in pieces:
                for event in answer.add(piece):
                    await events.send(event)
        return events.response


def _builder(
    target: Target, source: TextInput, options: Options, *, sequence: int = 0, tokens: bool
) -> Callable[[Lease], GenerationRequest]:
    def build(lease: Lease) -> GenerationRequest:
        vllm = lease.placement.by_vllm
        request = request_of(source, options, lease.profile, adapter=target.adapter, sequence=sequence, tokens=tokens and vllm)
        engine = lease.placement.engine
        known = [adapter.name for adapter in engine.adapters] if engine is not None else []
        if vllm and request.adapter and request.adapter not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidBody(f"{target.model!r} has no adapter {request.adapter!r}; {there}", field="parameters.adapter_id")
        return request

    return build
