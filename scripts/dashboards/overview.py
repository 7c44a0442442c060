"""Modelium / Overview: health, traffic and latency of the whole system, for a screen on the wall."""

from __future__ import annotations

from dashboards.grafana import Color, Dashboard, Limit, Query, Row, Unit
from dashboards.panels import stat, table, time_series
from dashboards.queries import KNOWN, YES_NO, YES_NO_UNUSED, how_many, per_second, quantiles

_NOW = Row(
    title="Now",
    panels=(
        stat(
            "Modelium",
            "Whether Prometheus can scrape Modelium. Alert: ModeliumDown.",
            Unit.COUNT,
            Query(expr='min(up{job="modelium"})'),
            width=2,
            words=YES_NO,
        ),
        stat(
            "Triton",
            "Whether Modelium can reach Triton. Alert: TritonDown.",
            Unit.COUNT,
            Query(expr="min(modelium_triton_up)"),
            width=2,
            words=YES_NO,
        ),
        stat(
            "Ray",
            "Whether Ray answers, if it is used. Alert: RayDown.",
            Unit.COUNT,
            Query(expr="min(modelium_ray_up) or vector(2)"),
            width=2,
            words=YES_NO_UNUSED,
        ),
        stat(
            "Models loaded",
            "Models that answer immediately.",
            Unit.COUNT,
            Query(expr='sum(modelium_models{state="LOADED"})'),
            width=3,
            calm=Color.BLUE,
        ),
        stat(
            "Models failed",
            "Models whose loads fail. Alert: ModelFailed.",
            Unit.COUNT,
            Query(expr='sum(modelium_models{state="FAILED"})'),
            width=3,
            limits=(Limit(at=1, color=Color.ORANGE),),
        ),
        stat(
            "Revisions failed",
            "Models that serve an old revision because a newer one cannot be served. Alert: RevisionFailed.",
            Unit.COUNT,
            Query(expr="sum(modelium_model_revision_failed) or vector(0)"),
            width=3,
            limits=(Limit(at=1, color=Color.ORANGE),),
        ),
        stat(
            "Requests",
            "Answered requests, with any status.",
            Unit.PER_SECOND,
            Query(expr=per_second("modelium_requests_total")),
            width=3,
            calm=Color.BLUE,
        ),
        stat(
            "Answered with 5xx",
            "The share of the requests in the last five minutes that failed on the server's side. Alert: GatewayErrors.",
            Unit.SHARE,
            Query(expr="max(instance:modelium_requests_failed:ratio_rate5m) or vector(0)"),
            width=3,
            limits=(Limit(at=0.01, color=Color.ORANGE), Limit(at=0.05, color=Color.RED)),
        ),
        stat(
            "Waiting",
            "Requests that wait for their model to be loaded. Alert: RequestsWaiting.",
            Unit.COUNT,
            Query(expr="sum(modelium_requests_waiting) or vector(0)"),
            width=3,
            limits=(Limit(at=1, color=Color.YELLOW), Limit(at=100, color=Color.RED)),
        ),
        table(
            "Alerts",
            "Alerts that fire now, and for how long their conditions have held. docs/monitoring.md says what to do about each.",
            Unit.SECONDS,
            {"Holds for": '(time() - ALERTS_FOR_STATE) * ignoring (alertstate) ALERTS{alertstate="firing"}'},
            labels=("alertname", "severity", "model", "device", "instance"),
            height=6,
        ),
    ),
)

_TRAFFIC = Row(
    title="Traffic",
    panels=(
        time_series(
            "Requests by status",
            "Answers at /predict, /apps and /v1 by HTTP status. 499: the client disconnected before the answer.",
            Unit.PER_SECOND,
            Query(expr=per_second("modelium_requests_total", "code"), legend="{{code}}"),
            stacked=True,
        ),
        time_series(
            "Requests by model",
            "The ten models with the most requests at the gateway.",
            Unit.PER_SECOND,
            Query(
                expr=f"topk(10, {per_second('modelium_requests_total', 'model', where=KNOWN)})",
                legend="{{model}}",
            ),
            stacked=True,
        ),
        time_series(
            "Answered with 5xx, by model",
            "The share of a model's requests that failed, over five minutes. The line is the limit of ModelErrors.",
            Unit.SHARE,
            Query(expr=f"max by (model) (model:modelium_requests_failed:ratio_rate5m{{{KNOWN}}})", legend="{{model}}"),
            alert_at=0.05,
            maximum=1,
        ),
        time_series(
            "Time to the answer",
            "From the first byte of a request to its answer, including the wait for a load.",
            Unit.SECONDS,
            *quantiles("modelium_request_duration_seconds"),
        ),
        time_series(
            "Slowest models",
            "The ten models with the longest time to the answer (95th percentile over five minutes).",
            Unit.SECONDS,
            Query(
                expr="topk(10, max by (model) (model:modelium_request_duration_seconds:p95_rate5m))",
                legend="{{model}}",
            ),
        ),
        time_series(
            "In flight and waiting",
            "Requests that are being answered, requests that wait for a load, and requests that Triton has not started.",
            Unit.COUNT,
            Query(expr="sum(modelium_requests_in_flight)", legend="in flight"),
            Query(expr="sum(modelium_requests_waiting)", legend="waiting for a load"),
            Query(expr="sum(nv_inference_pending_request_count)", legend="pending in Triton"),
        ),
    ),
)

