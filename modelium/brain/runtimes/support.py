"""What the brain asks of each runtime. The file of a runtime, beside this one, fills it in; ``choice`` has the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from modelium.values import Capabilities, DeviceKind, ModelProfile, Runtime


class Ending(Enum):
    """How a runtime's processes may end when Triton has let go of their model."""

    KILLED = "killed"  # all that they do at their end is to give memory back, which they also do if nobody tells them to
    TOLD = "told"  # they have something to take down: a nursery's children do it when they are told, the others as below
    BY_THEMSELVES = "by themselves"  # when Triton tells them, a second later


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """``find_obstacle``: why it cannot serve a model here, "" for nothing; who chose it by hand (the last argument) may know
    better than our tables. ``process_bytes``: of a process on the host with a model of no size to speak of, measured (2-core
    x86-64, torch 2.13, transformers 5.23, onnxruntime 1.32, PSS). ``born_bytes``: of a nursery's child and its stub, what these
    add; None where no nursery forks them, or an engine's plan says it. ``weight_bytes``: what the weights become in memory.
    ``is_born``: its entries ask for a nursery. ``ending``: what its processes need to end. ``is_engine``: its memory is
    planned as an engine's. ``replicates``: copies are its own affair, not Triton's instances."""

    find_obstacle: Callable[[ModelProfile, Capabilities, bool], str]
    process_bytes: int
    weight_bytes: Callable[[ModelProfile, DeviceKind], int]
    born_bytes: int | None = None
    is_born: bool = False
    ending: Ending = Ending.BY_THEMSELVES
    is_engine: bool = False
    replicates: bool = False


def no_backend(runtime: Runtime, capabilities: Capabilities) -> str:
    """That the connected Triton lacks the backend, where it does."""
    if runtime.value in capabilities.backends:
        return ""
    return f"this Triton has no {runtime} backend (it has {', '.join(sorted(capabilities.backends)) or 'none'})"


def in_float32(profile: ModelProfile, device: DeviceKind) -> int:
    """On the host torch computes in float32: 4 bytes a parameter."""
    if device is DeviceKind.HOST and profile.quantization is None:
        return max(profile.parameters * 4, 0) or profile.weight_bytes
    return profile.weight_bytes
