"""Ray's own account of itself: the dashboard's address enters, its version and its nodes leave.

The paths are those of Ray's dashboard (2.60; ``/api/version`` and ``/api/gcs_healthz`` are older than that). Only what is
used here is read, and what a version leaves out counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelium.errors import RayUnavailable
from modelium.values import Bundle, RayNode

_ANSWER_S = 5.0
_MIB = 2**20


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Slot(_Part):
    allocation: float = 0.0


class _Slots(_Part):
    slots: list[_Slot] = Field(default=[], alias="resourceSlots")


class _Worker(_Part):
    used: dict[str, _Slots] = Field(default={}, alias="usedResources")


class _Raylet(_Part):
    node: str = Field(default="", alias="nodeId")
    address: str = Field(default="", alias="nodeManagerAddress")  # known before the node's agent says anything
    state: str = "ALIVE"
    total: dict[str, float] = Field(default={}, alias="resourcesTotal")
    workers: list[_Worker] = Field(default=[], alias="coreWorkersStats")


class _Gpu(_Part):
    total_mib: float = Field(default=0, alias="memoryTotal")
    used_mib: float = Field(default=0, alias="memoryUsed")


class _Node(_Part):
    ip: str = ""
    memory: list[float] = Field(default=[], alias="mem")  # total, available, percent, used
    gpus: list[_Gpu] = []
    raylet: _Raylet = _Raylet()


class _Summary(_Part):
    summary: list[_Node]


class _Nodes(_Part):
    data: _Summary


class Dashboard:
    """One dashboard. Make it inside the event loop that uses it."""

    def __init__(self, url: str, token: str = "") -> None:
        """``token``: of a cluster with ``RAY_AUTH_MODE=token``, "" for none."""
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def version(self) -> str:
        """Like ``2.60.0``. Raises ``RayUnavailable``."""
        return str((await self._get("/api/version")).get("ray_version", ""))

    async def healthy(self) -> bool:
        """Does the dashboard answer, and does it reach the cluster's head (its GCS)?"""
        try:
            async with self._session() as session, session.get(f"{self._url}/api/gcs_healthz") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def nodes(self) -> tuple[RayNode, ...]:
        """Every node that lives. Raises ``RayUnavailable``."""
        try:
            found = _Nodes.model_validate(await self._get("/nodes?view=summary"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise RayUnavailable(f"Ray's dashboard at {self._url} says something unknown of its nodes: {place}") from None
        return tuple(_node_of(node) for node in found.data.summary if node.raylet.state == "ALIVE")

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=_ANSWER_S))

    async def _get(self, path: str) -> Mapping[str, Any]:
        try:
            async with self._session() as session, session.get(self._url + path) as answer:
                if answer.status in (401, 403):
                    raise RayUnavailable(f"Ray's dashboard at {self._url} wants its token: set RAY_AUTH_TOKEN")
                if answer.status != 200:
                    raise RayUnavailable(f"Ray's dashboard at {self._url} answers {path} with HTTP {answer.status}")
                body = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise RayUnavailable(f"Ray's dashboard at {self._url} does not answer: {why}") from None
        if not isinstance(body, dict):
            raise RayUnavailable(f"what answers at {self._url} is not Ray's dashboard")
        return body


def _node_of(node: _Node) -> RayNode:
    """``total`` is what Ray was told the node has, ``free`` that without what its workers were given."""
    raylet = node.raylet
    used = {
        name: sum(slot.allocation for worker in raylet.workers for slot in worker.used.get(name, _Slots()).slots)
        for name in ("CPU", "GPU", "memory")
    }
    total = Bundle(
        cpus=raylet.total.get("CPU", 0.0), gpus=raylet.total.get("GPU", 0.0), memory_bytes=int(raylet.total.get("memory", 0))
    )
    return RayNode(
        id=raylet.node,
        address=node.ip or raylet.address,
        total=total,
        free=Bundle(
            cpus=max(0.0, total.cpus - used["CPU"]),
            gpus=max(0.0, total.gpus - used["GPU"]),
            memory_bytes=max(0, total.memory_bytes - int(used["memory"])),
        ),
        used_bytes=int(node.memory[3]) if len(node.memory) > 3 else 0,
        gpu_bytes=int(min((gpu.total_mib for gpu in node.gpus), default=0) * _MIB),
        gpu_used_bytes=int(sum(gpu.used_mib for gpu in node.gpus) * _MIB),
    )
