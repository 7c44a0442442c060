"""Modelium / Overview: is it well, what is asked of it, what do the answers take. For a screen on the wall."""

from __future__ import annotations

from dashboards.grafana import Color, Dashboard, Limit, Query, Row, Unit
from dashboards.panels import stat, table, time_series
from dashboards.queries import KNOWN, YES_NO, YES_NO_UNUSED, how_many, per_second, quantiles

_NOW = Row(
    title="Now",
    panels=(
        stat(
            "Modelium",
            "Whether Modelium answers its scrape. Alert: ModeliumDown.",
            Unit.COUNT,
            Query(expr='min(up{job="modelium"})'),
            width=2,
            words=YES_NO,
        ),
        stat(
            "Triton",
            "Whether Modelium reaches Triton. Alert: TritonDown.",
            Unit.COUNT,
            Query(expr="min(modelium_triton_up)"),
            width=2,
            words=YES_NO,
        ),
        stat(
            "Ray",
            "Whether Ray answers, where one is used. Alert: RayDown.",
            Unit.COUNT,
            Query(expr="min(modelium_ray_up) or vector(2)"),
            width=2,
            words=YES_NO_UNUSED,
        ),
        stat(
            "Models loaded",
            "Models that answer at once.",
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
            "Requests that were answered, whatever the answer.",
            Unit.PER_SECOND,
            Query(expr=per_second("modelium_requests_total")),
            width=3,
            calm=Color.BLUE,
        ),
        stat(
            "Answered with 5xx",
            "The part of the last five minutes' requests that failed here and not by the caller's fault. Alert: GatewayErrors.",
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
            "What fires now, and since how long its condition holds. docs/monitoring.md says what to do about each.",
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
            "Answers at /predict and /v1 by HTTP status. 499: the client did not wait.",
            Unit.PER_SECOND,
            Query(expr=per_second("modelium_requests_total", "code"), legend="{{code}}"),
            stacked=True,
        ),
        time_series(
            "Requests by model",
            "The ten models that are asked most at the gateway.",
            Unit.PER_SECOND,
            Query(
                expr=f"topk(10, {per_second('modelium_requests_total', 'model', where=KNOWN)})",
                legend="{{model}}",
            ),
            stacked=True,
        ),
        time_series(
            "Answered with 5xx, by model",
            "The part of a model's requests that failed, over five minutes. The line is the limit of ModelErrors.",
            Unit.SHARE,
            Query(expr=f"max by (model) (model:modelium_requests_failed:ratio_rate5m{{{KNOWN}}})", legend="{{model}}"),
            alert_at=0.05,
            maximum=1,
        ),
        time_series(
            "Time to the answer",
            "From the first byte of a request to its answer, waiting for a load included.",
            Unit.SECONDS,
            *quantiles("modelium_request_duration_seconds"),
        ),
        time_series(
            "Slowest models",
            "The ten models whose slowest twentieth of requests takes longest, over five minutes.",
            Unit.SECONDS,
            Query(
                expr="topk(10, max by (model) (model:modelium_request_duration_seconds:p95_rate5m))",
                legend="{{model}}",
            ),
        ),
        time_series(
            "In flight and waiting",
            "Requests that are being answered, those that wait for a load, and those that Triton has not begun.",
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
            "From the first byte of a request for text to its first token, waiting for a load included.",
            Unit.SECONDS,
            *quantiles("modelium_time_to_first_token_seconds"),
        ),
        time_series(
            "Slowest to the first token",
            "The ten models whose slowest twentieth of requests for text waits longest for its first token, over five minutes.",
            Unit.SECONDS,
            Query(
                expr="topk(10, max by (model) (model:modelium_time_to_first_token_seconds:p95_rate5m))",
                legend="{{model}}",
            ),
        ),
        time_series(
            "Tokens",
            "Tokens of the prompts, and tokens that were generated, whichever runtime did it.",
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
            "How many ended in the last five minutes: loads by outcome, unloads by the rule that asked for them.",
            Unit.COUNT,
            Query(expr=how_many("modelium_model_loads_total", "outcome"), legend="load {{outcome}}"),
            Query(expr=how_many("modelium_model_unloads_total", "rule"), legend="unload {{rule}}"),
        ),
        time_series(
            "Device memory",
            "The part of each device's memory that is taken, by anybody. The line is the limit of DeviceMemoryFull.",
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
            "How long ago the loop began its last turn: under a second when all is well. The line is the limit of LoopStuck.",
            Unit.SECONDS,
            Query(expr="modelium_loop_turn_age_seconds", legend="{{instance}}"),
            alert_at=30,
        ),
        time_series(
            "Longest pause of the loop",
            "In the last minute: for so long nobody was answered, since something else held the one loop of Modelium.",
            Unit.SECONDS,
            Query(expr="modelium_loop_longest_pause_seconds", legend="{{instance}}"),
        ),
        time_series(
            "Memory of the process",
            "What Modelium's own process holds; models are other processes. Alert: ControllerMemoryGrows.",
            Unit.BYTES,
            Query(expr='process_resident_memory_bytes{job="modelium"}', legend="{{instance}}"),
        ),
        time_series(
            "Processor",
            "Processor time of Modelium's own process. The controller's loop is one core: near 1 it is the bottleneck.",
            Unit.COUNT,
            Query(expr='rate(process_cpu_seconds_total{job="modelium"}[$__rate_interval])', legend="{{instance}}"),
        ),
        time_series(
            "Triton's restarts, and requests that were tried again",
            "In the last five minutes: restarts of the embedded server, and inferences that were sent again because model or "
            "Triton went away under them. Alert: TritonRestarting.",
            Unit.COUNT,
            Query(expr=how_many("modelium_triton_restarts_total"), legend="restarts of Triton"),
            Query(expr=how_many("modelium_infer_retries_total", "model"), legend="tried again: {{model}}"),
        ),
        time_series(
            "Looking at the folders",
            "How long a scan of the watched directories takes, and how long a change in them goes unseen.",
            Unit.SECONDS,
            *(
                Query(expr=query.expr, legend=f"{what}, {query.legend}")
                for what, histogram in (("scan", "modelium_scan_duration_seconds"), ("unseen", "modelium_watcher_lag_seconds"))
                for query in quantiles(histogram, over="5m")[:2]
            ),
        ),
        time_series(
            "Open files",
            "File descriptors of Modelium's own process, and how many it may have.",
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
    description="Is it well, what is asked of it, what do the answers take.",
    rows=(_NOW, _TRAFFIC, _TEXT, _MODELS, _ITSELF),
)
