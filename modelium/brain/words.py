"""Sizes and demands in words: values enter, what a user reads leaves."""

from __future__ import annotations

from modelium.values import Demand

WANTED_BY = {
    Demand.DISCOVERY: "its discovery",
    Demand.RESTORE: "the restart (it was loaded before)",
    Demand.POLICY: "always_loaded or its pin",
    Demand.USER: "the user",
    Demand.REQUEST: "a waiting request",
}


def human_bytes(size: float) -> str:
    """``1288490188`` → ``1.2 GiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
