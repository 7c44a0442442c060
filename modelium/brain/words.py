"""Demands and contexts in words."""

from __future__ import annotations

from modelium.values import Demand, EnginePlan

WANTED_BY = {
    Demand.DISCOVERY: "its discovery",
    Demand.RESTORE: "the restart (it was loaded before)",
    Demand.POLICY: "always_loaded or its pin",
    Demand.USER: "the user",
    Demand.REQUEST: "a waiting request",
}


def context_in_words(engine: EnginePlan | None) -> str:
    """That a context is shorter than the model's, and why; "" where it is not."""
    if engine is None or not engine.is_shortened:
        return ""
    return f"context {engine.max_model_len:,} of {engine.full_context:,}: what fits on {' and '.join(engine.devices)}"
