"""``modelium doctor``: settings enter, one check per thing that serving needs leaves, each with what to do about it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from modelium import runtime_env
from modelium.api_keys import ApiKeys, readable_by_all
from modelium.cli.checks import Check, Outcome
from modelium.cli.ray_checks import ray_checks
from modelium.cli.remote import Remote
from modelium.config import Settings
from modelium.devices import Devices
from modelium.errors import ConfigError, ModeliumError
from modelium.guarded.addresses import parse_address
from modelium.sizes import human_bytes
from modelium.values import DeviceKind

_SCARCE_DISK_BYTES = 2 * 2**30
_SCARCE_SHARED_MEMORY_BYTES = (
    256 * 2**20
)  # Docker's default is 64 MiB; Triton's python backend takes 1 MiB and more an instance


def examine(settings: Settings) -> tuple[Check, ...]:
    """Everything, in the order in which it would hurt. Only looks."""
    return (
        _python(),
        *_triton(settings),
        *ports(settings),
        _access(settings),
        *_directories(settings),
        *_memory(settings),
    )


def as_json(checks: tuple[Check, ...]) -> str:
    """For programs."""
    return json.dumps([asdict(check) for check in checks], indent=2)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check(name="python", outcome=Outcome.OK, found=f"{version} at {sys.executable}")


def _triton(settings: Settings) -> Iterator[Check]:
    if settings.triton.mode == "external":
        yield _external(settings)
        yield from ray_checks(settings.ray, None)
        return
    report = runtime_env.inspect(settings.triton.runtime_directory)
    for problem in report.problems:
        yield Check(name="model runtime", outcome=Outcome.FAIL, found=problem.what, remedy=problem.remedy)
    if not report.problems:
        named = (f"{name} {report.packages[name]}" for name in ("torch", "transformers", "numpy") if name in report.packages)
        yield Check(name="model runtime", outcome=Outcome.OK, found=f"{report.directory}: {', '.join(named)}")
        yield _vllm(settings, report)
        yield from ray_checks(settings.ray, report)
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        scarce = free < _SCARCE_SHARED_MEMORY_BYTES
        yield Check(
            name="shared memory",
            outcome=Outcome.WARN if scarce else Outcome.OK,
            found=f"{human_bytes(free)} free in {shared}",
            remedy="Triton hands tensors to models through it: docker run --shm-size=1g" if scarce else "",
        )


def _vllm(settings: Settings, report: runtime_env.RuntimeReport) -> Check:
    """What language models are served with; without it they go to the python runtime, slowly."""
    facts = runtime_env.read_vllm(report)
    if not settings.vllm.enabled:
        return Check(name="vllm", outcome=Outcome.OK, found="vllm.enabled is false in the configuration")
    if facts.missing:
        return Check(name="vllm", outcome=Outcome.WARN, found=facts.missing.what, remedy=facts.missing.remedy)
    known = f"{len(facts.architectures)} architectures" if facts.architectures else "its registry could not be read"
    return Check(name="vllm", outcome=Outcome.OK, found=f"{facts.version or 'of an unknown version'}: {known}")


def _external(settings: Settings) -> Check:
    url = f"http://{settings.triton.http_url}/v2"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as response:
            version = json.load(response).get("version", "?")
    except (OSError, ValueError, AttributeError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        remedy = "start it with --model-control-mode=explicit, or correct triton.http_url"
        return Check(name="triton", outcome=Outcome.FAIL, found=f"{url} does not answer: {reason}", remedy=remedy)
    return Check(name="triton", outcome=Outcome.OK, found=f"{version} at {settings.triton.http_url}")


def ports(settings: Settings) -> Iterator[Check]:
    """Every port that serve would listen on: free, taken, or held by a Modelium that runs already."""
    gateway = settings.gateway
    running = _is_modelium(gateway.host, gateway.port)
    wanted = [("gateway", gateway.host, gateway.port, "gateway.port")]
    if gateway.grpc_port is not None:
        wanted.append(("gateway gRPC", gateway.host, gateway.grpc_port, "gateway.grpc_port"))
    if settings.metrics.enabled:
        wanted.append(("metrics", settings.metrics.host, settings.metrics.port, "metrics.port"))
    if settings.triton.mode == "embedded":
        for name in ("http", "grpc", "metrics"):
            key = f"triton.{name}_url"
            address = parse_address(str(getattr(settings.triton, f"{name}_url")), key)
            wanted.append((f"triton {name}", address.host, address.port, key))
    for name, host, port, key in wanted:
        refusal = _refusal(host, port)
        if not refusal:
            yield Check(name=f"{name} port", outcome=Outcome.OK, found=f"{host}:{port} is free")
        elif running:
            yield Check(name=f"{name} port", outcome=Outcome.OK, found=f"{host}:{port} is in use; a Modelium runs here")
        else:
            remedy = f"end what listens there, or choose another with {key}"
            yield Check(name=f"{name} port", outcome=Outcome.FAIL, found=f"{host}:{port}: {refusal}", remedy=remedy)


def _is_modelium(host: str, port: int) -> bool:
    try:
        return b'"alive"' in Remote(f"http://{host}:{port}").get("/health/live", timeout_s=2)  # needs no API key
    except ModeliumError:
        return False


def _refusal(host: str, port: int) -> str:
    """Why nothing can listen there; empty when it can. Asked with the option that servers use, so TIME_WAIT does not count."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.socket(found[0][0]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[0][4])
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _access(settings: Settings) -> Check:
    """Who may ask. Keys are counted, never shown."""
    gateway = settings.gateway
    path = gateway.api_keys_file
    if path is None and not gateway.open_to_all:
        return Check(name="access", outcome=Outcome.OK, found=f"the programs of this machine, at {gateway.host}")
    if path is None:
        found = f"whoever reaches {gateway.host}:{gateway.port}"
        return Check(
            name="access", outcome=Outcome.WARN, found=found, remedy="set gateway.api_keys_file, or put a proxy in front"
        )
    try:
        keys = ApiKeys(path)
        for_all = readable_by_all(path)
    except (ConfigError, OSError) as error:
        return Check(name="access", outcome=Outcome.FAIL, found=str(error), remedy="mend gateway.api_keys_file")
    found = f"who has one of the {len(keys)} keys in {path}" if len(keys) > 1 else f"who has the key in {path}"
    if for_all:
        remedy = f"every user of this machine can read it: chmod o-r {path}"
        return Check(name="access", outcome=Outcome.WARN, found=found, remedy=remedy)
    return Check(name="access", outcome=Outcome.OK, found=found)


