"""What ``modelium doctor`` finds: one value for each thing that serving needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """``FAIL``: it cannot serve. ``WARN``: it can, but less well than it might."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that serving needs: what was found, and what to do about it ("" for nothing)."""

    name: str
    outcome: Outcome
    found: str
    remedy: str = ""
