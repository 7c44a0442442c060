"""Ray in the controller's words: what a cluster has, what a replica asks of it, what the user said. Sizes are in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from modelium.values.problem import Problem


class RayState(StrEnum):
    """``ASLEEP``: a Ray of Modelium's own, which is started when a model first needs it."""

    OFF = "off"
    ASLEEP = "asleep"
    UP = "up"
    DOWN = "down"


class RayWay(StrEnum):
    """What a replica runs: the user's application, vLLM, a task of the python runtime, or an adapter for a library."""

    APP = "app"
    ENGINE = "engine"
    TASK = "task"
    SKLEARN = "sklearn"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    CROSS_ENCODER = "cross_encoder"
    DIFFUSERS = "diffusers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What one Ray actor asks of its node. ``memory_bytes`` 0: it asks for none by name."""

    cpus: float = 0.0
    gpus: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RayNode:
    """One machine of a Ray cluster.

    ``free`` is what Ray has promised to nobody, ``used_bytes`` what is really taken of its memory. ``gpu_bytes`` is the
    memory of its smallest GPU (0: it has none, or does not say), ``gpu_used_bytes`` what is taken of all of them together.
    ``held``: what our own models have here, by their names: each actor, each bundle of a placement group.
    """

    id: str
    address: str
    total: Bundle
    free: Bundle
    held: Mapping[str, tuple[Bundle, ...]] = field(default_factory=dict)
    used_bytes: int = 0
    gpu_bytes: int = 0
    gpu_used_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ray:
    """Ray as the controller knows it.

    ``here``: all of it runs on this machine, whose memory is counted once, as the machine's. ``detail``: why it is down.
    """

    state: RayState = RayState.OFF
    detail: str = ""
    version: str = ""
    here: bool = True
    nodes: tuple[RayNode, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many copies of a model Ray Serve runs, and what each asks of its node.

    Between ``minimum`` and ``maximum`` Ray Serve scales by itself, towards ``target_ongoing_requests`` at each.
    ``bundles``: one for a replica, several for an engine that spans GPUs. ``visible_devices``: the GPUs of this machine that
    all of them are pinned to ("" leaves that to Ray).
    """

    minimum: int = 1
    maximum: int = 1
    target_ongoing_requests: float = 2.0
    bundles: tuple[Bundle, ...] = (Bundle(),)
    visible_devices: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """``ray:`` of one model, or of all. None: decide for me (of one model: as for all)."""

    min_replicas: int | None = None
    max_replicas: int | None = None
    target_ongoing_requests: float | None = None
    cpus_per_replica: float | None = None
    gpus_per_replica: float | None = None

    def over(self, others: RayOptions) -> RayOptions:
        """These, and what ``others`` say where nothing is said here; one that contradicts these gives way."""
        said = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        both = replace(others, **said)
        least, most = both.min_replicas, both.max_replicas
        if least is None or most is None or least <= most:
            return both
        return replace(both, min_replicas=most) if self.min_replicas is None else replace(both, max_replicas=least)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayFacts:
    """What was learned of the model runtime's Ray. ``packages`` is None for a runtime elsewhere, which cannot be asked."""

    version: str = ""
    missing: Problem | None = None  # why there is none
    packages: frozenset[str] | None = None