_TEXT = Row(
    title="Text",
    panels=(
        time_series(
            "Time to the first token",
            "From the first byte of a request for text to its first token, including the wait for a load.",
            Unit.SECONDS,
            *quantiles("modelium_time_to_first_token_seconds"),
        ),
        time_series(
            "Slowest to the first token",
            "The ten models with the longest time to the first token (95th percentile over five minutes).",
            Unit.SECONDS,
            Query(
                expr="topk(10, max by (model) (model:modelium_time_to_first_token_seconds:p95_rate5m))",
                legend="{{model}}",
            ),
        ),
        time_series(
            "Tokens",
            "Tokens of the prompts, and generated tokens, from all runtimes.",
            Unit.TOKENS_PER_SECOND,
            Query(expr=per_second("modelium_output_tokens_total"), legend="generated"),
            Query(expr=per_second("modelium_prompt_tokens_total"), legend="prompts"),
        ),
    ),
)

_MODELS = Row(
    title="Models",
    panels=(
        time_series(
            "Models by state",
            "How many models are in each state.",
            Unit.COUNT,
            Query(expr="sum by (state) (modelium_models)", legend="{{state}}"),
            stacked=True,
        ),
        time_series(
            "Loads and unloads",
            "Loads and unloads that ended in the last five minutes: loads by outcome, unloads by the rule that requested them.",
            Unit.COUNT,
            Query(expr=how_many("modelium_model_loads_total", "outcome"), legend="load {{outcome}}"),
            Query(expr=how_many("modelium_model_unloads_total", "rule"), legend="unload {{rule}}"),
        ),
        time_series(
            "Device memory",
            "The share of each device's memory that is in use, by any program. The line is the limit of DeviceMemoryFull.",
            Unit.SHARE,
            Query(expr="max by (device) (device:modelium_memory_used:ratio)", legend="{{device}}"),
            alert_at=0.95,
            maximum=1,
        ),
    ),
)

_ITSELF = Row(
    title="Modelium itself",
    panels=(
        time_series(
            "Age of the controller's turn",
            "The time since the loop began its last turn. It is normally below a second. The line is the limit of LoopStuck.",
            Unit.SECONDS,
            Query(expr="modelium_loop_turn_age_seconds", legend="{{instance}}"),
            alert_at=30,
        ),
        time_series(
            "Longest pause of the loop",
            "The longest time in the last minute for which the event loop was blocked. Modelium answers nothing during that "
            "time.",
            Unit.SECONDS,
            Query(expr="modelium_loop_longest_pause_seconds", legend="{{instance}}"),
        ),
        time_series(
            "Memory of the process",
            "The memory of Modelium's own process. Models run in other processes. Alert: ControllerMemoryGrows.",
            Unit.BYTES,
            Query(expr='process_resident_memory_bytes{job="modelium"}', legend="{{instance}}"),
        ),
        time_series(
            "CPU",
            "CPU time of Modelium's own process. The controller's loop uses one core: near 1, it is the bottleneck.",
            Unit.COUNT,
            Query(expr='rate(process_cpu_seconds_total{job="modelium"}[$__rate_interval])', legend="{{instance}}"),
        ),
        time_series(
            "Triton's restarts and retried requests",
            "In the last five minutes: restarts of the embedded server, and inferences that were sent again because the model "
            "or Triton ended during them. Alert: TritonRestarting.",
            Unit.COUNT,
            Query(expr=how_many("modelium_triton_restarts_total"), legend="restarts of Triton"),
            Query(expr=how_many("modelium_infer_retries_total", "model"), legend="retried: {{model}}"),
        ),
        time_series(
            "Scans of the watched directories",
            "How long a scan takes, and how long a change remains undetected.",
            Unit.SECONDS,
            *(
                Query(expr=query.expr, legend=f"{what}, {query.legend}")
                for what, histogram in (("scan", "modelium_scan_duration_seconds"), ("delay", "modelium_watcher_lag_seconds"))
                for query in quantiles(histogram, over="5m")[:2]
            ),
        ),
        time_series(
            "Open files",
            "File descriptors of Modelium's own process, and their limit.",
            Unit.COUNT,
            Query(expr='process_open_fds{job="modelium"}', legend="{{instance}}: open"),
            Query(expr='process_max_fds{job="modelium"}', legend="{{instance}}: limit"),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="modelium-overview",
    file="overview.json",
    title="Modelium / Overview",
    description="Health, traffic and latency of the whole system.",
    rows=(_NOW, _TRAFFIC, _TEXT, _MODELS, _ITSELF),
)
