"""The time that a request has: how long enters, what is left of it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from modelium.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """Counts from its making. ``hint``: how its client may have more time."""

    timeout_s: float
    hint: str = "allow more time"
    started_at: float = field(default_factory=monotonic)

    def elapsed_s(self) -> float:
        """Since the request came, in seconds."""
        return monotonic() - self.started_at

    def remaining_s(self) -> float:
        """Seconds left; raises ``DeadlineExceeded`` when there are none."""
        left = self.timeout_s - self.elapsed_s()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self, during: str = "") -> DeadlineExceeded:
        """The error to raise; ``during`` says what was not done in time."""
        return DeadlineExceeded(f"no answer within {self.timeout_s:g} s{during}; {self.hint}")
