"""The loaded models of one device, in the order in which they would go for somebody who waits.

What enters: views as they change. What leaves: who may go now, the least harm first. A model is judged again when it changed,
when its residence ends, and when it has been silent for a tenth longer than at its last judgement, or for a minute: what its
loss costs changes with time alone too, but slowly. So of two whose silence differs by less than that, either may go.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from modelium.brain import turns
from modelium.brain.policies.policy import freed_bytes
from modelium.brain.views import Views
from modelium.values import ModelView, Policies

_JUDGED_ANEW_AFTER = 0.1  # of the silence at the last judgement
_SHORTEST_S, _LONGEST_S = 1.0, 60.0

_Key = tuple[float, float, str]


class _Place(NamedTuple):
    """Where it stands in an order, and until when."""

    hold: turns.Hold
    key: _Key
    expires_at: float
    roughly_until: float


class Tenants:
    """``views``: of all models. ``movable_bytes``: of all here that may go at somebody's turn, those under their residence
    included."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self.movable_bytes = 0
        self._movable: dict[str, int] = {}  # of each that is here
        self._changed: set[str] = set()
        self._judged_at = -math.inf
        self._next_at = self._next_rough_at = -math.inf  # when it is next to be looked at, where nothing changes
        self._expiries: list[tuple[float, str]] = []  # a heap: when whose judgement is too old
        self._orders: dict[turns.Hold, list[_Key]] = {turns.Hold.NOTHING: [], turns.Hold.LEASES: []}
        self._places: dict[str, _Place] = {}
        self._residences: dict[str, float] = {}  # of those who have just come: until when they stay
        self._refused: dict[int, int] = {}  # by the number of holds: the fewest bytes that could not be found

    def forget_refusals(self) -> None:
        """There is more room on the device, or other room."""
        self._refused.clear()

    def put(self, view: ModelView) -> None:
        """It was loaded there, or changed."""
        movable = 0 if view.pinned or view.always_loaded else view.bytes_held
        self.movable_bytes += movable - self._movable.get(view.name, 0)
        self._movable[view.name] = movable
        self.use(view.name)

    def use(self, name: str) -> None:
        """It was used, and is here."""
        self._refused.clear()
        self._changed.add(name)

    def drop(self, name: str) -> None:
        """It is not loaded any more."""
        self._refused.clear()
        if (movable := self._movable.pop(name, None)) is not None:
            self.movable_bytes -= movable
            self._changed.add(name)

    def __contains__(self, name: str) -> bool:
        return name in self._movable

    def each(self) -> Iterator[ModelView]:
        """All that are here."""
        return (self._views[name] for name in self._movable)

    def in_order(self, holds: Sequence[turns.Hold]) -> Iterator[ModelView]:
        """Those whom nothing but ``holds`` keeps, as last judged, the least harm first; those in use after all others, of them
        the one that had its turn for longest first."""
        return (self._views[name] for hold in holds for _, _, name in self._orders[hold])

    def least_harm(self) -> float:
        """For each byte, as last judged, of who may go for anybody; infinite where nobody may."""
        order = self._orders[turns.Hold.NOTHING]
        return order[0][0] if order else math.inf

    def loss_of(self, view: ModelView) -> float:
        """``turns.loss`` of it as last judged; 0 for one that is in use."""
        place = self._places[view.name]
        return place.key[0] * freed_bytes(view) if place.hold is turns.Hold.NOTHING else 0.0

    def refuse(self, need: int, holds: Sequence[turns.Hold]) -> None:
        """For a model of ``need`` bytes the room could not be found, whoever goes that nothing but ``holds`` keeps."""
        self._refused[len(holds)] = need

    def is_refused(self, need: int, holds: Sequence[turns.Hold]) -> bool:
        """That was found out already, and nothing has changed since."""
        return need >= self._refused.get(len(holds), need + 1)

    def next_release(self) -> float | None:
        """When the first residence ends; None where there is none."""
        return min(self._residences.values(), default=None)

    def judge(self, now: float, policies: Policies, *, roughly: bool = False) -> bool:
        """Bring the order up to date; False where it was that. ``roughly``: a tenth of a silence, however long, is nothing."""
        if now < self._judged_at:  # nobody's clock goes back, but tests ask of any instant
            self._changed.update(self._movable, self._places)
        elif not self._changed and now < (self._next_rough_at if roughly else self._next_at):
            return False
        self._judged_at = now
        while self._expiries and self._expiries[0][0] <= now:
            expires_at, name = heappop(self._expiries)
            if name in self._places and self._places[name].expires_at == expires_at:
                self._changed.add(name)
        self._changed.update(name for name, until in self._residences.items() if until <= now)
        changed, self._changed = self._changed, set()
        if changed:
            self._refused.clear()
        for name in changed:
            self._take_out(name)
            if name in self._movable:
                self._judge(self._views[name], now, policies)
        expires_at = self._expiries[0][0] if self._expiries else math.inf
        released_at = min(self._residences.values(), default=math.inf)
        self._next_at = min(expires_at, released_at)
        self._next_rough_at = min((released_at, *(place.roughly_until for place in self._places.values())))
        return True

    def _judge(self, view: ModelView, now: float, policies: Policies) -> None:
        hold = turns.hold(view, now, policies)
        if hold is turns.Hold.RESIDENCE:
            self._residences[view.name] = view.loaded_at + turns.residence_s(view, policies)
        elif (order := self._orders.get(hold)) is not None:
            expires_at = roughly_until = math.inf
            key = turns.place_in_order(view, now, policies)
            if hold is turns.Hold.NOTHING:
                lasts_s = max(_JUDGED_ANEW_AFTER * view.usage.idle_s(now), _SHORTEST_S)
                expires_at, roughly_until = now + min(lasts_s, _LONGEST_S), now + lasts_s
                heappush(self._expiries, (expires_at, view.name))
            insort(order, key)
            self._places[view.name] = _Place(hold, key, expires_at, roughly_until)

    def _take_out(self, name: str) -> None:
        self._residences.pop(name, None)
        if (place := self._places.pop(name, None)) is not None:
            order = self._orders[place.hold]
            del order[bisect_left(order, place.key)]
