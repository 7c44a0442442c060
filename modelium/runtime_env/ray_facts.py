"""The model runtime's Ray: a runtime report enters, what a replica can import leaves. Nothing is imported for it."""

from __future__ import annotations

from modelium.runtime_env.inspection import RuntimeReport
from modelium.values import Problem, RayFacts

_INSTALL = "`modelium runtime install --with ray`"
MISSING = Problem("Ray is not in the model runtime", _INSTALL)
# Of ray[serve]: the package alone brings neither Serve nor the dashboard that its resources are read from.
_SERVE = ("fastapi", "uvicorn", "aiohttp-cors")


def read_ray(report: RuntimeReport) -> RayFacts:
    """What is there, or why it is not enough."""
    version = report.packages.get("ray", "")
    packages = frozenset(report.packages)
    if not version:
        return RayFacts(missing=MISSING, packages=packages)
    if lacking := [name for name in _SERVE if name not in packages]:
        what = f"the model runtime has Ray {version} without Ray Serve ({lacking[0]} is missing)"
        return RayFacts(version=version, missing=Problem(what, _INSTALL), packages=packages)
    return RayFacts(version=version, packages=packages)
