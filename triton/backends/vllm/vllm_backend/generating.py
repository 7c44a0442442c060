"""One generation: a request that was read enters; the engine's outputs, and who makes responses of them, leave."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from typing import Any

from . import beam_engine, compat
from .responses import Responses
from .tensors import Ask
from .words import Words


def begin(
    engine: Any, ask: Ask, own: Words, prompt: Any, params: Any, lora: Any
) -> tuple[Responses, AsyncGenerator[Any, None]]:
    """``params`` are those of the engine, ``own`` this backend's. Nothing is asked before the first output is; close them."""
    name = uuid.uuid4().hex
    decode = compat.tokenizer(engine).decode if own.details else None
    if own.beams is not None:
        outputs = beam_engine.search_beams(engine, prompt, params, own.beams, name, lora, own.tokenizing)
        return Responses(ask, own.beams.width, decode, facts=own.facts), outputs
    outputs = compat.generate(engine, prompt, params, name, lora, own.tokenizing)
    return Responses(ask, params.n, decode, facts=own.facts), outputs
