"""The embedded Triton: settings enter, a running server at three addresses leaves, and nothing stays after it.

It is a guarded program (``modelium.guarded``): tritonserver from the runtime's site-packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from modelium.config import TritonSettings
from modelium.errors import RuntimeMissing, TritonError
from modelium.guarded import Command, GuardedProgram
from modelium.guarded.addresses import Address, claim_addresses
from modelium.guarded.claims import Held, claim
from modelium.guarded.directories import make_private
from modelium.guarded.program import NotStarted
from modelium.resources import nursery_package, triton_directory
from modelium.runtime_env import RuntimeReport, inspect, read_vllm
from modelium.triton.backends import compose_backends, usable_backends
from modelium.triton.launch import (
    CACHE,
    GRPC_HEADER,
    KILL_AFTER_S,
    Launch,
    command_line,
    hidden_arguments,
    server_environment,
)
from modelium.triton.nurseries import Nurseries
from modelium.values import VllmFacts

_START_WITHIN_S = 60.0
_LOGS_KEPT = 3
_TAIL_LINES = 12


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
        self._program = GuardedProgram(self._state / "server.json", grace_s=KILL_AFTER_S)
        self.backends: frozenset[str] = frozenset()
        self.vllm = VllmFacts()  # of the runtime's vLLM, once started
        self.log_path = self._state / "tritonserver.log"
        self.nurseries = Nurseries(self._state)
        self._secret = secrets.token_hex(32)
        # The addresses in use: as in the settings, a port 0 replaced by the chosen one at the first start.
        self.http_url = settings.http_url
        self.grpc_url = settings.grpc_url
        self.metrics_url = settings.metrics_url

    @property
    def headers(self) -> Mapping[str, str]:
        """What a client has to send to be let at more than inference; known to this process and to the server alone."""
        return {GRPC_HEADER: self._secret}

    @property
    def pid(self) -> int | None:
        """tritonserver's own, while it runs."""
        return self._program.pid

    def claim(self, beside: Mapping[str, str]) -> None:
        """Take the state directory, end what an earlier run left, and choose the three addresses; blocking.

        ``beside``: other addresses that must be free, by key. Raises ``TritonError`` for a port that is taken.
        """
        try:
            make_private(self._state)
            self._take_lock()
            self._program.end_leftovers()
            self.nurseries.end_leftovers()
        except OSError as error:
            raise TritonError(
                f"{self._state} cannot be used ({error}): choose another with `triton.state_directory`"
            ) from error
        self._claim_addresses(beside)

    def _claim_addresses(self, beside: Mapping[str, str]) -> tuple[Address, Address, Address]:
        urls = {"triton.http_url": self.http_url, "triton.grpc_url": self.grpc_url, "triton.metrics_url": self.metrics_url}
        http, grpc, metrics, *_ = claim_addresses({**urls, **beside}, who="Modelium" if beside else "Triton").values()
        self.http_url, self.grpc_url, self.metrics_url = str(http), str(grpc), str(metrics)
        return http, grpc, metrics

    async def start(self) -> None:
        """Start; return when all three ports answer. Both errors say what happened and what to do.

        ``RuntimeMissing``: this machine or its runtime cannot; ``TritonError``: a port is taken, the server ended at once.
        """
        if self._program.running:
            raise TritonError("the embedded Triton runs already")
        report = await asyncio.to_thread(inspect, self._settings.runtime_directory.absolute())
        if report.problems:
            raise RuntimeMissing("\n".join(map(str, report.problems)))
        try:
            launch = await asyncio.to_thread(self._prepare, report)
            await self._start_server(report, launch)
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
        code = await self._program.wait()
        return ServerExit(code=code, intended=self._program.stopping, log_tail=self.log_tail())

    async def stop(self) -> None:
        """End the server, its models' processes and its shared memory; within about 10 s even if all of them hang."""
        await self._program.stop()  # first: it unloads its models, whose stubs would be gone with the nursery's children
        await self.nurseries.stop()
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
            make_private(self._state)
            make_private(self._state / CACHE)  # vLLM runs what it finds there
            repository.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._program.end_leftovers()
            composed = compose_backends(
                self._state / "backends",
                tritonserver=report.tritonserver,
                stub=report.stub,
                python_backends=triton_directory() / "backends",
                nursery=nursery_package(),
            )
            self.vllm = read_vllm(report)
            self.backends = usable_backends(composed, self.vllm)
            self._rotate_log()
        except OSError as error:
            raise TritonError(
                f"{self._state} cannot be used ({error}): choose another with `triton.state_directory`"
            ) from error
        http, grpc, metrics = self._claim_addresses({})
        return Launch(
            http=http,
            grpc=grpc,
            metrics=metrics,
            model_repository=repository,
            backends=self._state / "backends",
            shm_prefix=f"modelium_{uuid.uuid4().hex[:12]}_",
            secret=self._secret,
        )

    async def _start_server(self, report: RuntimeReport, launch: Launch) -> None:
        environment = server_environment(report, self._state, self._settings.environment, nursery=self._settings.nursery)
        if self._settings.nursery and report.python is not None:
            self.nurseries.begin(report.python, environment)
        command = Command(
            arguments=command_line(report, launch),
            environment=environment,
            directory=self._state,
            log=self.log_path,
            shm_prefix=launch.shm_prefix,
            hidden=hidden_arguments(launch),
        )
        try:
            await self._program.start(command)
        except NotStarted as error:
            raise TritonError(f"Triton does not start: {error}; see {self.log_path}") from error

    async def _wait_until_live(self, launch: Launch) -> None:
        probe = asyncio.create_task(_answers(launch))
        try:
            if await self._program.wait_beside(probe):
                code = await self._program.wait()
                raise TritonError(
                    f"Triton ended while it started ({_describe(code)}); the end of its log ({self.log_path}):\n"
                    + "\n".join(self.log_tail())
                )
        finally:
            probe.cancel()

    def _rotate_log(self) -> None:
        older = [self.log_path.with_name(f"{self.log_path.name}.{number}") for number in range(1, _LOGS_KEPT)]
        for target, source in zip(reversed(older), [*reversed(older[:-1]), self.log_path], strict=True):
            if source.exists():
                source.replace(target)

    def _take_lock(self) -> None:
        """Held as long as this server is ours to start: two Modeliums with one state directory would end each other's."""
        if self._lock is not None:
            return
        try:
            self._lock = claim(self._state / "server.lock")
        except Held as holder:
            raise TritonError(
                f"another Modelium ({holder}) uses {self._state}: end it, or choose another `triton.state_directory`"
            ) from None

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


def _describe(code: int | None) -> str:
    return "its guardian was killed" if code is None else _name_exit(code)


def _name_exit(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
