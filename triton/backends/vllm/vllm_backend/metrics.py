"""vLLM's statistics on Triton's ``/metrics``: what enters is what the engine reports a step, what leaves are Triton's metrics
with the labels ``model`` and ``version``, and ``engine``: the id of this process. Two revisions of a model live side by side
while one replaces the other, and metrics with equal labels are one metric inside Triton (2.51): the older one's end takes it
away, and the next report of the newer one crashes the server.

Names, kinds and buckets are the stock backend's; the three gauges are added. Reporting a number is a message to the server
process, so a thread of its own does it: counters and gauges once a round, histograms each number (a child of a nursery tells
its stub all of a round at once).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

_LATENCY = [1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0]
_FIRST_TOKEN = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
_NEXT_TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]
_COUNTERS = {
    "vllm:prompt_tokens_total": "Number of prefill tokens processed.",
    "vllm:generation_tokens_total": "Number of generation tokens processed.",
}
_HISTOGRAMS: dict[str, tuple[str, list[float] | None]] = {  # None: 1, 2, 5, 10 … up to the context length
    "vllm:time_to_first_token_seconds": ("Histogram of time to first token in seconds.", _FIRST_TOKEN),
    "vllm:time_per_output_token_seconds": ("Histogram of time per output token in seconds.", _NEXT_TOKEN),
    "vllm:e2e_request_latency_seconds": ("Histogram of end to end request latency in seconds.", _LATENCY),
    "vllm:request_prompt_tokens": ("Number of prefill tokens processed.", None),
    "vllm:request_generation_tokens": ("Number of generation tokens processed.", None),
    "vllm:request_params_n": ("Histogram of the n request parameter.", [1.0, 2.0, 5.0, 10.0, 20.0]),
}
_RUNNING, _WAITING, _CACHE = "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
_GAUGES = {
    _RUNNING: "Number of requests that the engine computes now.",
    _WAITING: "Number of requests that wait for room in the engine.",
    _CACHE: "Share of the KV cache in use, from 0 to 1.",
}
_ROUND_S = 0.1
_BACKLOG = 50_000


class Metrics:
    """``record`` takes what the engine reports, from the engine's thread; ``close`` when it is over."""

    def __init__(self, pb_utils: Any, labels: dict[str, str], *, context: int, unfinished: Callable[[], int]) -> None:
        """Raises Triton's exception where the server has no metrics. ``unfinished``: how many sequences are under way."""
        kinds = pb_utils.MetricFamily

        def family(name: str, description: str, kind: Any, **more: Any) -> Any:
            made = kinds(name=name, description=description, kind=kind)
            self._families.append(made)  # a family that is collected takes its metrics with it
            return made.Metric(labels=labels, **more)

        self._families: list[Any] = []
        self._counters = {name: family(name, text, kinds.COUNTER) for name, text in _COUNTERS.items()}
        self._gauges = {name: family(name, text, kinds.GAUGE) for name, text in _GAUGES.items()}
        self._histograms = {
            name: family(name, text, kinds.HISTOGRAM, buckets=buckets if buckets is not None else buckets_up_to(context))
            for name, (text, buckets) in _HISTOGRAMS.items()
        }
        del family  # it holds this object, and with it the families
        self._unfinished = unfinished
        self._numbers: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        self._totals = dict.fromkeys(_COUNTERS, 0)
        self._seen = dict.fromkeys(_GAUGES, 0.0)
        self._shown: dict[str, float] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._report, name="vllm-metrics", daemon=True)

    def start(self) -> None:
        """Report from now on. Not before the model serves: a report while Triton waits for ``initialize`` hangs both (2.51)."""
        if not self._thread.is_alive() and not self._over.is_set():
            self._thread.start()

    def record(self, scheduler: Any, iteration: Any) -> None:
        with self._lock:
            if scheduler is not None:
                waiting = scheduler.num_waiting_reqs + getattr(scheduler, "num_skipped_waiting_reqs", 0)
                self._seen = {_RUNNING: scheduler.num_running_reqs, _WAITING: waiting, _CACHE: scheduler.kv_cache_usage}
            if iteration is not None:
                self._totals["vllm:prompt_tokens_total"] += iteration.num_prompt_tokens
                self._totals["vllm:generation_tokens_total"] += iteration.num_generation_tokens
        if iteration is None or self._numbers.qsize() > _BACKLOG:
            return
        finished = iteration.finished_requests
        for name, numbers in (
            ("vllm:time_to_first_token_seconds", iteration.time_to_first_tokens_iter),
            ("vllm:time_per_output_token_seconds", iteration.inter_token_latencies_iter),
            ("vllm:e2e_request_latency_seconds", [one.e2e_latency for one in finished]),
            ("vllm:request_prompt_tokens", [one.num_prompt_tokens for one in finished]),
            ("vllm:request_generation_tokens", [one.num_generation_tokens for one in finished]),
            ("vllm:request_params_n", iteration.n_params_iter),
        ):
            for number in numbers:
                self._numbers.put((name, number))

    def close(self) -> None:
        """What is left is reported, then the metrics go: left to the interpreter's end, they crash Triton's stub (2.51)."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)
        for metrics in (self._counters, self._gauges, self._histograms, self._families):
            metrics.clear()

    def _report(self) -> None:
        while not self._over.wait(_ROUND_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            totals, self._totals = self._totals, dict.fromkeys(_COUNTERS, 0)
            seen = dict(self._seen)
        # The engine reports only when it computes: after the last request was cancelled it says nothing more.
        unfinished = self._unfinished()
        if unfinished == 0:
            seen = dict.fromkeys(seen, 0.0)
        seen[_RUNNING] = min(seen[_RUNNING], unfinished)
        seen[_WAITING] = min(seen[_WAITING], unfinished - seen[_RUNNING])
        for name, value in seen.items():
            if self._shown.get(name) != value:
                self._gauges[name].set(value)
                self._shown[name] = value
        for name, count in totals.items():
            if count:
                self._counters[name].increment(count)
        observed: dict[str, list[float]] = {}
        for _ in range(self._numbers.qsize()):
            name, number = self._numbers.get()
            observed.setdefault(name, []).append(number)
        for name, numbers in observed.items():
            _observe(self._histograms[name], numbers)


def _observe(histogram: Any, numbers: list[float]) -> None:
    if hasattr(histogram, "observe_all"):
        histogram.observe_all(numbers)
        return
    for number in numbers:
        histogram.observe(number)


def buckets_up_to(largest: int) -> list[float]:
    """
    >>> buckets_up_to(60)
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
    """
    steps = (factor * 10.0**power for power in range(len(str(largest)) + 1) for factor in (1, 2, 5))
    return [step for step in steps if step <= largest] or [1.0]
