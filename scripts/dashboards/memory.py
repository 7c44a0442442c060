"""Modelium / Memory: what is on which device, who holds how much of it, and how good the estimates were."""

from __future__ import annotations

from dashboards.grafana import Color, Dashboard, Limit, Query, Row, Unit, Variable
from dashboards.panels import bars, table, time_series

_DEVICE = 'device=~"$device"'


def _size(kind: str) -> str:
    return f'modelium_device_memory_bytes{{{_DEVICE}, kind="{kind}"}}'


def _model_bytes(kind: str) -> str:
    return f'modelium_model_memory_bytes{{{_DEVICE}, kind="{kind}"}}'


def _left(of: str, by_models: str) -> str:
    """What models leave of a device's memory, on a device without any model as well."""
    whole = f"max by (device) ({_size(of)})"
    return f"{whole} - ({by_models} or 0 * {whole})"


# With an external Triton nobody knows what a model holds: there it counts as what was promised to it.
_BY_MODEL = f"sum by (model, device) ({_model_bytes('held')} or ignoring (kind) {_model_bytes('promised')})"
_HELD = f"sum by (device) ({_BY_MODEL})"
_PROMISED = f"sum by (device) ({_model_bytes('promised')})"

_DEVICES = Row(
    title="Devices",
    panels=(
        bars(
            "Taken",
            "The part of each device's memory that is taken, by anybody. Alert: DeviceMemoryFull.",
            Unit.SHARE,
            Query(expr=f"max by (device) (device:modelium_memory_used:ratio{{{_DEVICE}}})", legend="{{device}}"),
            limits=(Limit(at=0.85, color=Color.ORANGE), Limit(at=0.95, color=Color.RED)),
            maximum=1,
        ),
        bars(
            "Of the budget",
            "The part of the budget that models hold. Over 1 they grew after they were placed. Alert: ModelsOverBudget.",
            Unit.SHARE,
            Query(expr=f"{_HELD} / max by (device) ({_size('budget')})", legend="{{device}}"),
            limits=(Limit(at=0.9, color=Color.ORANGE), Limit(at=1, color=Color.RED)),
            maximum=1,
        ),
        time_series(
            "Used, budget, total",
            "What is taken of each device by anybody, what models may use, and what there is.",
            Unit.BYTES,
            Query(expr=f"max by (device, kind) (modelium_device_memory_bytes{{{_DEVICE}}})", legend="{{device}} {{kind}}"),
        ),
    ),
)

_WHO = Row(
    title="Who holds what",
    panels=(
        time_series(
            "Memory by model",
            "What each model holds, one on the other, and what all others take of the same devices. A model that loads, and "
            "any beside an external Triton, counts as what was promised to it.",
            Unit.BYTES,
            Query(expr=_BY_MODEL, legend="{{model}} on {{device}}"),
            Query(expr=f"clamp_min({_left('used', _HELD)}, 0)", legend="others on {{device}}"),
            width=16,
            stacked=True,
        ),
        time_series(
            "Room in the budget",
            "What of the budget is promised to nobody: the next model may take it. Below 0 models grew after they were placed.",
            Unit.BYTES,
            Query(expr=_left("budget", _PROMISED), legend="{{device}}"),
        ),
        table(
            "Models",
            "Each model's memory: its estimate, the most that it was seen to hold, what is kept for it, what it holds now.",
            Unit.BYTES,
            {
                "Estimated": f"sum by (model, device) ({_model_bytes('estimated')})",
                "Most": f"sum by (model, device) ({_model_bytes('measured')})",
                "Promised": f"sum by (model, device) ({_model_bytes('promised')})",
                "Holds now": f"sum by (model, device) ({_model_bytes('held')})",
            },
            labels=("device", "model"),
        ),
    ),
)

_ESTIMATES = Row(
    title="Estimates",
    panels=(
        bars(
            "Measured over estimated",
            "1: the estimate was right. Over 1 a model was placed where it may not fit; far under 1 room is kept free for "
            "nothing before its first load. `memory` under `models` in modelium.yaml replaces the estimate.",
            Unit.SHARE,
            Query(
                expr=(
                    f"sum by (model) ({_model_bytes('measured')})"
                    f" / sum by (model) ({_model_bytes('estimated')} and ignoring (kind) {_model_bytes('measured')})"
                ),
                legend="{{model}}",
            ),
            width=12,
            limits=(Limit(at=1, color=Color.ORANGE),),
        ),
        time_series(
            "Growth in an hour",
            "By how much each loaded model's memory has changed since an hour ago. A steady line above 0 is a leak. "
            "Alert: ModelMemoryGrows.",
            Unit.BYTES,
            Query(expr=f"sum by (model) (delta({_model_bytes('held')}[1h]))", legend="{{model}}"),
            width=12,
        ),
    ),
)

_GPUS = Row(
    title="GPUs, as Triton sees them",
    panels=(
        time_series(
            "GPU memory",
            "Used and total, from the driver.",
            Unit.BYTES,
            Query(expr="nv_gpu_memory_used_bytes", legend="{{gpu_uuid}} used"),
            Query(expr="nv_gpu_memory_total_bytes", legend="{{gpu_uuid}} total"),
        ),
        time_series(
            "GPU use",
            "The part of the time in which the GPU did something.",
            Unit.SHARE,
            Query(expr="nv_gpu_utilization", legend="{{gpu_uuid}}"),
            maximum=1,
        ),
        time_series(
            "GPU power",
            "What each GPU draws, and may draw.",
            Unit.WATTS,
            Query(expr="nv_gpu_power_usage", legend="{{gpu_uuid}}"),
            Query(expr="nv_gpu_power_limit", legend="{{gpu_uuid}} limit"),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="modelium-memory",
    file="memory.json",
    title="Modelium / Memory",
    description="What is on which device, who holds how much of it, and how good the estimates were.",
    variables=(Variable(name="device", title="Device", metric="modelium_device_memory_bytes", label="device"),),
    rows=(_DEVICES, _WHO, _ESTIMATES, _GPUS),
    since="now-6h",
)
