"""What a user might put in front of a model instead: each is started here, and listens on a port of its own.

Starlette and Ray are in the runtime environment; MLServer and LiteLLM get environments of their own below ``.cache/`` when they
are first asked for.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from served import ROOT

from modelium.guarded.addresses import claim_addresses

_BESIDE = Path(__file__).parent / "beside"
_RUNTIME = ROOT / ".runtime" / "bin" / "python"
_PINNED = {"mlserver": ("mlserver==1.7.1", "setuptools<81"), "litellm": ("litellm[proxy]==1.99.4",)}
_INFER = "/v2/models/adder/infer"
_FLOATS = b'{"inputs":[{"name":"x","shape":[4,1],"datatype":"FP32","data":[1,2,3,4]}]}'
PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Where it listens, and its processes."""

    port: int
    pids: tuple[int, ...]


def starlette(triton: int) -> contextlib.AbstractContextManager[Started]:
    """Passes on to Triton's HTTP port."""
    [port] = free_ports()
    command = [str(_RUNTIME), str(_BESIDE / "passing.py"), str(port)]
    return started(command, port, ("POST", _INFER, _FLOATS), TRITON=f"http://127.0.0.1:{triton}")


def ray_serve() -> contextlib.AbstractContextManager[Started]:
    """Answers by itself."""
    [port] = free_ports()
    command = [str(_RUNTIME), str(_BESIDE / "nothing_on_ray.py"), str(port)]
    # With the mode "token", Ray's own choice, it would write a token into the user's home, which all later clusters want.
    return started(command, port, ("POST", _INFER, _FLOATS), RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")


@contextlib.contextmanager
def mlserver() -> Iterator[Started]:
    """Serves an adder of its own."""
    http_port, grpc_port, metrics_port = free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
        model = {"name": "adder", "implementation": "adder_in_mlserver.Adder"}
        (Path(folder) / "model-settings.json").write_text(json.dumps(model))
        command = [str(environment("mlserver") / "mlserver"), "start", folder]
        with started(command, http_port, ("POST", _INFER, _FLOATS), PYTHONPATH=str(_BESIDE)) as found:
            yield found


@contextlib.contextmanager
def litellm(model: str, port_behind: int) -> Iterator[Started]:
    """Passes ``/v1`` on to the OpenAI API at ``port_behind``."""
    [port] = free_ports()
    behind = {"model": f"openai/{model}", "api_base": f"http://127.0.0.1:{port_behind}/v1", "api_key": "none"}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"model_list": [{"model_name": model, "litellm_params": behind}]}, file)
        file.flush()
        command = [str(environment("litellm") / "litellm"), "--config", file.name, "--host", "127.0.0.1", "--port", str(port)]
        with started(command, port, ("GET", "/health/liveliness", None), LITELLM_LOCAL_MODEL_COST_MAP="True") as found:
            yield found


def environment(name: str) -> Path:
    """Where its programs are."""
    place = ROOT / ".cache" / name
    if not (place / "bin" / name).exists():
        uv = str(ROOT / ".venv" / "bin" / "uv")
        subprocess.run([uv, "-q", "venv", "--clear", "--python", sys.executable, str(place)], check=True)
        subprocess.run([uv, "-q", "pip", "install", "--python", str(place / "bin" / "python"), *_PINNED[name]], check=True)
    return place / "bin"


@contextlib.contextmanager
def started(command: list[str], port: int, probe: tuple[str, str, bytes | None], **environment: str) -> Iterator[Started]:
    """It answers ``probe`` (method, path, body) at ``port``; it and its children end with the context."""
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not answers(port, probe):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"{command[0]} does not answer:\n{log.read()[-3000:].decode(errors='replace')}")
                time.sleep(0.2)
            yield Started(port=port, pids=(process.pid, *(child.pid for child in process.children(recursive=True))))
        finally:
            family = [*process.children(recursive=True), process]
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.terminate()
            for one in psutil.wait_procs(family, timeout=20)[1]:
                one.kill()


def answers(port: int, probe: tuple[str, str, bytes | None]) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(*probe, headers={"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_ports(count: int = 1) -> list[int]:
    urls = {f"port {number}": "127.0.0.1:0" for number in range(count)}
    return [address.port for address in claim_addresses(urls, who="a front").values()]
