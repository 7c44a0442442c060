"""Ray as the rest of Modelium uses it: settings enter, what is known of Ray leaves at any time, and a way to wait until it
is up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from modelium.config import Settings
from modelium.errors import ModeliumError, RayUnavailable
from modelium.guarded.supervisor import Supervisor
from modelium.ray.joined import JoinedRay, offers, runs_here
from modelium.ray.own import OwnRay
from modelium.values import Bundle, Problem, Ray, RayFacts, RayNode, RayState

log = logging.getLogger(__name__)

_TRY_AGAIN_S = 30.0
_ASK_AGAIN_S = 2.0  # what others start is only asked for

ELSEWHERE = Problem(
    "ray.address is auto, and Triton runs elsewhere, where Modelium can start nothing",
    'name a cluster that Triton\'s machine is a node of (ray: {address: "HOST:6379"})',
)


class RayService:
    """``run()`` keeps Ray up; ``view()`` is what is known of it now."""

    def __init__(
        self,
        cluster: OwnRay | JoinedRay | None,
        facts: RayFacts,
        *,
        read_every_s: float = 10.0,
        on_this_machine: bool | None = None,
        owner: str = "",
    ) -> None:
        """``cluster`` None: Ray is not used. ``facts``: of the model runtime's Ray. ``on_this_machine``: it is, or is not,
        whatever its nodes' addresses look like. ``owner``: the word in the names of what our entries deploy."""
        self._cluster = cluster
        self._on_this_machine = on_this_machine
        self._read_every_s = read_every_s
        self._owner = owner
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()  # set, and replaced, when Ray came, went, or could not be started
        self.facts = facts
        self.starts = self.outages = 0
        match cluster:
            case None:
                self._view = Ray(detail=str(facts.missing or ""))
            case OwnRay():
                self._view = Ray(state=RayState.ASLEEP, version=facts.version)
            case JoinedRay():
                self._view = Ray(state=RayState.DOWN, detail="it has not answered yet", here=bool(on_this_machine))

    @classmethod
    def of(cls, settings: Settings, facts: RayFacts, *, owner: str = "") -> RayService:
        """The one that the configuration asks for."""
        triton, chosen = settings.triton, settings.ray
        cluster: OwnRay | JoinedRay | None = None
        if chosen.enabled and not facts.missing:
            if chosen.own:
                cluster = OwnRay(
                    chosen,
                    runtime=triton.runtime_directory,
                    state=triton.state_directory,
                    environment=triton.environment,
                )
            else:
                runtime = triton.runtime_directory if triton.mode == "embedded" else None
                cluster = JoinedRay(
                    chosen,
                    runtime=runtime,
                    state=triton.state_directory,
                    version=facts.version,
                    environment=triton.environment,
                )
        return cls(
            cluster,
            facts,
            read_every_s=settings.orchestration.policies.check_interval_seconds,
            on_this_machine=chosen.on_this_machine,
            owner=owner,
        )

    @property
    def restarts(self) -> int:
        """Starts after the first."""
        return max(0, self.starts - 1)

    def view(self) -> Ray:
        """What is known now."""
        return self._view

    async def ready(self, *, timeout_s: float) -> None:
        """Return when models can be deployed; a Ray of our own is started for that. Raises ``RayUnavailable``."""
        if self._cluster is None:
            raise RayUnavailable(str(self.facts.missing or "Ray is not enabled (ray.enabled)"))
        self._wanted.set()
        news = self._news
        try:
            async with asyncio.timeout(timeout_s):
                while self._view.state is not RayState.UP:
                    await news.wait()
                    if self._view.state is RayState.DOWN:
                        raise RayUnavailable(f"Ray is down: {self._view.detail}")
                    news = self._news
        except TimeoutError:
            raise RayUnavailable(f"Ray was not up within {timeout_s:.0f} s") from None

    async def run(self, *, on_up: Callable[[], None], on_down: Callable[[str], None]) -> None:
        """Until cancelled, which ends a Ray of our own. ``on_up`` and ``on_down`` are called as for Triton."""
        cluster = self._cluster
        if cluster is None:
            await asyncio.Event().wait()
            return
        if isinstance(cluster, OwnRay):
            await self._wanted.wait()
            log.info("starting Ray on this machine")

        def up() -> None:
            self.starts += 1
            log.info("Ray is up")
            self._become(self._seen(cluster.nodes))
            on_up()

        def down(detail: str) -> None:
            if self._view.state is RayState.DOWN and self._view.detail == detail:
                return  # it was tried again
            self.outages += 1
            self._become(replace(self._view, state=RayState.DOWN, detail=detail, nodes=()))
            on_down(detail)

        pause_s = _ASK_AGAIN_S if isinstance(cluster, JoinedRay) else _TRY_AGAIN_S
        reading = asyncio.create_task(self._read_regularly(cluster), name="read Ray's nodes")
        try:
            while True:
                try:
                    await Supervisor(cluster, on_up=up, on_down=down, longest_pause_s=pause_s).run()
                except Exception as error:  # trouble with Ray is the trouble of its models, not of the others
                    log.exception("Ray could not be kept up")
                    down(str(error) or type(error).__name__)
                    await asyncio.sleep(_TRY_AGAIN_S)
        finally:
            reading.cancel()

    def _become(self, view: Ray) -> None:
        self._view = view
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _seen(self, nodes: Sequence[RayNode]) -> Ray:
        here = runs_here(nodes) if self._on_this_machine is None else self._on_this_machine
        there = tuple(replace(node, held=self._of_ours(node.held)) for node in nodes if offers(node))
        return Ray(state=RayState.UP, version=self.facts.version, here=here, nodes=there)

    def _of_ours(self, held: Mapping[str, tuple[Bundle, ...]]) -> Mapping[str, tuple[Bundle, ...]]:
        """By model: what our entries deploy is called ``MODEL@OWNER-…``. There may be two of one, a revision beside another."""
        found: dict[str, tuple[Bundle, ...]] = {}
        for application, bundles in held.items():
            model, _, deployer = application.partition("@")
            if deployer.startswith(f"{self._owner}-"):
                found[model] = (*found.get(model, ()), *bundles)
        return found

    async def _read_regularly(self, cluster: OwnRay | JoinedRay) -> None:
        while True:
            await asyncio.sleep(self._read_every_s)
            if self._view.state is RayState.UP and cluster.dashboard is not None:
                with contextlib.suppress(ModeliumError):  # its end is noticed elsewhere; a missed reading is the next one's
                    nodes = await cluster.dashboard.nodes()
                    if self._view.state is RayState.UP:
                        self._view = self._seen(nodes)
