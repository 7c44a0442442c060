"""How the embedded server is started: what enters are a runtime report, addresses and directories, what leaves are its
command line and environment. Nothing is started here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelium.guarded.addresses import Address
from modelium.guarded.environment import passed_on
from modelium.guarded.guardian import RUN_MARK
from modelium.runtime_env import RuntimeReport

# In-flight requests get this long at the end. Modelium has drained before; a stub that hangs would hold the server for
# all of it (measured: a killed stub blocks the exit for the whole timeout).
EXIT_TIMEOUT_S = 5
KILL_AFTER_S = EXIT_TIMEOUT_S + 3
# What whoever reaches Triton's ports may not do: load a model (with ``file:`` overrides that is to run code), map shared
# memory, read counters, write log and trace files. Asking models, their metadata and health stay open.
RESTRICTED = "model-repository,shared-memory,trace,logging,statistics"
HEADER = "modelium"
GRPC_HEADER = f"triton-grpc-protocol-{HEADER}"  # Triton's own prefix; over HTTP the name stands alone
# Of the environment: without these nothing starts, or is found again.
_OURS = frozenset({"PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "MODELIUM_RAY_FILE", "MODELIUM_NURSERY", RUN_MARK})
CACHE = "cache"  # in the state directory
# Each names what is in it by hashes of all that it depends on (vLLM 0.32: variables, the engine's arguments and the model's
# config, the sources that were traced, torch, compiler, GPU and CUDA). So models and versions share the directories.
_CACHES = {"VLLM_CACHE_ROOT": "vllm", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
_RESTRICTIONS = ("--http-restricted-api", "--grpc-restricted-protocol")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All that a start needs besides the runtime."""

    http: Address
    grpc: Address
    metrics: Address
    model_repository: Path
    backends: Path
    shm_prefix: str
    secret: str = field(repr=False)


def command_line(report: RuntimeReport, launch: Launch) -> list[str]:
    """tritonserver's argument vector, as ``ps`` shows it: ``hidden_arguments`` says what stands for what."""
    return [
        str(report.tritonserver),
        f"--model-repository={launch.model_repository}",
        f"--backend-directory={launch.backends}",
        "--model-control-mode=explicit",
        # Entries written by Modelium state inputs, outputs and policies. Completing them costs a throw-away stub, and with
        # it a second import of torch, on every load (measured: 1.4 s of MiniLM's 4.9).
        "--disable-auto-complete-config",
        "--strict-readiness=false",  # one loading model must not make the whole server unready (server #7014)
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        "--model-load-thread-count=4",
        "--http-thread-count=16",
        f"--http-address={launch.http.host}",
        f"--http-port={launch.http.port}",
        f"--grpc-address={_bracketed(launch.grpc.host)}",
        f"--grpc-port={launch.grpc.port}",
        f"--metrics-address={launch.metrics.host}",
        f"--metrics-port={launch.metrics.port}",
        "--reuse-grpc-port=false",
        "--reuse-http-port=false",
        # Connections that a client keeps open through quiet times may be pinged as often as gRPC's defaults do.
        "--grpc-http2-min-recv-ping-interval-without-data=10000",
        "--allow-metrics=true",
        *(_restriction(flag, "hidden") for flag in _RESTRICTIONS),
        "--log-format=ISO8601",
        # Unique per run and owner: the sweep after a crash takes these and no other server's.
        f"--backend-config=python,shm-region-prefix-name={launch.shm_prefix}",
        "--backend-config=python,shm-default-byte-size=1048576",
        "--backend-config=python,shm-growth-byte-size=1048576",
        "--backend-config=python,stub-timeout-seconds=120",  # importing torch from a cold disk takes longer than 30 s
    ]


def hidden_arguments(launch: Launch) -> dict[str, str]:
    """Arguments of the command line as everybody may see them → as the server gets them."""
    return {_restriction(flag, "hidden"): _restriction(flag, launch.secret) for flag in _RESTRICTIONS}


def _restriction(flag: str, secret: str) -> str:
    return f"{flag}={RESTRICTED}:{HEADER}={secret}"


def server_environment(
    report: RuntimeReport, state: Path, chosen: Mapping[str, str | None] | None = None, *, nursery: bool = False
) -> dict[str, str]:
    """The server's environment, and with it every model's: what of this process's own is needed and no secret, with the
    runtime's Python first. ``chosen``: the user's, which wins over all but what finds that Python.

    The stub's embedded interpreter finds its packages through ``python3`` on PATH. PYTHON* variables it ignores, also
    PYTHONDONTWRITEBYTECODE (measured: ``1/__pycache__`` appears); for the engines that it starts, bytecode is welcome.
    """
    assert report.site_packages is not None and report.python is not None
    libraries = [report.site_packages / "nvidia_pytriton.libs"]
    if report.libpython_directory is not None:
        libraries.append(report.libpython_directory)
    environment = passed_on(os.environ, chosen)
    given = {
        "PATH": os.pathsep.join([str(report.python.parent), environment.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join([*map(str, libraries), *filter(None, [environment.get("LD_LIBRARY_PATH")])]),
        "VIRTUAL_ENV": str(report.directory.absolute()),
        # setproctitle finds a process's title by its first variable, and gives up where that was set anew (as our libraries set
        # TRANSFORMERS_OFFLINE): then `ps` shows no VLLM::EngineCore. Triton starts stubs by bash, which puts this one first.
        "SHELL": environment.get("SHELL", "/bin/sh"),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts: CUDA's own order is by speed where the GPUs differ
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Idle OpenMP threads spin by default, in every model's process: two models on a busy machine then take half a second
        # for what takes 20 ms.
        "OMP_WAIT_POLICY": environment.get("OMP_WAIT_POLICY", "PASSIVE"),
        # Where an entry finds Ray, once there is one (modelium/ray/connection.py).
        "MODELIUM_RAY_FILE": str(state / "ray.json"),
        # Where the stubs of models find the process that their model is born from (triton/nursery/).
        "MODELIUM_NURSERY": str(state / "nursery") if nursery else "off",
        # What engines compile on a GPU takes minutes, and is kept between their loads. By default torch keeps it in /tmp.
        **{name: environment.get(name, str(state / CACHE / part)) for name, part in _CACHES.items()},
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # since 1.29 its Linux builds send what they load (file names, hashes) to their makers
    }
    wins = {name: environment[name] for name in chosen or {} if name in environment and name not in _OURS}
    return environment | given | wins


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
