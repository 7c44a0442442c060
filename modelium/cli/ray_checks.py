"""Ray in ``modelium doctor``: settings and the model runtime enter, what keeps models from Ray leaves, with what to do."""

from __future__ import annotations

from collections.abc import Iterator

from modelium.cli.checks import Check, Outcome
from modelium.cli.machine import ask_cluster
from modelium.cli.ray import nodes_left
from modelium.config import RaySettings
from modelium.errors import RayUnavailable
from modelium.ray import ELSEWHERE
from modelium.ray.joined import other_version
from modelium.runtime_env import RuntimeReport, read_ray
from modelium.values import RayFacts

_LIBRARIES = ("scikit-learn", "xgboost", "xgboost-cpu", "lightgbm", "sentence-transformers", "diffusers")
_START = (
    "start it with its dashboard where this machine reaches it (`ray start --head --dashboard-host=0.0.0.0`), or correct "
    "ray.address or ray.dashboard_url"
)
_SAME = (
    "they have to be the same: change `ray` in triton/constraints.txt and `modelium runtime install --with ray`, or change "
    "the cluster"
)


def ray_checks(settings: RaySettings, report: RuntimeReport | None) -> Iterator[Check]:
    """``report`` None: Triton runs elsewhere, where nothing can be looked at."""
    if not settings.enabled:
        yield Check(name="ray", outcome=Outcome.OK, found="ray.enabled is false in the configuration")
        return
    facts = RayFacts(missing=ELSEWHERE if settings.own else None) if report is None else read_ray(report)
    if facts.missing:
        yield Check(name="ray", outcome=Outcome.FAIL, found=facts.missing.what, remedy=facts.missing.remedy)
        return
    if facts.packages is not None:
        there = ", ".join(name for name in _LIBRARIES if name in facts.packages) or "none of its libraries"
        own = "; Modelium's own, which is started when a model first needs it" if settings.own else ""
        yield Check(name="ray", outcome=Outcome.OK, found=f"{facts.version} with {there}{own}")
    if not settings.own:
        yield _cluster(settings, facts.version)


def _cluster(settings: RaySettings, version: str) -> Check:
    """Does its dashboard answer, and is it of the model runtime's ``version`` ("" for one that cannot be known)?"""
    try:
        seen = ask_cluster(settings)
    except RayUnavailable as error:
        return Check(name="ray cluster", outcome=Outcome.FAIL, found=error.what, remedy=error.remedy or _START)
    if differs := other_version(settings.address, seen.version, version):
        return Check(name="ray cluster", outcome=Outcome.FAIL, found=differs, remedy=_SAME)
    where = "on this machine" if seen.here else nodes_left(seen.nodes)
    return Check(name="ray cluster", outcome=Outcome.OK, found=f"{seen.version} at {settings.address}, {where}")
