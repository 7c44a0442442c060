"""Replies of a running Modelium as tables: a reply enters, what the terminal shows leaves."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelium import views
from modelium.cli.engine import language_rows, plan_table
from modelium.cli.ray import ray_line, replica_rows
from modelium.cli.terminal import Name, columns, duration, facts, state
from modelium.sizes import human_bytes, human_progress

_STEPS = {"load": "green", "unload": "magenta", "wait": "yellow", "refuse": "red", "keep": "blue"}


def models(found: views.Listing) -> RenderableType:
    """What ``modelium list`` prints."""
    table = columns("model", "state", "task", "runtime", "device")
    for name in ("memory", "qps", "idle"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("remarks", overflow="fold")
    for model in sorted(found.models, key=lambda model: model.name):
        table.add_row(
            Name(model.name) if model.label == model.name else Name(model.name, model.label),
            state(model.state),
            model.profile.task if model.profile else f"LoRA for {model.base}" if model.base else "",
            _runtime(model),
            model.where,
            _memory(model),
            f"{model.qps:.2f}" if model.idle_s is not None else "",
            duration(model.idle_s),
            Text(_remark(model)),
        )
    if found.nursery is not None:
        held = human_bytes(found.nursery.held_bytes) if found.nursery.held_bytes else ""
        table.add_row(Text("(nursery)"), "", "", "", "host", held, "", "", Text(_nursery(found.nursery)))
    empty = "no models: drop a Hugging Face folder into the watched directory" if found.scanned else "still looking for models"
    return Group(table if found.models or found.nursery else Text(empty), *_servers(found), *_leaks(found), *_folders(found))


def _nursery(found: views.Nursery) -> str:
    """What it is, and what it does now."""
    what = "libraries imported once for all models"
    if found.importing:
        return f"{what}: importing them for {' and '.join(found.importing)}; loads wait for it"
    return f"{what}: ready, shared with {found.children} of the models' processes"


def _servers(found: views.Listing) -> list[RenderableType]:
    """What is wrong with Triton, and how Ray is where it is used."""
    server, ray, lines = found.triton, found.ray, list[RenderableType]()
    if server is not None and not server.up:
        lines.append(Text("Triton is not up" + (f": {server.detail}" if server.detail else ""), style="red"))
    if line := ray_line(ray):
        lines.append(Text(line, style="red" if ray is not None and ray.state == "down" else ""))
    return lines


def _leaks(found: views.Listing) -> list[RenderableType]:
    """Devices on which unloads left memory behind."""
    words = "leaked, not brought back by unloads; a restart of Triton frees what Triton holds"
    return [
        Text(f"{device.id}: {human_bytes(device.leaked_bytes)} {words}", style="yellow")
        for device in found.devices
        if device.leaked_bytes
    ]


def _folders(found: views.Listing) -> list[RenderableType]:
    """Watch directories that cannot be looked into, and what was dropped and is no model as it lies there."""
    gone = [Text(f"{one.path} is suspended: {one.suspended}", style="red") for one in found.directories if one.suspended]
    return [*gone, *(Text(f"{one.path} is not served: {one.advice}", style="yellow") for one in found.unclaimed)]


def model(found: views.Status, ray: views.Ray | None = None) -> RenderableType:
    """``ray``: what it runs on, where that is Ray."""
    head = Text.assemble((found.name, "bold"), "  ", state(found.state))
    rows = _status_rows(found) | ({"Ray": line} if (line := ray_line(ray)) else {})
    return Group(head, facts(rows), *_engine(found), *_decisions(found.decisions))


def reasons(found: views.Status) -> RenderableType:
    """What ``modelium why`` prints."""
    why = "; ".join(filter(None, (found.reason, found.waits_for and f"waits for {found.waits_for}")))
    head = Text.assemble((found.name, "bold"), "  ", state(found.state), "  ", why)
    said = [*_decisions(found.decisions), *_weighed(found.decisions), *_engine(found)]
    return Group(head, *(said or [Text("nothing was decided about it yet")]))


def plan(found: views.Plan) -> RenderableType:
    """What ``modelium plan`` prints: what is said of models that are loaded or unloaded comes first, in its order."""
    parts: list[RenderableType] = [
        Text(f"{device} is under pressure: {why}", style="yellow") for device, why in found.pressure.items()
    ]
    if not found.actions:
        parts.append(Text("nothing to do"))
    move = {action.model for action in found.actions}
    if rows := sorted(found.decisions, key=lambda decision: decision.model not in move):
        parts.append(_decision_table(rows, with_model=True))
    return Group(*parts)


def outcome(verb: str, found: views.Status) -> RenderableType:
    """What ``modelium load``, ``unload``, ``pin`` and ``unpin`` print."""
    done = {"load": "loaded", "unload": "unloaded", "pin": "pinned", "unpin": "unpinned"}[verb]
    text = Text.assemble((found.name, "bold"), f" {done}: ", state(found.state))
    match verb:
        case "load" if found.load_seconds:
            text.append(f" in {found.load_seconds:.1f} s on {found.where}, {_memory(found)}")
        case "unload" if found.reason:
            text.append(f" ({found.reason})")
    return text


def _status_rows(found: views.Status) -> dict[str, str]:
    profile = found.profile
    rows = {
        "label": found.label if found.label != found.name else "",
        "path": found.path,
        "reason": found.reason,
        "waits for": found.waits_for,
        "newer revision": found.revision_error,
        "missing": "\n".join(_part(part) for part in found.missing),
    }
    if profile is not None:
        size = f"{profile.parameters:,} parameters, {human_bytes(profile.weight_bytes)} {profile.dtype}"
        rows |= {
            "task": profile.task,
            "architecture": f"{profile.architecture} ({profile.library})",
            "size": size + (f", {profile.quantization}" if profile.quantization else ""),
            "longest input": f"{profile.max_length:,} tokens" if profile.max_length and not profile.language else "",
            "embedding": f"{profile.embedding_width} wide" if profile.embedding_width else "",
            "labels": f"{len(profile.labels)}" if profile.labels else "",
        }
        if profile.language is not None:
            rows |= language_rows(profile.language)
    estimated = human_bytes(found.estimated_bytes) if found.estimated_bytes is not None else "not yet"
    measured = human_bytes(found.measured_bytes) if found.measured_bytes is not None else "not yet"
    rows |= {
        "runs on": f"{found.runtime} on {found.where}" if found.runtime else "",
        **_replicas(found),
        "served": found.context,
        "memory": f"{estimated} estimated{_error(found)}, {measured} measured" if found.estimated_bytes is not None else "",
        "use": f"{found.qps:.2f} requests/s, {found.requests} in all, {found.leases} in flight, {found.waiting} waiting",
        "idle": duration(found.idle_s),
        "loads": f"{found.loads} ({found.unloads} unloads), the last took {found.load_seconds:.1f} s" if found.loads else "",
        "failures": _failures(found),
        "pinned": "yes" if found.pinned else "",
    }
    return {name: value for name, value in rows.items() if value}


def _failures(found: views.Status) -> str:
    if not found.failures:
        return ""
    after = "quarantined until the folder changes" if found.quarantined else ""
    if found.retry_in_s is not None and not after:
        after = f"next try in {duration(found.retry_in_s)}"
    return f"{found.failures}" + (f", {after}" if after else "")


def _remark(found: views.Status) -> str:
    if found.is_hindered:
        return found.reason
    remarks = ["pinned"] if found.pinned else []
    if found.waits_for:
        remarks.append(f"waits for {found.waits_for}")
    if found.context:
        remarks.append(found.context)
    if found.adapters:
        remarks.append(f"adapters: {', '.join(found.adapters)}")
    if found.waiting:
        remarks.append(f"{found.waiting} waiting")
    if found.revision_error:
        remarks.append(f"newer revision: {found.revision_error}")
    return ", ".join(remarks)


def _replicas(found: views.Status) -> dict[str, str]:
    planned = found.placement.replicas if found.placement is not None else None
    return replica_rows(planned, task=found.profile.task if found.profile is not None else "", running=found.replicas)


def _runtime(found: views.Status) -> str:
    """``ray × 2`` where two replicas run on this machine: those elsewhere are not counted."""
    return f"{found.runtime} × {found.replicas}" if found.runtime and found.replicas else found.runtime or ""


def _memory(found: views.Status) -> str:
    if found.memory_bytes is None:
        return ""
    return ("~" if found.held_bytes is None else "") + human_bytes(found.memory_bytes)


def _error(found: views.Status) -> str:
    return f" ({found.estimate_error:+.0%})" if found.estimate_error is not None else ""


def _part(part: views.Part) -> str:
    return f"{part.file}: {part.detail or human_progress(part.present_bytes, part.expected_bytes)}"


def _engine(found: views.Status) -> list[RenderableType]:
    """The plan of its engine: of the one that runs, or ran last."""
    return [Text(""), plan_table(found.engine.plan)] if found.engine is not None and found.engine.plan else []


def _decisions(decisions: Iterable[views.Decision]) -> list[RenderableType]:
    rows = tuple(decisions)
    return [Text(""), _decision_table(rows, with_model=False)] if rows else []


def _weighed(decisions: Iterable[views.Decision]) -> list[RenderableType]:
    """What was weighed when it, or one for its sake, last had to go."""
    last = next((decision for decision in decisions if len(decision.weighed) > 1), None)
    if last is None:
        return []
    table = columns(f"weighed for {last.beneficiary}" if last.beneficiary else "weighed", "")
    for name in ("harm", "idle", "qps", "next request in", "loads in", "frees"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in last.weighed:
        table.add_row(
            Name(each.model),
            Text("went", style="magenta") if each.goes else Text("stayed"),
            f"{each.harm:.3g}",
            duration(each.idle_s),
            f"{each.qps:.2f}",
            duration(each.next_s) or "not known",
            f"{each.load_s:.1f} s",
            human_bytes(each.bytes),
        )
    return [Text(""), table]


def _decision_table(decisions: Iterable[views.Decision], *, with_model: bool) -> Table:
    table = columns(*(("model",) if with_model else ("when",)), "decision", "rule")
    table.add_column("reason", overflow="fold")
    for decision in decisions:
        ago = f"{duration(decision.age_s)} ago" if decision.age_s is not None else ""
        table.add_row(
            Name(decision.model) if with_model else Text(ago),
            Text(decision.verb, style=_STEPS.get(decision.verb, "")),
            decision.rule,
            Text(decision.reason),
        )
    return table
