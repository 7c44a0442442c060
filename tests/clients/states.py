"""A model in each state while a client asks it: a running Modelium and a way to ask enter, the outcome leaves."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

from safetensors.numpy import load_file, save_file

from tests.clients.asked import PATIENCE_S, Outcome
from tests.server.systems import System

BROKEN = "broken-"  # in front of the name of a model whose twin cannot be loaded
HUNG = "hung"


class State(StrEnum):
    """What the model is doing when the request comes."""

    LOADED = "loaded"
    AWAY = "not loaded"
    LEAVING = "being unloaded"
    FAILS = "fails to load"


Ask = Callable[[str], Awaitable[Outcome]]  # with the name of the model


def is_right(state: State, outcome: Outcome) -> bool:
    """An answer; or of a model that cannot be loaded the client's own error, with the gateway's words in it."""
    if state is not State.FAILS:
        return bool(outcome.answer)
    return bool(outcome.error) and outcome.error != HUNG and BROKEN in outcome.words and "load" in outcome.words


def shows(outcome: Outcome, modelium: System) -> bool:
    """Whether it tells a client where something lies on the server."""
    return str(modelium.incoming.parent) in outcome.words


async def asked_in(modelium: System, state: State, name: str, ask: Ask) -> Outcome:
    """Bring the model ``name`` into ``state``, and ask it."""
    match state:
        case State.LOADED:
            await _load(modelium, name)
            return await _bounded(ask(name))
        case State.AWAY:
            await modelium.post(f"/models/{name}/unload")
            await modelium.becomes(name, "UNLOADED")
            return await _bounded(ask(name))
        case State.LEAVING:
            return await _while_leaving(modelium, name, ask)
        case State.FAILS:
            await _mend(modelium, BROKEN + name)
            return await _bounded(ask(BROKEN + name))


async def _while_leaving(modelium: System, name: str, ask: Ask) -> Outcome:
    """The unload waits for a request of somebody else's, which ends when the client waits (or has its answer)."""
    await _load(modelium, name)
    with await modelium.running.controller.lease(name, timeout_s=PATIENCE_S):
        unload = asyncio.create_task(modelium.post(f"/models/{name}/unload"))
        await modelium.becomes(name, "DRAINING")
        asking = asyncio.create_task(_bounded(ask(name)))
        while not asking.done() and not (await modelium.get(f"/models/{name}"))["waiting"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    outcome = await asking
    await unload
    return outcome


async def _load(modelium: System, name: str) -> None:
    status, said = await modelium.post(f"/models/{name}/load")
    assert status == 200, said


async def _mend(modelium: System, name: str) -> None:
    """A folder that was touched is tried again: the client is the one whose request begins the load that fails."""
    if (await modelium.get(f"/models/{name}"))["state"] != "UNLOADED":
        path = modelium.incoming / name
        for file in (path, *path.glob("*.safetensors")) if path.is_dir() else [path.with_name(f"{name}.onnx")]:
            file.touch()
        await modelium.becomes(name, "UNLOADED")


async def _bounded(asking: Awaitable[Outcome]) -> Outcome:
    try:
        return await asyncio.wait_for(asking, PATIENCE_S + 30)
    except TimeoutError:
        return Outcome(seconds=PATIENCE_S + 30, error=HUNG)


def break_folder(source: Path, folder: Path) -> Path:
    """A copy of a model one of whose tensors is too small: its headers are well-formed, and no runtime can load it."""
    beside = folder.with_name(f".{folder.name}")
    shutil.copytree(source, beside)
    (file, *_) = sorted(beside.rglob("*.safetensors"))
    tensors = load_file(file)
    largest = max(tensors, key=lambda name: tensors[name].nbytes)
    tensors[largest] = tensors[largest][:-1].copy()
    save_file(tensors, file, metadata={"format": "pt"})
    return beside.rename(folder)
