"""Which metrics there are, by who exports them: what a rule or a panel may ask for."""

from __future__ import annotations

import runpy
from collections.abc import Iterable
from pathlib import Path

from modelium.metrics import FAMILIES

ROOT = Path(__file__).resolve().parents[1]

# Triton 2.51 without a GPU: a test holds this to what the real server says.
TRITON = frozenset(
    {
        "nv_cpu_memory_total_bytes",
        "nv_cpu_memory_used_bytes",
        "nv_cpu_utilization",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_output_duration_us",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_pending_request_count",
        "nv_inference_queue_duration_us",
        "nv_inference_request_duration_us",
        "nv_inference_request_failure",
        "nv_inference_request_success",
        "nv_pinned_memory_pool_total_bytes",
        "nv_pinned_memory_pool_used_bytes",
    }
)

# Triton's, where there is an NVIDIA GPU: its documentation (docs/user_guide/metrics.md of triton-inference-server/server).
TRITON_GPU = frozenset(
    {
        "nv_energy_consumption",
        "nv_gpu_memory_total_bytes",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_power_limit",
        "nv_gpu_power_usage",
        "nv_gpu_utilization",
    }
)

# Of every process that prometheus_client looks at, and of Prometheus itself.
PROCESS = frozenset(
    {
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }
)
PROMETHEUS = frozenset({"up", "ALERTS", "ALERTS_FOR_STATE", "prometheus_rule_evaluation_failures_total"})


def modelium() -> frozenset[str]:
    """Modelium's own, as they are scraped."""
    histograms = {family.name for family in FAMILIES if family.kind == "histogram"}
    return frozenset(_series(histograms) | {family.name for family in FAMILIES} - histograms)


def vllm() -> frozenset[str]:
    """Those that our vllm backend reports, as its own tables have them; it needs neither vLLM nor Triton to be read."""
    tables = runpy.run_path(str(ROOT / "triton" / "backends" / "vllm" / "vllm_backend" / "metrics.py"))
    return frozenset(_series(tables["_HISTOGRAMS"]) | set(tables["_COUNTERS"]) | set(tables["_GAUGES"]))


def every() -> frozenset[str]:
    return modelium() | vllm() | TRITON | TRITON_GPU | PROCESS | PROMETHEUS


def _series(histograms: Iterable[str]) -> set[str]:
    return {f"{name}{suffix}" for name in histograms for suffix in ("_bucket", "_count", "_sum")}
