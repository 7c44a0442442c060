"""The embedded Triton: settings enter, a running server at three addresses leaves, and nothing stays after it.

Modelium starts the guardian (guardian.py), the guardian starts tritonserver from the runtime's site-packages. Whether by
``stop()``, a crash or kill -9 of anyone in that chain: the process tree and the shared memory are gone seconds later.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import modelium
from modelium.config import TritonSettings
from modelium.errors import RuntimeMissing, TritonError
from modelium.resources import triton_directory
from modelium.runtime_env import RuntimeReport, inspect, read_vllm
from modelium.triton.addresses import claim_addresses
from modelium.triton.backends import compose_backends, usable_backends
from modelium.triton.guardian import RUN_MARK, Orders
from modelium.triton.launch import KILL_AFTER_S, Launch, command_line, server_environment
from modelium.triton.leftovers import end_leftovers
from modelium.values import VllmFacts

_START_WITHIN_S = 60.0
_LOGS_KEPT = 3
_TAIL_LINES = 12
_BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); from modelium.triton.guardian import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerExit:
    """How a run of the server ended. ``code`` is negative for a signal, None when the guardian itself was killed."""

    code: int | None
    intended: bool
    log_tail: tuple[str, ...]

    def __str__(self) -> str:
        if self.intended:
            return "Triton was stopped"
        how = "together with its guardian" if self.code is None else _name_exit(self.code)
        # A kill leaves no last words: what stands last in the log then is about something else.
        last = self.log_tail[-1] if self.log_tail and self.code != -signal.SIGKILL else ""
        return f"Triton ended {how}" + (f"; its last words: {last}" if last else "")


class EmbeddedServer:
    """One embedded Triton; may be started again after it has ended."""

    def __init__(self, settings: TritonSettings) -> None:
        self._settings = settings
        self._state = settings.state_directory.absolute()
        self._lock: int | None = None
        self._guardian: asyncio.subprocess.Process | None = None
        self._end: asyncio.Task[ServerExit] | None = None
        self._stopping = False
        self.pid: int | None = None  # tritonserver's own, while it runs
        self.backends: frozenset[str] = frozenset()
        self.vllm = VllmFacts()  # of the runtime's vLLM, once started
        self.log_path = self._state / "tritonserver.log"
        # The addresses in use: as in the settings, a port 0 replaced by the chosen one at the first start.
        self.http_url = settings.http_url
        self.grpc_url = settings.grpc_url
        self.metrics_url = settings.metrics_url

    async def start(self) -> None:
        """Start; return when all three ports answer. Both errors say what happened and what to do.

        ``RuntimeMissing``: this machine or its runtime cannot; ``TritonError``: a port is taken, the server ended at once.
        """
        if self._end is not None and not self._end.done():
            raise TritonError("the embedded Triton runs already")
        self._stopping = False
        report = await asyncio.to_thread(inspect, self._settings.runtime_directory.absolute())
        if report.problems:
            raise RuntimeMissing("\n".join(report.problems))
        try:
            launch = await asyncio.to_thread(self._prepare, report)
            await self._start_guardian(report, launch)
            async with asyncio.timeout(_START_WITHIN_S):
                await self._wait_until_live(launch)
        except TimeoutError:
            await self.stop()
            raise TritonError(
                f"Triton did not answer within {_START_WITHIN_S:.0f} s; the end of its log ({self.log_path}):\n"
                + "\n".join(self.log_tail())
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> ServerExit:
        """Wait until the server and everything below it is gone."""
        if self._end is None:
            raise TritonError("the embedded Triton was not started")
        return await asyncio.shield(self._end)

    async def stop(self) -> None:
        """End the server, its models' processes and its shared memory; within about 10 s even if all of them hang."""
        self._stopping = True
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self._guardian.stdin.close()  # the leash: its end is the order
        if self._end is not None:
            try:
                async with asyncio.timeout(KILL_AFTER_S + 8.0):
                    await asyncio.shield(self._end)
            except TimeoutError:
                if self._guardian is not None:
                    self._guardian.kill()
                await asyncio.shield(self._end)
        self._unlock()

    def log_tail(self, lines: int = _TAIL_LINES) -> tuple[str, ...]:
        """The last lines of the server's log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - 16_384))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ()
        return tuple(line for line in text.splitlines() if line.strip())[-lines:]

    # -- starting ------------------------------------------------------------------------------------------------

    def _prepare(self, report: RuntimeReport) -> Launch:
        """Everything on disk and the ports; blocking."""
        assert report.tritonserver is not None and report.stub is not None
        repository = self._settings.model_repository.absolute()
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            repository.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            end_leftovers(self._record_path)
            composed = compose_backends(
                self._state / "backends",
                tritonserver=report.tritonserver,
                stub=report.stub,
                python_backends=triton_directory() / "backends",
            )
            self.vllm = read_vllm(report)
            self.backends = usable_backends(composed, self.vllm)
            self._rotate_log()
        except OSError as error:
            raise TritonError(
                f"{self._state} cannot be used ({error}): choose another with `triton.state_directory`"
            ) from error
        addresses = claim_addresses(
            {"triton.http_url": self.http_url, "triton.grpc_url": self.grpc_url, "triton.metrics_url": self.metrics_url}
        )
        http, grpc, metrics = addresses.values()
        self.http_url, self.grpc_url, self.metrics_url = str(http), str(grpc), str(metrics)
        mark = uuid.uuid4().hex[:12]
        return Launch(
            http=http,
            grpc=grpc,
            metrics=metrics,
            model_repository=repository,
            backends=self._state / "backends",
            shm_prefix=f"modelium_{mark}_",
            run_mark=mark,
        )

    async def _start_guardian(self, report: RuntimeReport, launch: Launch) -> None:
        orders = Orders(
            command=command_line(report, launch),
            environment=server_environment(report, (RUN_MARK, launch.run_mark)),
            directory=str(self._state),
            log=str(self.log_path),
            record=str(self._record_path),
            shm_prefix=launch.shm_prefix,
            grace_s=KILL_AFTER_S,
            owner=os.getpid(),
        )
        try:
            guardian = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _BOOTSTRAP, str(Path(modelium.__file__).parent.parent)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=None,
                env={"LC_ALL": "C.UTF-8"},
                # Ctrl-C in a terminal goes to the whole group: the server must outlive it, to be drained.
                start_new_session=True,
            )
        except OSError as error:
            raise TritonError(f"Triton's guardian cannot be started: {error}") from error
        assert guardian.stdin is not None and guardian.stdout is not None
        self._guardian = guardian
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._end = asyncio.create_task(self._follow(guardian, started.set_result), name="embedded-triton")
        with contextlib.suppress(ConnectionError):
            guardian.stdin.write(json.dumps(asdict(orders)).encode() + b"\n")
            await guardian.stdin.drain()
        waits: set[asyncio.Future[Any]] = {started, self._end}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            raise TritonError(f"Triton's guardian ended at once; see {self.log_path}")
        self.pid = started.result()

    async def _follow(self, guardian: asyncio.subprocess.Process, on_started: Callable[[int], None]) -> ServerExit:
        """Read the guardian's words to the end; clean up in its place if it was killed."""
        assert guardian.stdout is not None
        code: int | None = None
        finished = False
        async for line in guardian.stdout:
            match json.loads(line):
                case {"event": "started", "pid": int(pid)}:
                    on_started(pid)
                case {"event": "ended", "code": int() | None as code}:
                    finished = True
        await guardian.wait()
        self.pid = None
        if not finished:
            await asyncio.to_thread(end_leftovers, self._record_path)
        return ServerExit(code=code, intended=self._stopping, log_tail=self.log_tail())

    async def _wait_until_live(self, launch: Launch) -> None:
        assert self._end is not None
        probe = asyncio.create_task(_answers(launch))
        waits: set[asyncio.Future[Any]] = {probe, self._end}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._end.done():
                raise TritonError(
                    f"Triton ended while it started ({_describe(self._end.result())}); the end of its log ({self.log_path}):\n"
                    + "\n".join(self.log_tail())
                )
        finally:
            probe.cancel()

    @property
    def _record_path(self) -> Path:
        return self._state / "server.json"

    def _rotate_log(self) -> None:
        older = [self.log_path.with_name(f"{self.log_path.name}.{number}") for number in range(1, _LOGS_KEPT)]
        for target, source in zip(reversed(older), [*reversed(older[:-1]), self.log_path], strict=True):
            if source.exists():
                source.replace(target)

    def _take_lock(self) -> None:
        """Held as long as this server is ours to start: two Modeliums with one state directory would end each other's."""
        if self._lock is not None:
            return
        path = self._state / "server.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode() or "?"
            os.close(descriptor)
            raise TritonError(
                f"another Modelium (process {holder}) uses {self._state}: end it, or choose another `triton.state_directory`"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._lock = descriptor

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


async def _answers(launch: Launch) -> None:
    """Return once the server is live; the metrics port is the last that Triton opens."""
    for address in (launch.grpc, launch.metrics, launch.http):
        while not await _accepts(address.host, address.port):  # noqa: ASYNC110 — nothing of ours can wake us
            await asyncio.sleep(0.03)


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _describe(end: ServerExit) -> str:
    return "its guardian was killed" if end.code is None else _name_exit(end.code)


def _name_exit(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
