"""The table of metrics. Nothing enters; the names, kinds, labels and help texts of all families leave.

The series of a scrape, ``docs/metrics.md`` and the tests are all made from ``FAMILIES``.

A model has one ``modelium_model_state`` series, not one a state: eight series for each of 2,000 models were half of the
bytes of a scrape, and ``count by (state) (modelium_model_state)`` needs no zeros (``modelium_models`` has them).
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One entry of the reference: a metric's name as it is scraped, its kind, its labels and what it says."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LOAD_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
AGE_BUCKETS = (60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0, 604800.0)
LAG_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_KNOWN = 'model="" if there is no such model, so that wrong names create no series.'

REQUESTS = Family(
    name="modelium_requests_total",
    kind="counter",
    labels=("model", "code"),
    help=f"Answered requests to /predict, /apps and /v1, by HTTP status (499: the client disconnected); {_KNOWN}",
)
REQUEST_SECONDS = Family(
    name="modelium_request_duration_seconds",
    kind="histogram",
    labels=("model",),
    buckets=REQUEST_BUCKETS,
    help="Time from the first byte of a request to its answer, including the wait for a load.",
)
RETRIES = Family(
    name="modelium_infer_retries_total",
    kind="counter",
    labels=("model",),
    help="Inferences that were tried again because the model or Triton ended during them.",
)
FIRST_TOKEN_SECONDS = Family(
    name="modelium_time_to_first_token_seconds",
    kind="histogram",
    labels=("model",),
    buckets=REQUEST_BUCKETS,
    help="From the first byte of a request for text to its first token, including the wait for a load.",
)
PROMPT_TOKENS = Family(
    name="modelium_prompt_tokens_total",
    kind="counter",
    labels=("model",),
    help="Tokens of the prompts of generations that began, if the runtime reports them.",
)
OUTPUT_TOKENS = Family(
    name="modelium_output_tokens_total",
    kind="counter",
    labels=("model",),
    help="Generated tokens that were sent to clients, including those of interrupted answers.",
)
IN_FLIGHT = Family(
    name="modelium_requests_in_flight",
    kind="gauge",
    labels=("model",),
    help="Requests that hold a lease now. Only for models that occupy memory or have requests.",
)
WAITING = Family(
    name="modelium_requests_waiting",
    kind="gauge",
    labels=("model",),
    help="Requests that wait for the model: to be loaded, or for one of the requests that it answers at a time "
    "(max_in_flight) to end. Only for models that occupy memory or have requests.",
)
QUEUE_SECONDS = Family(
    name="modelium_queue_wait_seconds",
    kind="histogram",
    labels=("model",),
    buckets=REQUEST_BUCKETS,
    help="How long requests waited for the model, also those that waited in vain. Those that did not wait do not count.",
)
KEY_WAITING = Family(
    name="modelium_key_requests_waiting",
    kind="gauge",
    labels=("key",),
    help="Requests that wait for models, by the name of their API key. Only for keys with such requests.",
)
KEY_WAITS = Family(
    name="modelium_key_waits_total",
    kind="counter",
    labels=("key",),
    help='Requests that waited for a model, by the name of their API key; key="other" for all beyond the first hundred names.',
)
KEY_WAIT_SECONDS = Family(
    name="modelium_key_wait_seconds_total",
    kind="counter",
    labels=("key",),
    help="How long those requests waited.",
)
COLD_STARTS = Family(
    name="modelium_cold_starts_total",
    kind="counter",
    labels=("model",),
    help="Requests whose model was not loaded, and which waited for it.",
)
COLD_START_SECONDS = Family(
    name="modelium_cold_start_wait_seconds",
    kind="histogram",
    buckets=LOAD_BUCKETS,
    help="How long those requests waited for the load.",
)
QPS = Family(
    name="modelium_model_qps",
    kind="gauge",
    labels=("model",),
    help="Requests per second from Triton's statistics, including those at Triton's own ports. Only for loaded models.",
)
IDLE = Family(
    name="modelium_model_idle_seconds",
    kind="gauge",
    labels=("model",),
    help="Seconds since the end of the last request, 0 while one runs. Only for loaded models.",
)
STATE = Family(
    name="modelium_model_state",
    kind="gauge",
    labels=("model", "state"),
    help="1 for the current state of the model; its other states have no series.",
)
REVISION_FAILED = Family(
    name="modelium_model_revision_failed",
    kind="gauge",
    labels=("model",),
    help="1 while a newer revision of a loaded model cannot be served and the old one continues; only for such models.",
)
MODELS = Family(name="modelium_models", kind="gauge", labels=("state",), help="Number of models in each state, including 0.")
PINNED = Family(name="modelium_models_pinned", kind="gauge", help="Number of pinned models.")
MODEL_BYTES = Family(
    name="modelium_model_memory_bytes",
    kind="gauge",
    labels=("model", "device", "kind"),
    help=(
        "Memory of a model: kind=estimated from the headers, kind=measured the most that was measured for this revision "
        "(absent before its first load), kind=promised what the plan reserves for it (while it loads or is loaded), "
        "kind=held by its processes at the last reading (loaded models only; absent with an external Triton)."
    ),
)
MODEL_ESTIMATE_ERROR = Family(
    name="modelium_model_estimate_error_ratio",
    kind="gauge",
    labels=("model",),
    help=(
        "Error of the estimate of a model's memory: estimated / measured - 1, 0.1 if it is 10 % too much (absent before "
        "the first measurement). An engine on the host is measured below its plan as long as parts of its cache are unused."
    ),
)
LOADS = Family(
    name="modelium_model_loads_total",
    kind="counter",
    labels=("model", "outcome"),
    help="Loads that ended, by outcome (ok, failed …).",
)
LOAD_SECONDS = Family(
    name="modelium_model_load_duration_seconds",
    kind="histogram",
    buckets=LOAD_BUCKETS,
    help="Duration of loads, including failed ones.",
)
UNLOADS = Family(
    name="modelium_model_unloads_total",
    kind="counter",
    labels=("model", "rule"),
    help="Unloads that ended, by the rule that requested them.",
)
UNLOAD_KILLS = Family(
    name="modelium_model_unload_kills_total",
    kind="counter",
    labels=("model",),
    help="Unloads after which the model's processes did not end within triton.unload_timeout_seconds and were killed.",
)
UNLOAD_SECONDS = Family(
    name="modelium_model_unload_duration_seconds",
    kind="histogram",
    buckets=LOAD_BUCKETS,
    help="From the start of the drain until processes and memory are gone.",
)
EVICTIONS = Family(
    name="modelium_evictions_total", kind="counter", labels=("rule",), help="Unloads by policy, by eviction rule."
)
EVICTION_AGE = Family(
    name="modelium_eviction_age_seconds", kind="histogram", buckets=AGE_BUCKETS, help="How long evicted models had been loaded."
)
PRELOADS = Family(
    name="modelium_preloads_total",
    kind="counter",
    labels=("outcome",),
    help="Loads before the next request, which was expected: begun, then used by it, or wasted (unloaded before any came).",
)
PRELOAD_WASTED = Family(
    name="modelium_preload_wasted_seconds_total", kind="counter", help="What the loads took that were wasted."
)
READ_AHEADS = Family(
    name="modelium_read_aheads_total",
    kind="counter",
    labels=("outcome",),
    help="Models whose weights were read into the page cache before the next request, which was expected: begun, then used by "
    "a load within a quarter of an hour, or wasted.",
)
READ_AHEAD_BYTES = Family(name="modelium_read_ahead_bytes_total", kind="counter", help="Size of the weights that were read so.")
SWAPS = Family(
    name="modelium_swaps_total",
    kind="counter",
    labels=("device",),
    help="Models unloaded because a request waited for another one. Many in an hour mean that they do not fit together.",
)
DEVICE_BYTES = Family(
    name="modelium_device_memory_bytes",
    kind="gauge",
    labels=("device", "kind"),
    help="Memory of a device: kind=total, used (by any program) or budget (what models may use).",
)
DEVICE_LEAKED = Family(
    name="modelium_device_leaked_bytes",
    kind="gauge",
    labels=("device",),
    help=(
        "Memory of a device that unloads did not bring back since Triton started: held by Triton itself, or by no process "
        "(less than 64 MiB is 0; always 0 with an external Triton and on a Ray cluster, where it is not measured)."
    ),
)
NURSERY_BYTES = Family(
    name="modelium_nursery_bytes",
    kind="gauge",
    help=(
        "Memory of the host that the nursery holds, alone or together with the models' processes that were forked from it: no "
        "model's own memory contains it. There is no series where there is no nursery."
    ),
)
DECISIONS = Family(
    name="modelium_decisions_total",
    kind="counter",
    labels=("verb", "rule"),
    help="Decisions by verb and by the rule that made them.",
)
WATCHER_LAG = Family(
    name="modelium_watcher_lag_seconds",
    kind="histogram",
    buckets=LAG_BUCKETS,
    help="From a change in a watched directory to the scan that detected it.",
)
SCAN_SECONDS = Family(
    name="modelium_scan_duration_seconds",
    kind="histogram",
    buckets=LAG_BUCKETS,
    help="Duration of scans of the watched directories.",
)
SCANNED = Family(name="modelium_scanned", kind="gauge", help="1 when the first scan has finished.")
WATCH_DIRECTORY_UP = Family(
    name="modelium_watch_directory_up",
    kind="gauge",
    labels=("path",),
    help="1 if the watched directory can be read, 0 while it is suspended; its models stay.",
)
LOOP_AGE = Family(
    name="modelium_loop_turn_age_seconds",
    kind="gauge",
    help="Seconds since the controller's loop began a turn; it begins one at least every second.",
)
LOOP_PAUSE = Family(
    name="modelium_loop_longest_pause_seconds",
    kind="gauge",
    help="The longest time in the last minute for which the event loop was blocked. All answers are made on this loop.",
)
TRITON_UP = Family(name="modelium_triton_up", kind="gauge", help="1 while Triton answers.")
TRITON_RESTARTS = Family(
    name="modelium_triton_restarts_total", kind="counter", help="Restarts of the embedded server since Modelium started."
)
RAY_UP = Family(
    name="modelium_ray_up", kind="gauge", help="1 while Ray answers, 0 while it is down; absent if Ray is not used."
)
RAY_RESTARTS = Family(
    name="modelium_ray_restarts_total", kind="counter", help="Number of times that Ray came back after its first start."
)
BUILD = Family(
    name="modelium_build_info", kind="info", labels=("version", "python", "triton"), help="Always 1; the versions are labels."
)

FAMILIES: tuple[Family, ...] = (
    REQUESTS, REQUEST_SECONDS, RETRIES, FIRST_TOKEN_SECONDS, PROMPT_TOKENS, OUTPUT_TOKENS,
    IN_FLIGHT, WAITING, QUEUE_SECONDS, KEY_WAITING, KEY_WAITS, KEY_WAIT_SECONDS, COLD_STARTS, COLD_START_SECONDS,
    QPS, IDLE, STATE, REVISION_FAILED, MODELS, PINNED, MODEL_BYTES, MODEL_ESTIMATE_ERROR,
    LOADS, LOAD_SECONDS, UNLOADS, UNLOAD_KILLS, UNLOAD_SECONDS,
    EVICTIONS, EVICTION_AGE, PRELOADS, PRELOAD_WASTED, READ_AHEADS, READ_AHEAD_BYTES, SWAPS, DEVICE_BYTES, DEVICE_LEAKED,
    NURSERY_BYTES, DECISIONS,
    WATCHER_LAG, SCAN_SECONDS, SCANNED,
    WATCH_DIRECTORY_UP, LOOP_AGE, LOOP_PAUSE, TRITON_UP, TRITON_RESTARTS, RAY_UP, RAY_RESTARTS, BUILD,
)  # fmt: skip


def reference() -> str:
    """``docs/metrics.md``, from ``FAMILIES``."""
    entries = "\n".join(_entry(family) for family in FAMILIES)
    return f"""# Metrics

Modelium answers scrapes at `http://127.0.0.1:9090/metrics` (`metrics.host`, `metrics.port`), in Prometheus'
text format or in OpenMetrics, whichever the scraper requests. `/metrics` at the gateway's port gives the
same, to whoever may ask there. It computes the values at the time of the scrape. The series of a removed
model disappear.

Counters start at 0 when Modelium starts, and when a removed model comes back. The counters of a model's
requests, cold starts and loads exist from its first load on, with the value 0 if necessary, because a rate
does not count the event that begins a series.

This page is generated: `python -m modelium.metrics > docs/metrics.md`.

Each entry gives the name, the type, the labels and the meaning.

{entries}

The same page exports the metrics of Modelium's own process (`process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_open_fds` …).

[monitoring.md](monitoring.md) describes the rules, alerts and dashboards that use these metrics.
"""


def _entry(family: Family) -> str:
    """The lines of a family in ``docs/metrics.md``."""
    kind = ", ".join((family.kind, *(f"`{label}`" for label in family.labels)))
    text = f"`{family.name}` ({kind}): {family.help}"
    return textwrap.fill(text, 110, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
