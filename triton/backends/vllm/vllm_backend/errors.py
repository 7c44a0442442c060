"""What can go wrong with a request, in this backend's own words."""

from __future__ import annotations


class BadRequest(Exception):
    """The request cannot be computed as it is, and its sender is to be told why."""


class EngineDead(Exception):
    """The engine's processes are gone, or it gave up."""
