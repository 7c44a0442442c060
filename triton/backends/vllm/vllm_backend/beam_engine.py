"""Beam search on vLLM's engine: a prompt and its parameters enter, one output with the best beams leaves."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from . import compat
from .beams import Beam, Wish, search
from .errors import BadRequest, EngineDead


async def search_beams(
    engine: Any,
    prompt: Any,
    params: Any,
    wish: Wish,
    request_id: str,
    lora: Any,
    tokenizing: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Any, None]:
    """The one output, with as many sequences as there are beams. Ends in the engine when it is closed early."""
    if 2 * wish.width > (told := compat.max_logprobs(engine)):
        raise BadRequest(
            f"'beam_width' may be {told // 2} at most: the engine tells the {told} likeliest tokens, half of them beams"
        )
    async with compat.spoken(engine) as said:
        rendered = await compat.render(engine, prompt, tokenizing or {})
        ids = list(rendered.get("prompt_token_ids") or ())
        said.prompt_tokens = len(ids)
        one = compat.likeliest(2 * wish.width, params.temperature)
        cached: list[int | None] = []

        async def after(number: int, tokens: tuple[int, ...]) -> Mapping[int, Any]:
            begun = {**rendered, "prompt_token_ids": [*ids, *tokens]}
            last = None
            async for output in engine.generate(begun, one, f"{request_id}-{len(tokens)}-{number}", lora_request=lora):
                last = output
            if last is None or last.outputs[0].finish_reason in ("abort", "error") or not last.outputs[0].logprobs:
                raise EngineDead("it broke a beam off")
            if not tokens:
                cached.append(last.num_cached_tokens)
            return last.outputs[0].logprobs[0]

        async def next_tokens(sequences: Sequence[tuple[int, ...]]) -> list[Mapping[int, Any]]:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(after(number, tokens)) for number, tokens in enumerate(sequences)]
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
            return [task.result() for task in tasks]

        tokenizer, length = compat.tokenizer(engine), compat.max_model_len(engine)
        found = await search(
            next_tokens,
            wish,
            most=max(1, min(params.max_tokens or length, length - len(ids))),
            prompt_tokens=len(ids),
            end=None if params.ignore_eos else tokenizer.eos_token_id,
            shows_end=params.include_stop_str_in_output,
        )
        yield types.SimpleNamespace(
            prompt=rendered.get("prompt"),
            prompt_token_ids=ids,
            prompt_logprobs=None,
            num_cached_tokens=cached[0] if cached else None,
            finished=True,
            outputs=[_sequence(index, beam, params, tokenizer) for index, beam in enumerate(found)],
        )


def _sequence(index: int, beam: Beam, params: Any, tokenizer: Any) -> Any:
    def named(position: Mapping[int, Any]) -> dict[int, Any]:
        return {
            token: types.SimpleNamespace(logprob=one.logprob, rank=one.rank, decoded_token=tokenizer.decode([token]))
            for token, one in position.items()
        }

    shown = beam.tokens[:-1] if beam.ended and params.include_stop_str_in_output else beam.tokens
    return types.SimpleNamespace(
        index=index,
        text=tokenizer.decode(list(shown), skip_special_tokens=params.skip_special_tokens),
        token_ids=list(beam.tokens),
        cumulative_logprob=beam.logprob,
        logprobs=[named(position) for position in beam.positions] if params.logprobs is not None else None,
        finish_reason="stop" if beam.ended else "length",
        stop_reason=tokenizer.eos_token_id if beam.ended else None,
    )
