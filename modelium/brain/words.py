"""Demands, contexts and durations in words."""

from __future__ import annotations

from modelium.values import Demand, EnginePlan

WANTED_BY = {
    Demand.EXPECTED: "the next request, which is expected soon",
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


def duration(seconds: float) -> str:
    """
    >>> duration(0.25), duration(42), duration(2400), duration(9000), duration(500_000)
    ('0.2 s', '42 s', '40 min', '2.5 h', '5.8 days')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.1f} days"
