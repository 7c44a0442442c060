"""Modelium / Memory: which models are on which device, how much memory they hold, and how accurate the estimates were."""

from __future__ import annotations

from dashboards.grafana import Color, Dashboard, Limit, Query, Row, Unit, Variable
from dashboards.panels import bars, table, time_series

_DEVICE = 'device=~"$device"'


def _size(kind: str) -> str:
    return f'modelium_device_memory_bytes{{{_DEVICE}, kind="{kind}"}}'


def _model_bytes(kind: str) -> str:
    return f'modelium_model_memory_bytes{{{_DEVICE}, kind="{kind}"}}'


def _left(of: str, by_models: str) -> str:
    """The part of a device's memory that models leave free, also on a device without models."""
    whole = f"max by (device) ({_size(of)})"
    return f"{whole} - ({by_models} or 0 * {whole})"


# With an external Triton, the memory that a model holds is unknown. The memory that was promised to it counts instead.
_BY_MODEL = f"sum by (model, device) ({_model_bytes('held')} or ignoring (kind) {_model_bytes('promised')})"
_HELD = f"sum by (device) ({_BY_MODEL})"
_PROMISED = f"sum by (device) ({_model_bytes('promised')})"

_DEVICES = Row(
    title="Devices",
    panels=(
        bars(
            "Memory in use",
            "The share of each device's memory that is in use, by any program. Alert: DeviceMemoryFull.",
            Unit.SHARE,
            Query(expr=f"max by (device) (device:modelium_memory_used:ratio{{{_DEVICE}}})", legend="{{device}}"),
            limits=(Limit(at=0.85, color=Color.ORANGE), Limit(at=0.95, color=Color.RED)),
            maximum=1,
        ),
        bars(
            "Budget in use",
            "The share of the budget that models hold. Above 1, they grew after they were placed. Alert: ModelsOverBudget.",
            Unit.SHARE,
            Query(expr=f"{_HELD} / max by (device) ({_size('budget')})", legend="{{device}}"),
            limits=(Limit(at=0.9, color=Color.ORANGE), Limit(at=1, color=Color.RED)),
            maximum=1,
        ),
        time_series(
            "Leaked",
            "The memory that unloads did not bring back since Triton started. Alert: DeviceMemoryLeaked.",
            Unit.BYTES,
            Query(expr=f"max by (device) (modelium_device_leaked_bytes{{{_DEVICE}}})", legend="{{device}}"),
        ),
        time_series(
            "Used, budget, total",
            "Each device's memory that is in use by any program, the part that models may use, and the total.",
            Unit.BYTES,
            Query(expr=f"max by (device, kind) (modelium_device_memory_bytes{{{_DEVICE}}})", legend="{{device}} {{kind}}"),
        ),
    ),
)

_WHO = Row(
    title="Memory of models",
    panels=(
        time_series(
            "Memory by model",
            "The memory that each model holds, stacked, and the memory that other programs use on the same devices. A model "
            "that is loading, or that runs on an external Triton, counts with the memory that was promised to it.",
            Unit.BYTES,
            Query(expr=_BY_MODEL, legend="{{model}} on {{device}}"),
            Query(expr=f"clamp_min({_left('used', _HELD)}, 0)", legend="others on {{device}}"),
            width=16,
            stacked=True,
        ),
        time_series(
            "Room in the budget",
            "The part of the budget that is not promised to any model. The next model may use it. Below 0, models grew after "
            "they were placed.",
            Unit.BYTES,
            Query(expr=_left("budget", _PROMISED), legend="{{device}}"),
        ),
        table(
            "Models",
            "Each model's memory: the estimate, the most that was measured, the memory promised to it, and the memory that it "
            "holds now.",
            Unit.BYTES,
            {
                "Estimated": f"sum by (model, device) ({_model_bytes('estimated')})",
                "Most measured": f"sum by (model, device) ({_model_bytes('measured')})",
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
            "At 1, the estimate was right. Above 1, the model may have been placed where it does not fit. Far below 1, its "
            "first load reserved more memory than necessary. `memory` under `models` in modelium.yaml replaces the estimate.",
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
            "The change of each loaded model's memory within an hour. A steady line above 0 is a leak. Alert: "
            "ModelMemoryGrows.",
            Unit.BYTES,
            Query(expr=f"sum by (model) (delta({_model_bytes('held')}[1h]))", legend="{{model}}"),
            width=12,
        ),
    ),
)

_GPUS = Row(
    title="GPUs, as reported by Triton",
    panels=(
        time_series(
            "GPU memory",
            "Used and total memory, as the driver reports them.",
            Unit.BYTES,
            Query(expr="nv_gpu_memory_used_bytes", legend="{{gpu_uuid}} used"),
            Query(expr="nv_gpu_memory_total_bytes", legend="{{gpu_uuid}} total"),
        ),
        time_series(
            "GPU utilization",
            "The share of the time in which the GPU was busy.",
            Unit.SHARE,
            Query(expr="nv_gpu_utilization", legend="{{gpu_uuid}}"),
            maximum=1,
        ),
        time_series(
            "GPU power",
            "The power that each GPU draws, and its limit.",
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
    description="Which models are on which device, how much memory they hold, and how accurate the estimates were.",
    variables=(Variable(name="device", title="Device", metric="modelium_device_memory_bytes", label="device"),),
    rows=(_DEVICES, _WHO, _ESTIMATES, _GPUS),
    since="now-6h",
)
