"""Modelium / Cold starts: how long requests wait for loads, what was unloaded for them, and by which rules."""

from __future__ import annotations

from dashboards.grafana import Dashboard, Query, Row, Unit
from dashboards.panels import heatmap, time_series, timeline
from dashboards.queries import KNOWN, STATES, buckets, how_many, per_second, quantiles, state_of_models

_WAITS = Row(
    title="Waiting",
    panels=(
        time_series(
            "Wait for a load",
            "How long requests waited whose model was not loaded.",
            Unit.SECONDS,
            *quantiles("modelium_cold_start_wait_seconds", over="5m"),
        ),
        time_series(
            "Cold starts by model",
            "The ten models with the most requests in the last five minutes that had to wait for a load.",
            Unit.COUNT,
            Query(expr=f"topk(10, {how_many('modelium_cold_starts_total', 'model')})", legend="{{model}}"),
            stacked=True,
        ),
        time_series(
            "Share of cold requests",
            "The share of requests whose model was not loaded. At 0, all requested models are loaded. The panel Wait for a "
            "load shows how long each of these requests waits.",
            Unit.SHARE,
            Query(
                expr=(
                    f"{per_second('modelium_cold_starts_total')} / ({per_second('modelium_requests_total', where=KNOWN)} > 0)"
                ),
                legend="cold",
            ),
            maximum=1,
        ),
        time_series(
            "Waiting now",
            "Requests that are waiting for a load now, by model. Alert: RequestsWaiting.",
            Unit.COUNT,
            Query(expr="sum by (model) (modelium_requests_waiting)", legend="{{model}}"),
            width=12,
            stacked=True,
        ),
        heatmap(
            "Distribution of waits",
            "The number of requests by how long they waited for a load.",
            Unit.SECONDS,
            buckets("modelium_cold_start_wait_seconds"),
        ),
        timeline(
            "States",
            "The state of each model over time. Yellow: the model is being loaded or unloaded.",
            Query(expr=state_of_models(), legend="{{model}}"),
            STATES,
        ),
    ),
)

_LOADS = Row(
    title="Loads and unloads",
    panels=(
        time_series(
            "Duration of loads",
            "From the load request to Triton until the model is READY. Failed loads count too.",
            Unit.SECONDS,
            *quantiles("modelium_model_load_duration_seconds", over="5m"),
        ),
        time_series(
            "Duration of unloads",
            "From the start of the drain until processes and memory are gone.",
            Unit.SECONDS,
            *quantiles("modelium_model_unload_duration_seconds", over="5m"),
        ),
        time_series(
            "Loads by outcome",
            "The number of loads that ended in the last five minutes, by outcome.",
            Unit.COUNT,
            Query(expr=how_many("modelium_model_loads_total", "outcome"), legend="{{outcome}}"),
            stacked=True,
        ),
        heatmap(
            "Distribution of loads",
            "The number of loads by duration.",
            Unit.SECONDS,
            buckets("modelium_model_load_duration_seconds"),
            width=24,
        ),
    ),
)

_EVICTIONS = Row(
    title="Evictions",
    panels=(
        time_series(
            "Evictions by rule",
            "Unloads by policy in the last five minutes. docs/design.md describes the rules.",
            Unit.COUNT,
            Query(expr=how_many("modelium_evictions_total", "rule"), legend="{{rule}}"),
            stacked=True,
        ),
        time_series(
            "Swaps",
            "Models that were unloaded in the last five minutes because a request waited for another model. Many swaps mean "
            "that the requested models do not fit together.",
            Unit.COUNT,
            Query(expr=how_many("modelium_swaps_total", "device"), legend="{{device}}"),
        ),
        time_series(
            "Age at eviction",
            "How long evicted models had been loaded, over half an hour. Only minutes: the requested models do not fit "
            "together.",
            Unit.SECONDS,
            *quantiles("modelium_eviction_age_seconds", over="30m")[:2],
        ),
        time_series(
            "Evicted soon after the load",
            "Evictions within ten minutes of the load, in the last half hour. The line is the limit of Thrashing.",
            Unit.COUNT,
            Query(expr="instance:modelium_young_evictions:increase30m", legend="{{instance}}"),
            alert_at=6,
        ),
        time_series(
            "Evicted and loaded again",
            "Evictions and cold starts in the last half hour, by model. The line is the limit of ModelThrashing, which fires "
            "when both exceed it.",
            Unit.COUNT,
            Query(expr="max by (model) (model:modelium_evictions:increase30m)", legend="{{model}} evicted"),
            Query(expr="max by (model) (model:modelium_cold_starts:increase30m)", legend="{{model}} cold"),
            alert_at=3,
        ),
        time_series(
            "Decisions",
            "Decisions in the last five minutes, by verb and rule. `modelium why` shows their reasons.",
            Unit.COUNT,
            Query(expr=how_many("modelium_decisions_total", "verb", "rule"), legend="{{verb}} {{rule}}"),
            stacked=True,
        ),
        time_series(
            "Pinned and loaded",
            "Pinned models are never evicted. If too many models are pinned, nothing can be unloaded to make room.",
            Unit.COUNT,
            Query(expr="sum(modelium_models_pinned)", legend="pinned"),
            Query(expr='sum(modelium_models{state="LOADED"})', legend="loaded"),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="modelium-cold-starts",
    file="cold-starts.json",
    title="Modelium / Cold starts",
    description="How long requests wait for loads, which models were unloaded, and by which rules.",
    rows=(_WAITS, _LOADS, _EVICTIONS),
    since="now-3h",
)
