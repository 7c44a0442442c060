"""The module ``ray`` for what the template calls of it: it remembers what was deployed, and answers as a test wants.

The tests with a server hold the same code against the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class RayActorError(Exception): ...


class DeploymentUnavailableError(Exception): ...


class RayTaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__("ray::ServeReplica:m:model.infer() (pid=1)\nTraceback (most recent call last): …")
        self.cause = cause


class ApplicationStatus(Enum):
    DEPLOYING = "DEPLOYING"
    RUNNING = "RUNNING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UNHEALTHY = "UNHEALTHY"


@dataclass(slots=True)
class Deployed:
    """A deployment of Serve's: a class, its options, and what it is constructed with."""

    target: type
    chosen: dict[str, Any] = field(default_factory=dict)
    bound: tuple[Any, ...] = ()

    def options(self, **chosen: Any) -> Deployed:
        return Deployed(self.target, chosen)

    def bind(self, *bound: Any) -> Deployed:
        return Deployed(self.target, self.chosen, bound)


@dataclass(slots=True)
class StandInRay:
    """``messages``: what Serve says of an application that does not run ([]: it runs)."""

    messages: list[str] = field(default_factory=list)
    status: ApplicationStatus = ApplicationStatus.DEPLOY_FAILED
    applications: dict[str, Any] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    refuses: Exception | None = None  # of init
    connected: bool = False

    def start(self, **said: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.connected, self.init = True, said

    def stop(self) -> None:
        self.connected = False

    def run_many(self, targets: list[Any], *, wait_for_applications_running: bool) -> None:
        assert self.connected and not wait_for_applications_running
        for each in targets:
            state = SimpleNamespace(
                status=self.status if self.messages else ApplicationStatus.RUNNING,
                message=self.messages[0] if self.messages else "",
                deployments={str(number): SimpleNamespace(message=said) for number, said in enumerate(self.messages[1:])},
                target=each.target,
                route=each.route_prefix,
            )
            self.applications[each.name] = state

    def delete(self, name: str, _blocking: bool = True) -> None:
        assert self.connected
        self.deleted.append(name)
        self.applications.pop(name, None)


def install(monkeypatch: pytest.MonkeyPatch) -> StandInRay:
    """Put it where ``import ray`` finds it."""
    ray = StandInRay()
    serve = _module(
        monkeypatch,
        "ray.serve",
        deployment=Deployed,
        RunTarget=lambda **said: SimpleNamespace(**said),
        run_many=ray.run_many,
        status=lambda: SimpleNamespace(applications=dict(ray.applications)),
        delete=ray.delete,
        get_app_handle=lambda name: SimpleNamespace(name=name),
    )
    running: Callable[..., object] = lambda name, namespace: object()  # noqa: E731 — Serve's controller is there
    _module(monkeypatch, "ray", init=ray.start, shutdown=ray.stop, get_actor=running, serve=serve)
    _module(monkeypatch, "ray.serve.schema", ApplicationStatus=ApplicationStatus)
    _module(monkeypatch, "ray.exceptions", RayActorError=RayActorError, RayTaskError=RayTaskError)
    _module(monkeypatch, "ray.serve.exceptions", DeploymentUnavailableError=DeploymentUnavailableError)
    return ray


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(content)
    monkeypatch.setitem(sys.modules, name, made)
    return made
