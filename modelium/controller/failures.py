"""Loads and unloads that failed: whose fault it was, when the next try is, and what those who wait are told.

What enters: a model and the end of a piece of work that came to nothing. What leaves: changed records, refused waiters.
"""

from __future__ import annotations

import logging
import time

from modelium.brain import lifecycle
from modelium.controller.admission import Admission
from modelium.controller.blame import is_its_own
from modelium.controller.desk import Desk
from modelium.controller.events import LoadFailed, UnloadFailed
from modelium.controller.record import Model
from modelium.errors import FolderChanged, NotServable, RayUnavailable, TritonUnavailable
from modelium.values import Demand, Runtime, State

log = logging.getLogger(__name__)

_AFTER_OUTAGE_S = 0.5


class Failures:
    """What becomes of a model whose load or unload failed."""

    def __init__(self, desk: Desk, admission: Admission) -> None:
        self._desk = desk
        self._admission = admission

    def of_load(self, model: Model, event: LoadFailed) -> bool:
        """A reload: the old revision goes on. Triton is away, or the disk is full: tried again. Else one failure more.

        True: an old revision serves, and the newest is to be tried once more.
        """
        now = time.monotonic()
        reason = str(event.error)
        model.entry = None
        tried, model.loading = model.loading, None
        its_own = is_its_own(model, event.error, self._desk.fleet().devices)
        self._desk.recorder.load(model.key, "failed", event.seconds)
        if isinstance(event.error, FolderChanged):
            self._look_again(model)
        if isinstance(event.error, FolderChanged) or model.reloading:
            self._put_off(model)
        if model.reloading:
            model.reloading = False
            assert model.placement is not None
            model.bytes_held = model.placement.footprint.bytes
            model.revision_error = f"the new revision failed to load, the old one goes on serving: {reason}"
            log.warning("%s: %s", model.key, model.revision_error)
            return not its_own or model.profile != tried  # or a newer one came meanwhile
        model.bytes_held = 0
        if self._ray_is_why(model, event):
            model.become(State.FAILED, reason if isinstance(event.error, RayUnavailable) else self._ray_down())
            model.want = max(model.want, Demand.RESTORE)
            model.retry_at = now
            return False
        if isinstance(event.error, TritonUnavailable):  # not the model's fault: the supervisor brings Triton back
            model.become(State.UNLOADED, reason)
            model.want = max(model.want, Demand.RESTORE)
            model.retry_at = now + _AFTER_OUTAGE_S
            model.lost_at = now
            return False
        if isinstance(event.error, FolderChanged):
            if model.crashes:
                model.crashes.pop()  # its process read what was being written
            model.become(State.UNLOADED, reason)
            model.want = max(model.want, Demand.RESTORE)
            model.retry_at = model.put_off_until
            return False
        self.count(model, State.FAILED, reason, its_own=its_own)
        return False

    def of_unload(self, model: Model, event: UnloadFailed) -> None:
        model.become(State.FAILED, f"it could not be unloaded: {event.error}")
        model.retry_at = None
        self._admission.reject_waiters(model, NotServable(f"{model.key!r}: {model.reason}"))
        self._admission.resolve_unload(model)

    def count(self, model: Model, state: State, reason: str, *, its_own: bool = True) -> None:
        """One failure more: back-off, then quarantine until the folder changes.

        What is not the model's own fault (a full disk) is tried again for ever, at most a minute apart.
        """
        now = time.monotonic()
        model.failures += 1
        retries, backoff_s = self._desk.policies.load_retries, self._desk.policies.retry_backoff_seconds
        if its_own:
            own = model.failures - model.excused
            model.retry_at = lifecycle.next_try(failures=own, retries=retries, backoff_s=backoff_s, now=now)
        else:
            model.excused += 1
            model.retry_at = now + lifecycle.back_off(model.failures, first_s=backoff_s)
        if model.retry_at is None:
            state = State.FAILED
            model.want = Demand.NONE
            if model.profile is not None:
                fingerprint, seal = model.profile.fingerprint, model.profile_seal
                self._desk.ledger.remember_quarantine(model.key, fingerprint, reason, seal=seal)
        model.become(state, reason)
        log.warning("%s: failed %d times: %s", model.key, model.failures, reason)
        if state is State.FAILED:
            when = (
                "in quarantine until its folder changes"
                if model.retry_at is None
                else f"next try in {model.retry_at - now:.1f} s"
            )
            self._admission.reject_waiters(model, NotServable(f"{model.key!r} failed to load ({when}): {reason}"))
        self._admission.resolve_unload(model)

    def _put_off(self, model: Model) -> None:
        """Who writes to a folder has a moment to end; one that is written to without pause is tried ever less often."""
        model.put_off += 1
        wait_s = _AFTER_OUTAGE_S
        if model.put_off > 1:
            wait_s = lifecycle.back_off(model.put_off - 1, first_s=self._desk.policies.retry_backoff_seconds)
        model.put_off_until = time.monotonic() + wait_s

    def _look_again(self, model: Model) -> None:
        """At a folder that changed before any scan saw it."""
        if not model.analyzing and not model.removing:
            model.analyzing = True
            self._desk.work.analyze([(model.key, model.candidate)])

    def _ray_is_why(self, model: Model, event: LoadFailed) -> bool:
        """Not the model's fault: Ray is away, and when it is back the plan loads the model again."""
        place = model.placement
        if place is None or place.runtime is not Runtime.RAY:
            return False
        if isinstance(event.error, RayUnavailable):
            return True
        return self._desk.ray.outages != model.ray_outages and not model.broke_ray

    def _ray_down(self) -> str:
        return f"Ray is down: {self._desk.ray.view().detail}"
