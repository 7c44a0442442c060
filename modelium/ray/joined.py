"""A Ray cluster of somebody else's: its address enters, its comings and goings leave.

A program can only use a cluster from one of its nodes. Where Triton is embedded and this machine is none, Modelium adds it
as a node that offers nothing; where Triton runs elsewhere, its container does that.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from modelium.config import RaySettings
from modelium.errors import RayUnavailable
from modelium.guarded import Command, GuardedProgram
from modelium.guarded.directories import make_private
from modelium.guarded.program import NotStarted
from modelium.ray.connection import Connection, forget_connection, write_connection
from modelium.ray.dashboard import Dashboard
from modelium.ray.launch import KILL_AFTER_S, node_command, ray_environment
from modelium.runtime_env import RuntimeReport, inspect
from modelium.values import Bundle, RayNode

_ASK_EVERY_S = 1.0
_GONE_AFTER = 3  # unanswered questions in a row
_JOIN_WITHIN_S = 60.0


class JoinedRay:
    """Follows one cluster: ``start()`` returns when it can be used, ``wait()`` when it cannot any more."""

    def __init__(
        self,
        settings: RaySettings,
        *,
        runtime: Path | None,
        state: Path,
        version: str,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        """``runtime`` None: Triton runs elsewhere, and joins by itself. ``version``: of the model runtime's Ray (""
        unknown)."""
        self._settings = settings
        self._runtime = runtime
        self._state = state.absolute()
        self._version = version
        self._environment = environment
        self._node = GuardedProgram(self._state / "ray-node.json", grace_s=KILL_AFTER_S)
        self._directory: Path | None = None
        self._token = os.environ.get("RAY_AUTH_TOKEN", "")
        self.dashboard: Dashboard | None = None
        self.nodes: tuple[RayNode, ...] = ()  # when it was found

    async def start(self) -> None:
        """Raises ``RayUnavailable``: it does not answer, it is of another version, this machine cannot join it."""
        await self.stop()  # a node that joined what has ended is of no use
        self.dashboard = dashboard = Dashboard(self._settings.dashboard, self._token)
        theirs = await dashboard.version()
        if differs := other_version(self._settings.address, theirs, self._version):
            raise RayUnavailable(
                f"{differs}: they have to be the same (change `ray` in triton/constraints.txt, or the cluster)"
            )
        if not await dashboard.healthy():
            raise RayUnavailable(f"the head of the Ray cluster at {self._settings.address} does not answer its own dashboard")
        self.nodes = await dashboard.nodes()
        if not self.nodes:
            raise RayUnavailable(f"the Ray cluster at {self._settings.address} has no nodes yet")
        self._refuse_a_part(self.nodes)
        if self._runtime is not None and not any(is_here(node) for node in self.nodes):
            report = await asyncio.to_thread(inspect, self._runtime.absolute())
            await self._join(report, dashboard)
            self.nodes = await dashboard.nodes()
        connection = Connection(address=self._settings.address, dashboard=self._settings.dashboard, token=self._token)
        await asyncio.to_thread(make_private, self._state)
        await asyncio.to_thread(write_connection, self._state, connection)

    async def wait(self) -> str:
        """Return when its head has not answered several times in a row, or this machine's node ended."""
        assert self.dashboard is not None
        unanswered = 0
        while unanswered < _GONE_AFTER:
            await asyncio.sleep(_ASK_EVERY_S)
            if self._directory is not None and not self._node.running:
                return f"this machine is no node of the Ray cluster at {self._settings.address} any more"
            unanswered = 0 if await self.dashboard.healthy() or await self._head_listens() else unanswered + 1
        return f"the Ray cluster at {self._settings.address} does not answer any more"

    async def _head_listens(self) -> bool:
        """A dashboard may end, or be too busy to answer, beside a head that is well."""
        host, _, port = self._settings.address.rpartition(":")
        try:
            async with asyncio.timeout(_ASK_EVERY_S):
                _, writer = await asyncio.open_connection(host, int(port))
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def stop(self) -> None:
        """Leave the cluster; what is deployed there is removed by the entries' own ends."""
        forget_connection(self._state)
        await self._node.stop()
        directory, self._directory = self._directory, None
        if directory is not None:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def _refuse_a_part(self, nodes: Sequence[RayNode]) -> None:
        """This machine's memory is planned by the byte, and a cluster's by what it promises: it cannot be both."""
        here = [node for node in nodes if is_here(node) and offers(node)]
        if self._settings.on_this_machine is None and here and any(not is_here(node) and offers(node) for node in nodes):
            raise RayUnavailable(
                f"this machine offers {here[0].total.cpus:g} CPUs and {here[0].total.gpus:g} GPUs to the Ray cluster at "
                f"{self._settings.address}, and Modelium plans with them too: start its node with --num-cpus=0 --num-gpus=0 "
                "--memory=0; or set ray.on_this_machine to false, and devices.host_memory to what is Triton's alone"
            )

    async def _join(self, report: RuntimeReport, dashboard: Dashboard) -> None:
        make_private(self._state)
        await asyncio.to_thread(self._node.end_leftovers)
        self._directory = Path(tempfile.mkdtemp(prefix="modelium-ray-", dir="/tmp"))
        log = self._state / "ray-node.log"
        log.unlink(missing_ok=True)
        command = Command(
            arguments=node_command(report, self._settings.address, self._directory / "r"),
            environment=ray_environment(report, self._token, chosen=self._environment),
            directory=self._state,
            log=log,
        )
        try:
            await self._node.start(command)
        except NotStarted as error:
            raise RayUnavailable(f"this machine cannot join the Ray cluster: {error}") from error

        async def joined() -> None:
            while not any(is_here(node) for node in await dashboard.nodes()):  # noqa: ASYNC110 — nothing can wake us
                await asyncio.sleep(0.2)

        waiting = asyncio.create_task(joined())
        try:
            async with asyncio.timeout(_JOIN_WITHIN_S):
                if await self._node.wait_beside(waiting):
                    raise RayUnavailable(f"this machine cannot join the Ray cluster at {self._settings.address}; see {log}")
                await waiting
        except TimeoutError:
            raise RayUnavailable(f"this machine did not become a node of {self._settings.address}; see {log}") from None
        finally:
            waiting.cancel()


def other_version(address: str, theirs: str, ours: str) -> str:
    """What is wrong with the cluster's version beside the model runtime's; "" where nothing is, or ours is not known."""
    return f"the cluster at {address} runs Ray {theirs}, the model runtime has {ours}" if ours and theirs != ours else ""


def offers(node: RayNode) -> bool:
    """Has it anything for others? A node that a program only uses the cluster from has not."""
    return node.total != Bundle()


def runs_here(nodes: Sequence[RayNode]) -> bool:
    """Is all that the cluster offers this machine's?"""
    offered = [node for node in nodes if offers(node)]
    return bool(offered) and all(map(is_here, offered))


def is_here(node: RayNode) -> bool:
    """Is this node a process of this machine's?"""
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    return node.address.startswith("127.") or node.address in own
