"""``python -m tests.clients``: each client asks a model in each state. The words of the command line enter, a table leaves.

Clients run in processes of their own: those of Modelium's environment, those of ``.clients`` (Python) and those of
``.clients/node``, as ``make clients`` installs them. What is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.clients.asked import ADDER, CHAT, CLIENTS, At, Outcome
from tests.clients.process import MODULES
from tests.clients.states import BROKEN, State, asked_in, break_folder, is_right, shows
from tests.models import CACHE, ensure_models, minilm
from tests.models.language import ensure_language_models
from tests.server.systems import HEAVY, ROOT, System, system, write_adder, write_unloadable

_PYTHON = ROOT / ".clients" / "bin" / "python"
_NODE = ROOT / ".clients" / "node"
_LIBRARIES = "tests.clients.of_libraries"
# Nobody asks the internet.
_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "AI_SDK_LOG_WARNINGS": "0",
}
assert MODULES


class Process:
    """The clients of one environment. Started when it is first asked, and anew after one that hung."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._running: asyncio.subprocess.Process | None = None

    async def ask(self, name: str, at: At) -> Outcome:
        if self._running is None or self._running.returncode is not None:
            environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | _QUIET
            pipe = asyncio.subprocess.PIPE
            self._running = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environment, limit=2**20
            )
        assert self._running.stdin is not None and self._running.stdout is not None
        self._running.stdin.write(json.dumps({"client": name, **asdict(at)}).encode() + b"\n")
        try:
            line = await self._running.stdout.readline()
        except asyncio.CancelledError:
            await self.end()
            raise
        if not line:
            return Outcome(seconds=0, error="the client's process ended")
        return Outcome(**json.loads(line))

    async def end(self) -> None:
        if self._running is not None:
            with suppress(ProcessLookupError):
                self._running.kill()
            await self._running.wait()


async def _clients_of_node(process: Process) -> Mapping[str, str]:
    """The names and models that the node side has."""
    answer = await process.ask("", At(http="", grpc="", model="", files="", page=0))
    found: dict[str, str] = json.loads(answer.answer)
    return found


@asynccontextmanager
async def all_models(directory: Path, names: Sequence[str], page: int) -> AsyncIterator[tuple[System, Path]]:
    """A Modelium with each model, and beside each one that cannot be loaded."""
    tasks = sorted(set(names) - {ADDER, CHAT, "minilm"})
    models = ensure_models(names=tasks) if tasks else CACHE
    folders = {name: models / name for name in tasks}
    if "minilm" in names:
        folders["minilm"] = minilm()
    if CHAT in names:
        folders[CHAT] = ensure_language_models() / CHAT
    policies = {"evict_after_idle_seconds": 3600, "load_retries": 0} | (HEAVY if CHAT in names else {})
    settings = {"load_on_discovery": False, "policies": policies}
    gateway = {"shared_memory": True, "cors_origins": [f"http://127.0.0.1:{page}"]}
    async with system(directory, gateway=gateway, devices={"host_memory": "14GiB"}, orchestration=settings) as running:
        for name, folder in folders.items():
            beside = directory / name
            shutil.copytree(folder, beside)
            beside.rename(running.incoming / name)
            break_folder(folder, running.incoming / f"{BROKEN}{name}")
        if ADDER in names:
            write_adder(running.incoming / f"{ADDER}.onnx")
            write_unloadable(running.incoming / f"{BROKEN}{ADDER}.onnx")
        for name in (*folders, *([ADDER] if ADDER in names else [])):
            for each in (name, BROKEN + name):
                await running.becomes(each, "UNLOADED")
        yield running, models / "files"


async def ask_all(only: str) -> list[dict[str, Any]]:
    """A row for each client and state."""
    own, libraries = (
        Process([sys.executable, "-m", "tests.clients.process"]),
        Process([str(_PYTHON), "-m", "tests.clients.process"]),
    )
    node = Process(["node", str(_NODE / "probes.mjs")])
    who: list[tuple[str, str, Process]] = []
    for name, client in CLIENTS.items():
        is_library = client.ask.__module__ == _LIBRARIES
        if not is_library or _PYTHON.is_file():
            who.append((name, client.model, libraries if is_library else own))
    if (_NODE / "probes.mjs").is_file():
        who += [(name, model, node) for name, model in (await _clients_of_node(node)).items()]
    who = [each for each in who if only in each[0]]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        page = free.getsockname()[1]
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="modelium-clients-") as directory:
            async with all_models(Path(directory), [model for _, model, _ in who], page) as (modelium, files):
                for name, model, process in who:
                    for state in State:
                        rows.append(await _row(modelium, files, page, name, model, process, state))
                        print(_line(rows[-1]), flush=True)
    finally:
        for each in (own, libraries, node):
            await each.end()
    return rows


async def _row(
    modelium: System, files: Path, page: int, name: str, model: str, process: Process, state: State
) -> dict[str, Any]:
    async def ask(called: str) -> Outcome:
        running = modelium.running
        at = At(http=running.gateway_url, grpc=running.grpc_url or "", model=called, files=str(files), page=page)
        return await process.ask(name, at)

    outcome = await asked_in(modelium, state, model, ask)
    return {
        "client": name,
        "model": model,
        "state": state.value,
        "right": is_right(state, outcome) and not shows(outcome, modelium),
        **asdict(outcome),
    }


def _line(row: Mapping[str, Any]) -> str:
    said = row["answer"] or f"{row['error']}: {row['words']}"
    mark = "" if row["right"] else "WRONG "
    return f"{row['client']:<58} {row['state']:<15} {row['seconds']:7.2f} s  {mark}{said[: None if mark else 70]}"


def main() -> None:
    """Ends with 1 where an outcome is not the right one."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--only", default="", help="clients whose name has this in it")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    for what, where in (("libraries of Python", _PYTHON), ("libraries of node", _NODE / "probes.mjs")):
        if not where.is_file():
            print(f"{what} are left out: `make clients` installs them", file=sys.stderr)
    logging.getLogger().addHandler(logging.NullHandler())  # what fails to load is meant to
    rows = asyncio.run(ask_all(arguments.only))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    wrong = [row for row in rows if not row["right"]]
    print(f"{len(rows)} outcomes, {len(wrong)} of them wrong")
    sys.exit(bool(wrong))
