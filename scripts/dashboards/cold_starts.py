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
            "How long requests waited that found their model unloaded.",
            Unit.SECONDS,
            *quantiles("modelium_cold_start_wait_seconds", over="5m"),
        ),
        time_series(
            "Cold starts by model",
            "Requests in the last five minutes that found their model unloaded: the ten models with the most.",
            Unit.COUNT,
            Query(expr=f"topk(10, {how_many('modelium_cold_starts_total', 'model')})", legend="{{model}}"),
            stacked=True,
        ),
        time_series(
            "Part of all requests that are cold",
            "0: what is asked for is loaded. Every cold request waits as long as the graph on the left says.",
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
            "Requests that wait for a load, by model. Alert: RequestsWaiting.",
            Unit.COUNT,
            Query(expr="sum by (model) (modelium_requests_waiting)", legend="{{model}}"),
            width=12,
            stacked=True,
        ),
        heatmap(
            "Waits",
            "How many requests waited how long.",
            Unit.SECONDS,
            buckets("modelium_cold_start_wait_seconds"),
        ),
        timeline(
            "States",
            "Which models were loaded when. Yellow: on the way in or out.",
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
            "From the order to Triton to READY, failed ones too.",
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
            "How many loads ended in the last five minutes, and how.",
            Unit.COUNT,
            Query(expr=how_many("modelium_model_loads_total", "outcome"), legend="{{outcome}}"),
            stacked=True,
        ),
        heatmap(
            "Loads",
            "How many loads took how long.",
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
            "Unloads by policy in the last five minutes; docs/design.md has the rules.",
            Unit.COUNT,
            Query(expr=how_many("modelium_evictions_total", "rule"), legend="{{rule}}"),
            stacked=True,
        ),
        time_series(
            "Swaps",
            "Models that went for another one that was waited for, in the last five minutes: what is asked for does not fit.",
            Unit.COUNT,
            Query(expr=how_many("modelium_swaps_total", "device"), legend="{{device}}"),
        ),
        time_series(
            "Age at eviction",
            "How long evicted models had been loaded, over half an hour. Minutes: there is not room for what is asked.",
            Unit.SECONDS,
            *quantiles("modelium_eviction_age_seconds", over="30m")[:2],
        ),
        time_series(
            "Evicted young",
            "Evictions within ten minutes of the load, in the last half hour. The line is the limit of Thrashing.",
            Unit.COUNT,
            Query(expr="instance:modelium_young_evictions:increase30m", legend="{{instance}}"),
            alert_at=6,
        ),
        time_series(
            "Evicted and brought back",
            "In the last half hour, by model. The line is the limit of ModelThrashing, which takes both.",
            Unit.COUNT,
            Query(expr="max by (model) (model:modelium_evictions:increase30m)", legend="{{model}} evicted"),
            Query(expr="max by (model) (model:modelium_cold_starts:increase30m)", legend="{{model}} cold"),
            alert_at=3,
        ),
        time_series(
            "Decisions",
            "What was decided in the last five minutes, by verb and rule. `modelium why` has the sentences.",
            Unit.COUNT,
            Query(expr=how_many("modelium_decisions_total", "verb", "rule"), legend="{{verb}} {{rule}}"),
            stacked=True,
        ),
        time_series(
            "Pinned and loaded",
            "Pinned models are never evicted: too many, and nothing is left to make room with.",
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
    description="How long requests wait for loads, what was unloaded for them, and by which rules.",
    rows=(_WAITS, _LOADS, _EVICTIONS),
    since="now-3h",
)
