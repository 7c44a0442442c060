"""The watched directories as they are seen from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchDirectory:
    """``suspended``: why it cannot be looked into now; its models stay as they were. Empty: all is well."""

    path: Path
    suspended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Unclaimed:
    """Something that somebody dropped for a model and that is none as it lies there; ``advice``: what it is, what to do."""

    path: Path
    advice: str
