"""Ray's own account of itself: the dashboard's address enters, its version and its nodes leave.

The paths are those of Ray's dashboard (2.60; ``/api/version`` and ``/api/gcs_healthz`` are older than that). Only what is
used here is read, and what a version leaves out counts as nothing. What a node has left is in none of its answers: it is what
the node has, less what actors and placement groups were given, which the head knows at once, and less what tasks were given,
which a node's agent tells every 15 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelium.errors import RayUnavailable
from modelium.sizes import MIB
from modelium.values import Bundle, RayNode

_ANSWER_S = 5.0
_LIST = "detail=1&limit=10000"
_WITHOUT = "filter_keys=state&filter_predicates=!%3D&filter_values="
_REPLICA = "SERVE_REPLICA::"  # of Ray Serve, before "APPLICATION#DEPLOYMENT#ID" (ray/serve/_private/common.py)


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


Answer = TypeVar("Answer", bound=BaseModel)
Row = TypeVar("Row", bound=_Part)


class _Slot(_Part):
    allocation: float = 0.0


class _Slots(_Part):
    slots: list[_Slot] = Field(default=[], alias="resourceSlots")


class _Worker(_Part):
    actor: str | None = Field(default=None, alias="actorId")
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


class _Actor(_Part):
    name: str | None = ""
    node: str | None = Field(default=None, alias="node_id")
    group: str | None = Field(default=None, alias="placement_group_id")
    required: dict[str, float] | None = Field(default=None, alias="required_resources")


class _GroupBundle(_Part):
    node: str | None = Field(default=None, alias="node_id")
    resources: dict[str, float] | None = Field(default=None, alias="unit_resources")


class _Group(_Part):
    name: str | None = ""
    bundles: list[_GroupBundle] | None = None


class _Rows(_Part, Generic[Row]):
    result: list[Row]


class _Listed(_Part, Generic[Row]):
    result: _Rows[Row]


class _Listing(_Part, Generic[Row]):
    """Of the state API."""

    data: _Listed[Row]


@dataclass(frozen=True, slots=True)
class _Given:
    """What somebody was given on a node. ``application``: of Ray Serve, "" for anybody else."""

    node: str
    bundle: Bundle
    application: str = ""


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
        summary = await self._read(_Nodes, "/nodes?view=summary")
        groups = await self._read(_Listing[_Group], f"/api/v0/placement_groups?{_LIST}&{_WITHOUT}REMOVED")
        actors = await self._read(_Listing[_Actor], f"/api/v0/actors?{_LIST}&{_WITHOUT}DEAD")
        nodes = [node for node in summary.data.summary if node.raylet.state == "ALIVE"]
        given = [
            *_given_to_groups(groups.data.result.result),
            *_given_to_actors(actors.data.result.result),
            *_given_to_tasks(nodes),
        ]
        return tuple(_node_of(node, [each for each in given if each.node == node.raylet.node]) for node in nodes)

    async def _read(self, kind: type[Answer], path: str) -> Answer:
        try:
            return kind.model_validate(await self._get(path))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            where = path.partition("?")[0]
            raise RayUnavailable(f"Ray's dashboard at {self._url} says something unknown at {where}: {place}") from None

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=_ANSWER_S))

    async def _get(self, path: str) -> Mapping[str, Any]:
        try:
            async with self._session() as session, session.get(self._url + path) as answer:
                if answer.status in (401, 403):
                    raise RayUnavailable(f"Ray's dashboard at {self._url} wants its token", remedy="set RAY_AUTH_TOKEN")
                if answer.status != 200:
                    raise RayUnavailable(f"Ray's dashboard at {self._url} answers {path} with HTTP {answer.status}")
                body = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise RayUnavailable(f"Ray's dashboard at {self._url} does not answer: {why}") from None
        if not isinstance(body, dict):
            raise RayUnavailable(f"what answers at {self._url} is not Ray's dashboard")
        return body


def _given_to_groups(groups: Iterable[_Group]) -> Iterator[_Given]:
    """What a placement group reserves counts, whether anything runs in it or not."""
    for group in groups:
        for bundle in group.bundles or ():
            if bundle.node:
                yield _Given(bundle.node, _bundle(bundle.resources), _application(group.name))


def _given_to_actors(actors: Iterable[_Actor]) -> Iterator[_Given]:
    """An actor in a placement group takes of what the group has."""
    for actor in actors:
        if actor.node and not actor.group:
            yield _Given(actor.node, _bundle(actor.required), _application(actor.name))


def _given_to_tasks(nodes: Iterable[_Node]) -> Iterator[_Given]:
    for node in nodes:
        for worker in node.raylet.workers:
            if not worker.actor or not worker.actor.strip("0f"):  # Ray's nil is all f
                used = {name: sum(slot.allocation for slot in slots.slots) for name, slots in worker.used.items()}
                yield _Given(node.raylet.node, _bundle(used))


def _bundle(resources: Mapping[str, float] | None) -> Bundle:
    """The resources of a group's own (``CPU_group_…``) are parts of what the group was given."""
    found = resources or {}
    return Bundle(cpus=found.get("CPU", 0.0), gpus=found.get("GPU", 0.0), memory_bytes=int(found.get("memory", 0)))


def _application(name: str | None) -> str:
    """Of the replica that an actor or a placement group is called after."""
    return name.removeprefix(_REPLICA).partition("#")[0] if name and name.startswith(_REPLICA) else ""


def _node_of(node: _Node, given: Sequence[_Given]) -> RayNode:
    """``total`` is what Ray was told the node has."""
    raylet = node.raylet
    total = _bundle(raylet.total)
    held: dict[str, list[Bundle]] = {}
    for each in given:
        if each.application:
            held.setdefault(each.application, []).append(each.bundle)
    return RayNode(
        id=raylet.node,
        address=node.ip or raylet.address,
        total=total,
        free=Bundle(
            cpus=max(0.0, total.cpus - sum(each.bundle.cpus for each in given)),
            gpus=max(0.0, total.gpus - sum(each.bundle.gpus for each in given)),
            memory_bytes=max(0, total.memory_bytes - sum(each.bundle.memory_bytes for each in given)),
        ),
        held={application: tuple(bundles) for application, bundles in held.items()},
        used_bytes=int(node.memory[3]) if len(node.memory) > 3 else 0,
        gpu_bytes=int(min((gpu.total_mib for gpu in node.gpus), default=0) * MIB),
        gpu_used_bytes=int(sum(gpu.used_mib for gpu in node.gpus) * MIB),
    )
