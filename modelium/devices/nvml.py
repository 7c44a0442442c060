"""NVIDIA GPUs through NVML: what leaves are the GPUs that CUDA programs started from here see, in CUDA's order.

No driver, no library, a lost GPU, MIG: each is an absence, never an exception. Initialised once, and again (at most twice a
minute) after the driver went away under us.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

import pynvml

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_TRY_AGAIN_S = 30.0
_DRIVER_LOST = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    pynvml.NVML_ERROR_UNKNOWN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """``index`` is the ordinal that CUDA and Triton use: the place in ``CUDA_VISIBLE_DEVICES`` where that is set."""

    index: int
    name: str
    uuid: str
    total_bytes: int
    used_bytes: int


class Nvml:
    """One NVML session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready = False
        self._not_before = 0.0

    def gpus(self) -> tuple[Gpu, ...]:
        """Those that answer; one that does not is left out."""
        with self._lock:
            found = (self._read_gpu(index, handle) for index, handle in enumerate(self._handles()))
            return tuple(gpu for gpu in found if gpu is not None)

    def process_bytes(self, index: int, pids: frozenset[int]) -> int:
        """What these processes hold on one GPU; 0 where NVML cannot tell (MIG, process ids of another namespace)."""
        with self._lock:
            handles = self._handles()
            if index >= len(handles):
                return 0
            running: Sequence[Any] = self._ask(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handles[index]), ())
            # A process is listed once for each GPU instance it uses; usedGpuMemory is None where the driver won't tell.
            return sum(process.usedGpuMemory or 0 for process in running if process.pid in pids)

    def residue_bytes(self, index: int, ours: frozenset[int]) -> int | None:
        """What is taken on one GPU by the processes ``ours``, or by none that NVML knows of; None where it cannot tell.

        Processes are known by what they hold, also those of other namespaces, whose ids mean nothing here.
        """
        with self._lock:
            handles = self._handles()
            handle = handles[index] if index < len(handles) else None
            if handle is None:
                return None
            held: dict[int, int] = {}
            for question in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
                running: Sequence[Any] | None = self._ask(partial(question, handle), None)
                if running is None or any(process.usedGpuMemory is None for process in running):
                    return None
                for process in running:  # one that computes and draws is in both
                    held[process.pid] = max(held.get(process.pid, 0), process.usedGpuMemory)
            # Read last: a process that began meanwhile is taken for nobody's, which a second look corrects.
            memory = self._ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle), None)
            if memory is None:
                return None
            return max(0, int(memory.used) - sum(size for pid, size in held.items() if pid not in ours))

    def _handles(self) -> list[Any]:
        if not self._initialise():
            return []
        count = self._ask(pynvml.nvmlDeviceGetCount, 0)
        handles = [self._handle(index) for index in range(count)]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return self._without_divided(handles)
        chosen = (self._find(token.strip(), handles) for token in visible.split(","))
        known = takewhile(lambda handle: handle is not None, chosen)  # CUDA stops at the first that it doesn't know
        return self._without_divided(list(known))

    def _without_divided(self, handles: Sequence[Any]) -> list[Any]:
        """A GPU in MIG mode is none: CUDA sees one of its instances, the first that there is, and then nothing else (MIG User
        Guide, "CUDA Device Enumeration")."""
        whole: list[Any] = []
        for handle in handles:
            if handle is None or not self._is_divided(handle):
                whole.append(handle)
            elif (instance := self._first_instance(handle)) is not None:
                return [instance]
        return whole

    def _is_divided(self, handle: Any) -> bool:
        """True for a MIG instance too, which is its own first one."""
        if self._ask(lambda: pynvml.nvmlDeviceIsMigDeviceHandle(handle), 0):
            return True
        current, _ = self._ask(lambda: pynvml.nvmlDeviceGetMigMode(handle), (pynvml.NVML_DEVICE_MIG_DISABLE, 0))
        return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)

    def _first_instance(self, handle: Any) -> Any | None:
        if self._ask(lambda: pynvml.nvmlDeviceIsMigDeviceHandle(handle), 0):
            return handle
        most = self._ask(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(handle), 0)
        found = (self._ask(partial(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place), None) for place in range(most))
        return next((instance for instance in found if instance is not None), None)

    def _handle(self, index: int) -> Any | None:
        return self._ask(lambda: pynvml.nvmlDeviceGetHandleByIndex(index), None)

    def _find(self, token: str, handles: Sequence[Any]) -> Any | None:
        """CUDA's words: an ordinal, or (the beginning of) a GPU's UUID, or a MIG instance's UUID."""
        if token.isdigit():
            return handles[int(token)] if int(token) < len(handles) else None
        if token.startswith("MIG-"):
            return self._ask(lambda: pynvml.nvmlDeviceGetHandleByUUID(token), None)
        named = [h for h in handles if h is not None and token and self._uuid(h).startswith(token)]
        return named[0] if len(named) == 1 else None

    def _read_gpu(self, index: int, handle: Any) -> Gpu | None:
        if handle is None:
            return None
        memory = self._ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle), None)
        if memory is None:  # lost, or it shares the host's memory and has none of its own
            return None
        name = self._ask(lambda: pynvml.nvmlDeviceGetName(handle), "GPU")
        return Gpu(
            index=index, name=_text(name), uuid=self._uuid(handle), total_bytes=int(memory.total), used_bytes=int(memory.used)
        )

    def _uuid(self, handle: Any) -> str:
        return _text(self._ask(lambda: pynvml.nvmlDeviceGetUUID(handle), ""))

    def _initialise(self) -> bool:
        if self._ready or time.monotonic() < self._not_before:
            return self._ready
        self._not_before = time.monotonic() + _TRY_AGAIN_S
        try:
            pynvml.nvmlInit()
        except (pynvml.NVMLError, OSError) as error:
            _log.debug("no GPU to be seen: %s", error)
            return False
        self._ready = True
        return True

    def _ask(self, question: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return question()
        except pynvml.NVMLError as error:
            if error.value in _DRIVER_LOST and self._ready:
                _log.warning("NVML stopped answering (%s); GPUs are left out until it is back", error)
                self._ready = False
                self._not_before = time.monotonic() + _TRY_AGAIN_S
            return otherwise


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
