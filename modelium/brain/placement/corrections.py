"""What estimates are wrong by, learned from those that were measured. What enters: views. What leaves: factors, by kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from modelium.values import ModelView, Placement

_FEWEST = 3  # models; of fewer nothing is concluded
_LEAST, _MOST = 0.5, 2.0
_STEPS = 20  # in a whole: factors change in twentieths, so that a new measurement rarely changes all plans


def kind_of(place: Placement) -> str:
    """What has errors of its own."""
    return f"{place.runtime} {place.device_kind}{' born' if place.born else ''}"


@dataclass(slots=True)
class Corrections:
    """The last known error of each model that was measured."""

    factors: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    _ratios: dict[str, dict[str, float]] = field(default_factory=dict)

    def learn(self, view: ModelView) -> bool:
        """Take account of a model; True when a factor is another one now.

        1. Engines are given what was planned for them, replicas are counted otherwise, and who was never asked has not grown
           yet: nothing is learned of those.
        2. From three models of a kind on: the upper quartile of measured / estimated, rounded up, so that most of those to come
           take less than is promised to them.
        3. At least a half and at most twice.
        """
        place, footprint = view.placement, view.footprint
        if place is None or place.engine is not None or place.replicas is not None or not view.bytes_held:  # 1
            return False
        if not view.usage.requests:
            return False
        if not footprint.measured_bytes or not footprint.estimated_bytes:
            return False
        kind = kind_of(place)
        ratios = self._ratios.setdefault(kind, {})
        ratio = footprint.measured_bytes / footprint.estimated_bytes
        if ratios.get(view.name) == ratio:
            return False
        ratios[view.name] = ratio
        if len(ratios) < _FEWEST:  # 2
            return False
        upper = sorted(ratios.values())[math.ceil(len(ratios) * 3 / 4) - 1]
        factor = min(max(math.ceil(upper * _STEPS) / _STEPS, _LEAST), _MOST)  # 3
        if self.factors.get(kind, 1.0) == factor:
            return False
        self.factors = MappingProxyType({**self.factors, kind: factor})
        return True
