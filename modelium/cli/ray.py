"""Ray and a model's replicas for people: what is known about them enters, a line and rows of a table leave."""

from __future__ import annotations

from collections.abc import Sequence

from modelium import views
from modelium.cli import replies
from modelium.cli.remote import Remote
from modelium.sizes import human_bytes
from modelium.values import RayNode, Task

_NAMED = 4  # nodes that are called by their addresses


def ray_beside(remote: Remote, model: views.Status) -> views.Ray | None:
    """What ``model`` runs on, asked for where that is Ray."""
    return replies.models(remote.get("/models")).ray if model.runtime == "ray" else None


def ray_line(ray: views.Ray | None) -> str:
    """Its state, version, place, and what is left there; "" where Ray is not used."""
    if ray is None or ray.state == "off":
        return ""
    words = f"Ray {ray.version} is {ray.state}" if ray.version else f"Ray is {ray.state}"
    match ray.state:
        case "asleep":
            words += ": Modelium's own, which is started when a model first needs it"
        case "up":
            words += " on this machine" if ray.here else f", {_left(ray.nodes)}"
        case _ if ray.detail:
            words += f": {ray.detail}"
    return words + (f" (started again {_times(ray.restarts)})" if ray.restarts else "")


def replica_rows(replicas: views.Replicas | None, *, task: str, running: int = 0) -> dict[str, str]:
    """How many copies of a model there are to be, and what each asks of Ray; ``running`` 0: that is not known."""
    if replicas is None:
        return {}
    if task == Task.SERVE_APP:
        return {"replicas": (f"{running}, " if running else "") + "as its own deployments say"}
    count = f"{replicas.min}"
    if replicas.max != replicas.min:
        count += f" to {replicas.max}, towards {replicas.target_ongoing_requests:g} requests at each"
    asks = [
        f"{replicas.cpus:g} CPU" if replicas.cpus else "",
        f"{replicas.gpus:g} GPU" if replicas.gpus else "",
        human_bytes(replicas.memory_bytes) if replicas.memory_bytes else "",
    ]
    ranks = f"{replicas.ranks} ranks of " if replicas.ranks > 1 else ""
    asked = ", ".join(part for part in asks if part)
    return {"replicas": f"{running} of {count}" if running else count, "each asks for": ranks + asked if asked else ""}


def nodes_left(nodes: Sequence[RayNode]) -> str:
    """The same as Ray itself told us."""
    return _left([replies.told(views.Node, node) for node in nodes])


def _left(nodes: Sequence[views.Node]) -> str:
    """``2 nodes (10.0.0.1, 10.0.0.2): 28 of 32 CPUs, 3 of 4 GPUs free, 40.0 GiB of 128.0 GiB memory taken``."""
    if not nodes:
        return "without a node"
    named = ", ".join(node.address for node in nodes[:_NAMED]) + (", …" if len(nodes) > _NAMED else "")
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    free = [f"{sum(node.free_cpus for node in nodes):g} of {cpus:g} CPUs"]
    if gpus:
        free.append(f"{sum(node.free_gpus for node in nodes):g} of {gpus:g} GPUs")
    memory, used = sum(node.memory_bytes for node in nodes), sum(min(node.used_bytes, node.memory_bytes) for node in nodes)
    taken = f"{human_bytes(used)} of {human_bytes(memory)} memory taken"
    return f"{len(nodes)} node{'s' if len(nodes) > 1 else ''} ({named}): {', '.join(free)} free, {taken}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
