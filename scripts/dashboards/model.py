"""Modelium / Model: one model, or several, from its folder to its tokens; chosen by ``$model``."""

from __future__ import annotations

from dashboards.grafana import Dashboard, Query, Row, Unit, Variable
from dashboards.panels import time_series, timeline
from dashboards.queries import STATES, how_many, mean, per_second, quantiles, state_of_models

_MODEL = 'model=~"$model"'
_SUCCESSES = "nv_inference_request_success"
_STAGES = (
    ("queue", "nv_inference_queue_duration_us"),
    ("input", "nv_inference_compute_input_duration_us"),
    ("compute", "nv_inference_compute_infer_duration_us"),
    ("output", "nv_inference_compute_output_duration_us"),
)

_STATE = Row(
    title="State",
    panels=(
        timeline(
            "State", "The state of each model over time.", Query(expr=state_of_models(_MODEL), legend="{{model}}"), STATES
        ),
    ),
)

_TRAFFIC = Row(
    title="Traffic",
    panels=(
        time_series(
            "Requests by status",
            "Answers of the gateway by HTTP status. 499: the client disconnected before the answer.",
            Unit.PER_SECOND,
            Query(expr=per_second("modelium_requests_total", "model", "code", where=_MODEL), legend="{{model}} {{code}}"),
            stacked=True,
        ),
        time_series(
            "Time to the answer",
            "From the first byte of a request to its answer, including the wait for a load.",
            Unit.SECONDS,
            *quantiles("modelium_request_duration_seconds", where=_MODEL),
        ),
        time_series(
            "Answered with 5xx",
            "The share of the requests that failed, over five minutes. The line is the limit of ModelErrors.",
            Unit.SHARE,
            Query(expr=f"max by (model) (model:modelium_requests_failed:ratio_rate5m{{{_MODEL}}})", legend="{{model}}"),
            alert_at=0.05,
            maximum=1,
        ),
        time_series(
            "In flight and waiting",
            "Requests that the model is answering, and requests that wait for its load or for a place (max_in_flight). "
            "Alert: RequestsWaiting.",
            Unit.COUNT,
            Query(expr=f"sum by (model) (modelium_requests_in_flight{{{_MODEL}}})", legend="{{model}} in flight"),
            Query(expr=f"sum by (model) (modelium_requests_waiting{{{_MODEL}}})", legend="{{model}} waiting"),
        ),
        time_series(
            "Use, as measured for eviction",
            "Requests per second from Triton's statistics, so requests at Triton's own ports count too.",
            Unit.PER_SECOND,
            Query(expr=f"sum by (model) (modelium_model_qps{{{_MODEL}}})", legend="{{model}}"),
        ),
        time_series(
            "Idle",
            "Time since the end of the last request. There is no line while the model is not loaded. After "
            "evict_after_idle_seconds, the model may be evicted.",
            Unit.SECONDS,
            Query(expr=f"max by (model) (modelium_model_idle_seconds{{{_MODEL}}})", legend="{{model}}"),
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
            *quantiles("modelium_time_to_first_token_seconds", where=_MODEL),
            width=12,
        ),
        time_series(
            "Tokens",
            "Tokens of the prompts, and tokens that were generated.",
            Unit.TOKENS_PER_SECOND,
            Query(expr=per_second("modelium_output_tokens_total", "model", where=_MODEL), legend="{{model}} generated"),
            Query(expr=per_second("modelium_prompt_tokens_total", "model", where=_MODEL), legend="{{model}} prompts"),
            width=12,
        ),
    ),
)

