"""What can go wrong with a request, in this backend's own words."""

from __future__ import annotations


class BadRequest(Exception):
    """The request cannot be computed as it is, and its sender is to be told why."""


class TooLong(BadRequest):
    """The prompt does not fit into the model's context. Triton passes on words alone, so these begin with a mark."""

    def __str__(self) -> str:
        return f"[context_length_exceeded] {super().__str__()}"


class EngineDead(Exception):
    """The engine's processes are gone, or it gave up."""
