"""What a step may know besides the record and the event."""

from __future__ import annotations

from dataclasses import dataclass

from modelium.values import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The instant, the configuration, the world. ``devices``: as they were when somebody last looked at them.

    ``ray_outages``: how often Ray went down; ``ray_detail``: what it says of itself.
    """

    now: float
    drain_timeout_s: float = 30.0
    load_retries: int = 3
    retry_backoff_s: float = 1.0
    usage_window_s: float = 60.0
    load_on_discovery: bool = True
    devices: tuple[Device, ...]
    ray_outages: int = 0
    ray_detail: str = ""