def _directories(settings: Settings) -> Iterator[Check]:
    for watched in settings.orchestration.model_discovery.watch_directories:
        if not watched.exists():
            yield Check(name="watched", outcome=Outcome.OK, found=f"{watched} is not there yet; serve makes it")
        elif not os.access(watched, os.R_OK | os.X_OK):
            remedy = "give this user the right to read it"
            yield Check(name="watched", outcome=Outcome.FAIL, found=f"{watched} cannot be read", remedy=remedy)
        else:
            yield Check(name="watched", outcome=Outcome.OK, found=f"{watched} can be read")
    yield _writable("repository", settings.triton.model_repository, "triton.model_repository")
    yield _writable("state", settings.triton.state_directory, "triton.state_directory")


def _writable(name: str, directory: Path, key: str) -> Check:
    place = _nearest(directory)
    if not os.access(place, os.W_OK | os.X_OK):
        remedy = f"give this user the right to write it, or choose another with {key}"
        return Check(name=name, outcome=Outcome.FAIL, found=f"{place} cannot be written", remedy=remedy)
    free = shutil.disk_usage(place).free
    scarce = free < _SCARCE_DISK_BYTES
    return Check(
        name=name,
        outcome=Outcome.WARN if scarce else Outcome.OK,
        found=f"{directory} can be written, {human_bytes(free)} free",
        remedy="entries are small, Triton's log is not: make room" if scarce else "",
    )


def _nearest(directory: Path) -> Path:
    """The directory itself, or the nearest one above it that exists: where it would be made."""
    directory = directory.absolute()
    return next(place for place in (directory, *directory.parents) if place.exists())


def _memory(settings: Settings) -> Iterator[Check]:
    devices = Devices(host_memory=settings.devices.host_memory, gpu_memory_fraction=settings.devices.gpu_memory_fraction)
    fleet = devices.fleet()
    for device in fleet.devices:
        free = device.total_bytes - device.used_bytes
        short = free < device.budget_bytes // 2
        yield Check(
            name=device.id,
            outcome=Outcome.WARN if short else Outcome.OK,
            found=f"{device.name}: {human_bytes(device.budget_bytes)} for models, {human_bytes(free)} free now",
            remedy="others use much of it: models will not fit before the budget is taken" if short else "",
        )
    if all(device.kind is DeviceKind.HOST for device in fleet.devices):
        yield Check(name="gpu", outcome=Outcome.OK, found="none: models run on the host's processor")