_TRITON = Row(
    title="Triton",
    panels=(
        time_series(
            "Inferences",
            "Inferences that succeeded and that failed. The gateway splits a long list of inputs into several inferences.",
            Unit.PER_SECOND,
            Query(expr=per_second(_SUCCESSES, "model", where=_MODEL), legend="{{model}}"),
            Query(
                expr=per_second("nv_inference_request_failure", "model", "reason", where=_MODEL), legend="{{model}} {{reason}}"
            ),
        ),
        time_series(
            "Where an inference's time goes",
            "The mean of each stage. For a vllm model, this ends when the engine has accepted the request: see its engine "
            "below.",
            Unit.SECONDS,
            *(Query(expr=mean(stage, _SUCCESSES, where=_MODEL, divisor=" / 1e6"), legend=name) for name, stage in _STAGES),
            stacked=True,
        ),
        time_series(
            "Time in Triton's queue",
            "The mean over five minutes. The line is the limit of TritonQueueing.",
            Unit.SECONDS,
            Query(expr=f"max by (model) (model:triton_queue_seconds:mean_rate5m{{{_MODEL}}})", legend="{{model}}"),
            alert_at=1,
        ),
        time_series(
            "Compute time in Triton",
            "The mean over five minutes, including input and output.",
            Unit.SECONDS,
            Query(expr=f"max by (model) (model:triton_compute_seconds:mean_rate5m{{{_MODEL}}})", legend="{{model}}"),
        ),
        time_series(
            "Pending in Triton",
            "Requests that Triton has accepted and not started.",
            Unit.COUNT,
            Query(expr=f"sum by (model) (nv_inference_pending_request_count{{{_MODEL}}})", legend="{{model}}"),
        ),
        time_series(
            "Rows in a batch",
            "The average number of inputs that are computed together. 1 under load means that batching does not help or is "
            "off.",
            Unit.ROWS,
            Query(expr=mean("nv_inference_count", "nv_inference_exec_count", "model", where=_MODEL), legend="{{model}}"),
        ),
    ),
)

_ENGINE = Row(
    title="vLLM's engine",
    panels=(
        time_series(
            "Sequences",
            "Sequences that the engine computes now, and sequences that wait for room in it. Alert: EngineQueueing.",
            Unit.COUNT,
            Query(expr=f"sum by (model) (vllm:num_requests_running{{{_MODEL}}})", legend="{{model}} running"),
            Query(expr=f"sum by (model) (vllm:num_requests_waiting{{{_MODEL}}})", legend="{{model}} waiting"),
        ),
        time_series(
            "KV cache",
            "The share of the cache that is in use. At 1, sequences wait or are computed again.",
            Unit.SHARE,
            Query(expr=f"max by (model) (vllm:kv_cache_usage_perc{{{_MODEL}}})", legend="{{model}}"),
            maximum=1,
        ),
        time_series(
            "Tokens of the engine",
            "Tokens as the engine counts them: tokens of the prompts, and generated tokens.",
            Unit.TOKENS_PER_SECOND,
            Query(expr=per_second("vllm:generation_tokens_total", "model", where=_MODEL), legend="{{model}} generated"),
            Query(expr=per_second("vllm:prompt_tokens_total", "model", where=_MODEL), legend="{{model}} prompts"),
        ),
        time_series(
            "Time to the first token, in the engine",
            "As the engine measures it, without the wait for a load and Triton's queue.",
            Unit.SECONDS,
            *quantiles("vllm:time_to_first_token_seconds", where=_MODEL),
            width=12,
        ),
        time_series(
            "Time between tokens",
            "The time for each token after the first.",
            Unit.SECONDS,
            *quantiles("vllm:time_per_output_token_seconds", where=_MODEL),
            width=12,
        ),
    ),
)

_LIFE = Row(
    title="Loads and memory",
    panels=(
        time_series(
            "Loads and unloads",
            "Loads and unloads that ended in the last five minutes: loads by outcome, unloads by the rule that requested them.",
            Unit.COUNT,
            Query(
                expr=how_many("modelium_model_loads_total", "model", "outcome", where=_MODEL),
                legend="{{model}} load {{outcome}}",
            ),
            Query(
                expr=how_many("modelium_model_unloads_total", "model", "rule", where=_MODEL), legend="{{model}} unload {{rule}}"
            ),
        ),
        time_series(
            "Cold starts",
            "Requests in the last half hour whose model was not loaded. The line is the limit of ModelThrashing.",
            Unit.COUNT,
            Query(expr=f"max by (model) (model:modelium_cold_starts:increase30m{{{_MODEL}}})", legend="{{model}}"),
            alert_at=3,
        ),
        time_series(
            "Memory",
            "The estimate, the most that was measured, the memory promised to it, and the memory that it holds now. "
            "Alert: ModelMemoryGrows.",
            Unit.BYTES,
            Query(expr=f"sum by (model, kind) (modelium_model_memory_bytes{{{_MODEL}}})", legend="{{model}} {{kind}}"),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="modelium-model",
    file="model.json",
    title="Modelium / Model",
    description="One model, or several, from folder to tokens.",
    variables=(Variable(name="model", title="Model", metric="modelium_model_state", label="model"),),
    rows=(_STATE, _TRAFFIC, _TEXT, _TRITON, _ENGINE, _LIFE),
)
