"""A Triton server: how it is reached, and what is known of it. Values; the controller keeps the newest of what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelium.devices import Devices
from modelium.repository import ModelRepository
from modelium.triton.client import TritonClient
from modelium.values import Runtime, ServerStatus, VllmFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How it is reached. ``pid``, ``backends`` and ``vllm`` say what runs there now. ``owner``: the word by which its Ray
    deployments are known. ``expects`` takes a runtime and the modules of its libraries that a model will import.
    """

    client: TritonClient
    repository: ModelRepository
    devices: Devices
    backends: Callable[[], frozenset[str]]
    vllm: Callable[[], VllmFacts]
    pid: Callable[[], int | None]
    owner: str
    expects: Callable[[Runtime, Iterable[str]], None] = lambda runtime, modules: None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownServer:
    """``starts``: how often it came up; readings of an earlier start say nothing. ``ready``: what it served before we looked,
    name → the fingerprint that our entry was written from ("": not an entry of ours).
    """

    up: bool = False
    version: str = ""
    detail: str = "not started yet"
    starts: int = 0
    ready: Mapping[str, str] = field(default_factory=dict)

    def came_up(self, version: str, ready: Mapping[str, str]) -> KnownServer:
        """It answers."""
        return replace(self, up=True, version=version, detail="", starts=self.starts + 1, ready=ready)

    def went_down(self, detail: str) -> KnownServer:
        """It is gone, and everything that it had loaded."""
        return replace(self, up=False, detail=detail)

    def without_ready(self, name: str) -> KnownServer:
        """What it served before we looked is true once: later it is ours to know."""
        return replace(self, ready={key: value for key, value in self.ready.items() if key != name})

    @property
    def status(self) -> ServerStatus:
        """As users see it."""
        return ServerStatus(up=self.up, version=self.version, restarts=max(0, self.starts - 1), detail=self.detail)
