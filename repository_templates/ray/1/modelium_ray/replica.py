"""What runs on Ray: a model behind ``infer`` (rows) or ``generate`` (vLLM's stream). Parameters of the entry enter a
constructor.

Computing happens in a thread, so that the actor answers Ray's questions meanwhile; what waits while the thread computes is
computed together next.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .adapters import TABLES, load_adapter


@dataclass(slots=True, eq=False)
class _Waiting:
    """One call: its rows, and who waits for their answers."""

    arrays: dict[str, np.ndarray]
    answer: asyncio.Future[Any]
    cancelled: bool = False
    rows: list[Any] = field(default_factory=list)

    def is_cancelled(self) -> bool:
        return self.cancelled


class TaskReplica:
    """A task of the python runtime, or an adapter for a library that it does not have."""

    def __init__(self, given: Mapping[str, str], device: str, max_rows: int) -> None:
        _see(given["model_path"])
        device = "cuda:0" if device == "cuda" else device  # of those that it sees, which is one
        self._computing: Callable[[], AbstractContextManager[object]] = nullcontext
        self._check: Callable[[dict[str, np.ndarray]], None] = lambda _: None  # a table's NaN may be meant
        if given["way"] in TABLES:
            self._task = load_adapter(given["way"], given, device)
        else:
            self._task = self._load_with_torch(given, device)
        self._max_rows = max_rows
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    def _load_with_torch(self, given: Mapping[str, str], device: str) -> Any:
        from modelium_tasks import start  # noqa: F401  (first: the environment, quick imports)

        import torch  # isort: skip
        from modelium_tasks.finite import check_outputs
        from modelium_tasks.tasks import load_task, read_settings, rehearse_task, take_cores

        self._computing = torch.inference_mode
        take_cores(given.get("torch_threads", ""))
        if given["way"] != "task":
            return load_adapter(given["way"], given, device)
        settings = read_settings(given, device)
        self._check = check_outputs
        task = load_task(settings)
        if trouble := rehearse_task(task, settings.task, json.loads(given["required"])):
            print(f"the rehearsal before the first request went wrong: {trouble}", file=sys.stderr)
        return task

    async def infer(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray] | str:
        """Rows of every input; rows of every output, or a sentence about what is wrong with the request."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        waiting = _Waiting(arrays, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        try:
            return await waiting.answer
        finally:
            waiting.cancelled = True  # also when it is answered: it means nothing then

    async def check_health(self) -> None:
        """Ray asks regularly; raising makes it put another replica in this one's place."""
        if self._worker is not None and self._worker.done():
            raise RuntimeError("the part that computes has ended, which is a defect of Modelium")

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            rows = _count(batch[0])
            while not self._queue.empty() and rows < self._max_rows:
                batch.append(self._queue.get_nowait())
                rows += _count(batch[-1])
            batch = [each for each in batch if not each.cancelled]
            if not batch:
                continue
            for each, said in zip(batch, await asyncio.to_thread(self._compute, batch), strict=True):
                if each.answer.done():
                    continue
                if isinstance(said, Exception):
                    each.answer.set_exception(said)
                else:
                    each.answer.set_result(said)

    def _compute(self, batch: list[_Waiting]) -> list[dict[str, np.ndarray] | str | Exception]:
        """All rows in one go; if that breaks, each call by itself, so that only the one that breaks it fails."""
        from modelium_tasks.arrays import arrays_of, rows_of
        from modelium_tasks.contract import BadInput, BadOutput

        said: dict[int, dict[str, np.ndarray] | str | Exception] = {}
        for number, each in enumerate(batch):
            try:
                each.rows = rows_of(each.arrays, each.is_cancelled)
            except BadInput as error:
                said[number] = str(error)
            except Exception as error:
                said[number] = RuntimeError(f"{type(error).__name__}: {error}")
        good = [number for number in range(len(batch)) if number not in said]
        try:
            with self._computing():
                answers = iter(self._task.answer([row for number in good for row in batch[number].rows]) if good else [])
            for number in good:
                try:
                    said[number] = arrays = arrays_of([next(answers) for _ in batch[number].rows])
                    self._check(arrays)
                except BadOutput as error:
                    said[number] = RuntimeError(str(error))
                except BadInput as error:
                    said[number] = str(error)
        except Exception as error:
            if len(good) == 1:
                said[good[0]] = RuntimeError(f"{type(error).__name__}: {error}")
            else:
                said |= {number: self._compute([batch[number]])[0] for number in good}
        return [said[number] for number in range(len(batch))]


class EngineReplica:
    """vLLM, asked and answering as Triton's vLLM backend."""

    async def __init__(self, given: Mapping[str, str], visible_devices: str) -> None:  # type: ignore[misc]  # as Ray takes it
        from vllm_backend import environment, processes

        arguments = json.loads(given["engine"])
        _see(arguments["model"])
        environment.prepare(given["name"], kind="MODEL", device_id=-1, gpus=visible_devices, engine_args=arguments)
        # Its processes end with this one, however that ends.
        self._group = processes.lead_group()
        processes.start_guard(self._group)
        from vllm_backend import compat

        self._compat = compat
        self._llm = compat.start_engine(compat.engine_args(arguments), None, fork=False)
        await self._llm.reset_mm_cache()
        tasks = tuple(await self._llm.get_supported_tasks())
        if "generate" not in tasks:
            raise RuntimeError(f"vLLM generates no text with this model; it does {', '.join(tasks)}")
        self._fields = compat.sampling_fields()
        await compat.rehearse(self._llm)

    async def check_health(self) -> None:
        """Ray asks regularly; raising makes it put another replica in this one's place."""
        await self._llm.check_health()

    async def generate(self, ask: Any) -> AsyncIterator[tuple[dict[str, Any], bool] | str]:
        """Outputs as they come, the last one marked; or a sentence about what is wrong with the request."""
        from vllm_backend import generating, tensors, words
        from vllm_backend.errors import BadRequest
        from vllm_backend.parameters import read_parameters

        try:
            if ask.embedding is not None:
                raise BadRequest("an engine behind Ray generates text; it makes no embeddings")
            given = dict(ask.parameters)
            if given.pop("lora_name", None) is not None:
                raise BadRequest("an engine behind Ray has no LoRA adapters")
            own = words.take(given)
            values = read_parameters(given, self._fields, others=words.NAMES)
            params = self._compat.sampling_params(values, stream=ask.stream)
            prompt = own.prompt(ask.prompt)
            if ask.images:
                prompt["multi_modal_data"] = {"image": await asyncio.to_thread(tensors.decode, ask.images)}
            responses, outputs = generating.begin(self._llm, ask, own, prompt, params, None)
            try:
                async for output in outputs:
                    yield responses.tensors(output), output.finished
            finally:
                await outputs.aclose()
        except BadRequest as error:
            yield str(error)


def _count(waiting: _Waiting) -> int:
    return max(len(array) for array in waiting.arrays.values())


def _see(path: str) -> None:
    if not os.path.exists(path):  # noqa: PTH110
        raise RuntimeError(
            f"the node {socket.gethostname()} of the Ray cluster does not see {path}: mount the models there, under the "
            "same path"
        )
