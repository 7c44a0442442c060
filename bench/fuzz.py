"""20,000 malformed requests over all routes: does one break anything?

Asked: no 500, no leaked lease, no hang, a log of at most 5 MB. Sixteen kinds (``tests/malformed.py``), drawn from ``--seed``,
from sixteen clients at once, to the gateway, to the metrics port and to Triton's own HTTP port, whose answers are Triton's and
only counted. Meanwhile a client asks a good model all the time. At the end: are all leases given back, do good requests answer
right, has the process as many descriptors as before?
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from rich.console import Console
from rich.table import Table
from served import Served, serve

from tests.malformed import KINDS, Malformed, Models, Port, malformed
from tests.models import ensure_models
from tests.raw_http import Outcome, send

MODELS = Models(text="gpt2", embedder="minilm", tensors="onnx-dynamic")
# Requests that are never whole hold their client for this long.
SETTINGS = {
    "gateway": {
        "header_timeout_seconds": 2,
        "stall_timeout_seconds": 2,
        "idle_timeout_seconds": 5,
        "request_timeout_seconds": 45,
    },
    "orchestration": {"policies": {"evict_after_idle_seconds": 3600}},
}
ANSWERED_WITHIN_S = 60.0
MOST_LOG_BYTES = 5_000_000


@dataclass(slots=True)
class Seen:
    """What came back, by kind; and what should not have."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    of_triton: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    good_ms: list[float] = field(default_factory=list)

    def note(self, request: Malformed, outcome: Outcome) -> None:
        self.longest_s = max(self.longest_s, outcome.took_s)
        if request.port is Port.TRITON:
            self.of_triton[outcome.word] += 1
            return
        self.outcomes[request.kind][outcome.word] += 1
        if outcome.late or outcome.status >= 500:
            shown = [piece[:300] for piece in request.pieces]
            self.wrong.append(f"{request.kind}: {outcome.word} {outcome.type} {outcome.error}\n    {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kind", choices=tuple(KINDS), action="append", default=[])
    arguments = parser.parse_args()
    requests = islice(malformed(arguments.seed, MODELS, kinds=tuple(arguments.kind)), arguments.requests)
    with serve(SETTINGS, prepare=put_models) as served:
        served.wait("the models are loaded", lambda: served.are_loaded(GOOD), within_s=300)
        served.ask(
            "POST", "/v1/chat/completions", {"model": "gpt2", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
        )
        right = {name: served.ask("POST", f"/predict/{name}", body).body for name, body in GOOD.items()}
        process = psutil.Process(served.pid)
        before, rss = process.num_fds(), process.memory_info().rss
        began = time.perf_counter()
        seen = asyncio.run(fuzz(served, requests, clients=arguments.clients))
        took_s = time.perf_counter() - began
        faults = settle(served, process, before, right)
        log_bytes = served.log.stat().st_size
        grown = process.memory_info().rss - rss
        if seen.wrong or faults:
            print(served.tail(60))
    Console(width=200).print(table(seen))
    print(f"seed {arguments.seed}: {arguments.requests} requests in {took_s:.0f} s; the longest took {seen.longest_s:.1f} s")
    print(f"Triton's port: {dict(seen.of_triton)}")
    print(
        f"a good model meanwhile: {len(seen.good_ms)} answers, median {statistics.median(seen.good_ms):.0f} ms, "
        f"longest {max(seen.good_ms):.0f} ms; log {log_bytes / 1e6:.2f} MB; the process grew by {grown / 2**20:.0f} MiB"
    )
    if log_bytes > MOST_LOG_BYTES:
        faults.append(f"the log has {log_bytes} bytes")
    for line in [*seen.wrong[:40], *faults]:
        print("WRONG", line)
    sys.exit(bool(seen.wrong or faults))


GOOD: dict[str, object] = {
    "gpt2": {"inputs": "The old lighthouse", "parameters": {"max_new_tokens": 3}},
    "minilm": {"inputs": "The old lighthouse"},
    "onnx-dynamic": {"inputs": {"x": [[1, 2, 3, 4]]}},
}


async def fuzz(served: Served, requests: Iterator[Malformed], *, clients: int) -> Seen:
    seen = Seen()
    ports = {
        Port.GATEWAY: served.port,
        Port.METRICS: served.metrics_port,
        Port.TRITON: int(served.http_url.rpartition(":")[2]),
    }

    async def client() -> None:
        for request in requests:
            seen.note(request, await send(request, ports, within_s=ANSWERED_WITHIN_S))

    good = asyncio.create_task(_ask_a_good_one(served, seen))
    await asyncio.gather(*(client() for _ in range(clients)))
    good.cancel()
    return seen


async def _ask_a_good_one(served: Served, seen: Seen) -> None:
    while True:
        began = time.perf_counter()
        answer = await asyncio.to_thread(served.ask, "POST", "/predict/minilm", GOOD["minilm"])
        seen.good_ms.append((time.perf_counter() - began) * 1e3)
        if answer.status != 200:
            seen.wrong.append(f"a good request was answered by {answer.status}: {answer.body}")
        await asyncio.sleep(0.1)


def settle(served: Served, process: psutil.Process, before: int, right: dict[str, object]) -> list[str]:
    """What is not as it was, once nothing is under way any more."""
    faults = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        models = served.ask("GET", "/models").body["models"]
        held = {model["name"]: model["leases"] for model in models if model["leases"] or model["waiting"]}
        # A connection of this very question, and one or two to Triton that were opened meanwhile.
        more = process.num_fds() - before
        if not held and more <= 3:
            break
        time.sleep(0.2)
    else:
        faults.append(f"leases held: {held}; descriptors more than before: {more}")
    for name, body in GOOD.items():
        answer = served.ask("POST", f"/predict/{name}", body)
        if answer.status != 200 or answer.body != right[name]:
            faults.append(f"{name} answers {answer.status} {str(answer.body)[:200]}")
    return faults


def table(seen: Seen) -> Table:
    words = sorted({word for counts in seen.outcomes.values() for word in counts})
    made = Table("kind", *words)
    for kind, counts in sorted(seen.outcomes.items()):
        made.add_row(kind, *(str(counts[word] or "") for word in words))
    return made


def put_models(incoming: Path) -> None:
    models = ensure_models(names=tuple(GOOD))
    for name in GOOD:
        if (models / f"{name}.onnx").is_file():
            shutil.copy(models / f"{name}.onnx", incoming)
        else:
            shutil.copytree(models / name, incoming / name)
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    (incoming / MODELS.text / "chat_template.jinja").write_text(template)


if __name__ == "__main__":
    main()
