"""Which idle model moves to another device when it has to make room. What enters: a draft, and a model that goes for somebody
who waits. What leaves: the device with free room on which it is to be loaded again, or none.

Nobody goes for it there. It moves only when its next request is likely so soon that a load is worth it: with a longer while,
moves took room and loads from others (``docs/critiques.md``). And only once for each of its silences: no model wanders without
being asked.
"""

from __future__ import annotations

from collections.abc import Collection

from modelium.brain import arrivals
from modelium.brain.draft import Draft
from modelium.brain.policies.policy import reload_s
from modelium.values import ModelView, Placement

_LIKELY = 0.5
_LOADS = 20.0  # as many times as its load takes, its next request may take to come


def find_device(draft: Draft, view: ModelView, room_for: Placement, avoid: Collection[str]) -> str | None:
    """One that equals the one it is on, with room that nobody waits for. None for a model on several devices or of Ray's, and
    for one whose device the user chose."""
    board, placement = draft.board, view.placement
    if placement is None or placement.by_ray or len(placement.devices) > 1 or board.offering.override(view.name).names_devices:
        return None
    if not board.policies.move_idle or not is_worth_it(view, draft.now):
        return None
    without = {*room_for.devices, *placement.devices, *avoid}
    others = (device for device in board.devices.alike(placement.device_id) if device not in without)
    return next((device for device in others if draft.free(device) >= view.bytes_held), None)


def is_worth_it(view: ModelView, now: float) -> bool:
    """Is it idle, was it asked since its last load, and will it be asked again soon?"""
    usage, last = view.usage, view.usage.silent_since
    if usage.in_flight or last is None or last < view.loaded_at or not arrivals.is_sure(usage.arrivals):
        return False
    return arrivals.chance(usage.arrivals, usage.silent_s(now), _LOADS * reload_s(view)) >= _LIKELY
