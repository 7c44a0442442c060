"""A Ray of Modelium's own: settings enter, a cluster of one node at a loopback address leaves, and nothing stays after it.

It is a guarded program: Ray's head, under ``ray start --block``, which ends with any of its parts. Whoever uses it needs a
token that changes with every start and lies in a file of this user's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from modelium.config import RaySettings
from modelium.errors import ModeliumError, RayUnavailable
from modelium.guarded import Command, GuardedProgram
from modelium.guarded.addresses import claim_addresses
from modelium.guarded.directories import make_private
from modelium.guarded.program import NotStarted
from modelium.ray.connection import Connection, forget_connection, write_connection
from modelium.ray.dashboard import Dashboard
from modelium.ray.launch import HOST, KILL_AFTER_S, HeadLaunch, head_command, ray_environment
from modelium.runtime_env import RuntimeReport, inspect
from modelium.values import RayNode

_START_WITHIN_S = 90.0
_ASK_EVERY_S = 0.1
_PREFIX = "modelium-ray-"
_LAST_WORDS = 200_000  # it shows the logs of what has ended
_ENDED = re.compile(r"(\w+) \[exit code=(-?\d+)")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class OwnRay:
    """One head; may be started again after it has ended."""

    def __init__(
        self, settings: RaySettings, *, runtime: Path, state: Path, environment: Mapping[str, str | None] | None = None
    ) -> None:
        """``environment``: what the user chose beside the variables that Ray and its replicas get."""
        self._settings = settings
        self._environment = environment
        self._runtime = runtime.absolute()
        self._state = state.absolute()
        self._program = GuardedProgram(self._state / "ray-program.json", grace_s=KILL_AFTER_S)
        self._directory: Path | None = None  # Ray's sockets and logs; short, for the path of a socket has 107 bytes at most
        self._remembered = self._state / "ray-directory"
        self.log_path = self._state / "ray.log"
        self.dashboard: Dashboard | None = None
        self.nodes: tuple[RayNode, ...] = ()  # when it was started

    async def start(self) -> None:
        """Start; return when its head and its dashboard answer. Raises ``RayUnavailable`` with what happened."""
        self.nodes = ()
        report = await asyncio.to_thread(inspect, self._runtime)
        try:
            launch = await asyncio.to_thread(self._prepare)
            await self._start(report, launch)
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> str:
        """Return when it has ended, with a sentence."""
        code = await self._program.wait()
        words = f"; its last words: {last}" if (last := self._last_words()) and code != -signal.SIGKILL else ""
        await asyncio.to_thread(self._clean_up)
        return f"Modelium's own Ray ended{words}"

    async def stop(self) -> None:
        """End it and everything that runs on it."""
        await self._program.stop()
        await asyncio.to_thread(self._clean_up)

    def _prepare(self) -> HeadLaunch:
        """Everything on disk and the ports; blocking."""
        try:
            make_private(self._state)
            self._program.end_leftovers()
            self._remove_leftover()
            self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
            self._remembered.write_text(f"{self._directory}\n", encoding="utf-8")
        except OSError as error:
            raise RayUnavailable(f"Modelium's own Ray cannot be started: {error}") from error
        addresses = claim_addresses(dict.fromkeys(("gcs", "dashboard", "client"), f"{HOST}:0"), who="Ray")
        # Ray lets everybody write into its directory: it lies in one that is ours alone.
        return HeadLaunch(directory=self._directory / "r", object_store_bytes=self._settings.object_store_memory, **addresses)

    async def _start(self, report: RuntimeReport, launch: HeadLaunch) -> None:
        token = secrets.token_hex(32)
        command = Command(
            arguments=head_command(report, launch),
            environment=ray_environment(report, token, chosen=self._environment),
            directory=self._state,
            log=self.log_path,
        )
        self.log_path.unlink(missing_ok=True)
        try:
            await self._program.start(command)
        except NotStarted as error:
            raise RayUnavailable(f"Modelium's own Ray does not start: {error}; see {self.log_path}") from error
        self.dashboard = Dashboard(f"http://{launch.dashboard}", token)
        await self._until_it_answers(self.dashboard)
        proxy = claim_addresses({"proxy": f"{HOST}:0"}, who="Ray Serve")["proxy"]  # Serve's proxy comes with the first model
        connection = Connection(
            address=str(launch.gcs),
            dashboard=f"http://{launch.dashboard}",
            token=token,
            http_host=proxy.host,
            http_port=proxy.port,
        )
        await asyncio.to_thread(write_connection, self._state, connection)

    async def _until_it_answers(self, dashboard: Dashboard) -> None:
        async def ask() -> None:
            while not (await dashboard.healthy() and await self._has_nodes(dashboard)):  # noqa: ASYNC110 — nothing can wake us
                await asyncio.sleep(_ASK_EVERY_S)

        asking = asyncio.create_task(ask())
        try:
            async with asyncio.timeout(_START_WITHIN_S):
                if await self._program.wait_beside(asking):
                    raise RayUnavailable(
                        f"Modelium's own Ray ended while it started: {self._last_words()}; see {self.log_path}"
                    )
        except TimeoutError:
            raise RayUnavailable(
                f"Modelium's own Ray did not answer within {_START_WITHIN_S:.0f} s; see {self.log_path}"
            ) from None
        finally:
            asking.cancel()

    async def _has_nodes(self, dashboard: Dashboard) -> bool:
        """Its own node is there: before that nothing can be placed."""
        with contextlib.suppress(ModeliumError):
            self.nodes = await dashboard.nodes()
        return bool(self.nodes)

    def _last_words(self) -> str:
        """What of Ray has ended, if it says so; else the last line of the log that says something."""
        try:
            text = self.log_path.read_bytes()[-_LAST_WORDS:].decode("utf-8", "replace")
        except OSError:
            return ""
        text = _COLORS.sub("", text)
        if ended := _ENDED.findall(text):
            return ", ".join(f"{name} ended with {code}" for name, code in dict.fromkeys(ended))
        lines = [line.strip() for line in text.splitlines() if line.strip() and "-----" not in line]
        return lines[-1][-200:] if lines else ""

    def _clean_up(self) -> None:
        """Keep the logs of this run beside Triton's, and nothing else."""
        forget_connection(self._state)
        directory, self._directory = self._directory, None
        if directory is None:
            return
        with contextlib.suppress(OSError):
            kept = self._state / "ray-logs"
            for logs in sorted(directory.glob("r/session_2*/logs")):
                shutil.rmtree(kept, ignore_errors=True)
                shutil.move(logs, kept)
        shutil.rmtree(directory, ignore_errors=True)
        self._remembered.unlink(missing_ok=True)

    def _remove_leftover(self) -> None:
        """The directory of a Ray whose Modelium was killed."""
        with contextlib.suppress(OSError):
            left = self._remembered.read_text(encoding="utf-8").strip()
            if left.startswith(f"/tmp/{_PREFIX}"):
                shutil.rmtree(left, ignore_errors=True)
