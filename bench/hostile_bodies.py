"""What requests that are made to hurt cost everybody else: each attack beside a good model's requests, quiet and meanwhile.

For each attack: p50 and p99 of a good model's requests when nothing else happens, and while two clients do nothing but attack;
the longest pause of the server's loop, as a health route that is asked every 10 ms sees it; and by how much the process grows.
Asked: p99 at most three times the quiet one, no pause over 200 ms. What is right but large is measured too.

The attackers are processes of their own, of the lowest priority: from elsewhere they would take no processor of this machine.
``--nice 0`` has them compete for it as anybody else's work would.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gzip
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from rich.console import Console
from rich.table import Table
from served import Served, serve

from tests.models import ensure_models

MODELS = ("minilm", "gpt2", "zero-shot", "vit", "wav2vec2")
SETTINGS = {
    "orchestration": {"policies": {"evict_after_idle_seconds": 3600}},
    "models": {"zero-shot": {"task": "zero-shot-classification"}},
}
MB = 10**6
EVERY_S = 0.01  # how often the probe asks
GOOD = b'{"inputs": "The old lighthouse"}'

Sent = Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """``run(port, until)`` attacks up to an instant of ``time.monotonic()`` and says what was answered."""

    name: str
    run: Callable[[int, float], Sent]


@dataclass(slots=True)
class Seen:
    good_ms: list[float] = field(default_factory=list)
    probe_ms: list[float] = field(default_factory=list)
    wrong: int = 0
    most_rss: int = 0

    def at(self, percent: int) -> float:
        return statistics.quantiles(self.good_ms, n=100)[percent - 1] if len(self.good_ms) > 1 else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one attack did to the good model."""

    name: str
    answers: Sent
    quiet: Seen
    meanwhile: Seen
    grown_bytes: int

    @property
    def times(self) -> float:
        return self.meanwhile.at(99) / self.quiet.at(99)

    @property
    def pause_ms(self) -> float:
        return max(self.meanwhile.probe_ms)

    @property
    def failed(self) -> int:
        return self.meanwhile.wrong

    def cells(self) -> list[str]:
        return [
            self.name,
            ", ".join(f"{word} {count}" for word, count in sorted(self.answers.items())),
            f"{self.quiet.at(50):.0f}",
            f"{self.quiet.at(99):.0f}",
            f"{self.meanwhile.at(50):.0f}",
            f"{self.meanwhile.at(99):.0f}",
            f"{self.times:.1f}" + (f", {self.failed} failed" if self.failed else ""),
            f"{max(self.quiet.probe_ms):.0f}",
            f"{self.pause_ms:.0f}",
            f"{self.grown_bytes / 2**20:+.0f} MiB",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each of the two parts")
    parser.add_argument("--attackers", type=int, default=2)
    parser.add_argument("--nice", type=int, default=19, help="of the attackers")
    parser.add_argument("--only", default="", help="a word of the attacks' names")
    arguments = parser.parse_args()
    table = Table(
        "attack", "answers", "p50", "p99", "p50 meanwhile", "p99 meanwhile", "times", "quiet pause", "longest pause", "RSS"
    )
    rows: list[Row] = []
    with serve(SETTINGS, prepare=put_models) as served:
        served.wait("the models are loaded", lambda: served.are_loaded(MODELS), within_s=600)
        process = psutil.Process(served.pid)
        for attack in attacks():
            if arguments.only in attack.name:
                print(f"{attack.name} …", flush=True)
                row = measure(
                    served,
                    process,
                    attack,
                    seconds=arguments.seconds,
                    attackers=arguments.attackers,
                    nicer_by=arguments.nice,
                )
                rows.append(row)
                table.add_row(*row.cells())
        log_bytes = served.log.stat().st_size
    Console(width=200).print(table)
    print(f"times in ms; log {log_bytes / MB:.2f} MB")
    print(f"p99 within three times the quiet one: {sum(row.times <= 3 for row in rows)} of {len(rows)} attacks")
    print(f"longest pause: {max(row.pause_ms for row in rows):.0f} ms")
    print(f"good requests that failed: {sum(row.failed for row in rows)} of {sum(len(row.meanwhile.good_ms) for row in rows)}")


def measure(served: Served, process: psutil.Process, attack: Attack, *, seconds: float, attackers: int, nicer_by: int) -> Row:
    asyncio.run(watch(served.port, seconds=1))
    quiet = asyncio.run(watch(served.port, seconds=seconds))
    rss = process.memory_info().rss
    until = time.monotonic() + seconds + 0.5
    results: multiprocessing.SimpleQueue[Sent] = multiprocessing.SimpleQueue()

    def work() -> None:
        os.nice(nicer_by)
        results.put(attack.run(served.port, until))

    processes = [multiprocessing.Process(target=work, daemon=True) for _ in range(attackers)]
    for each in processes:
        each.start()
    time.sleep(0.5)
    meanwhile = asyncio.run(watch(served.port, seconds=seconds, process=process))
    answers: Sent = Counter()
    for each in processes:
        answers += results.get()
        each.join()
    return Row(name=attack.name, answers=answers, quiet=quiet, meanwhile=meanwhile, grown_bytes=meanwhile.most_rss - rss)


async def watch(port: int, *, seconds: float, process: psutil.Process | None = None) -> Seen:
    """A good model's requests one after another, and the probe, for ``seconds``."""
    seen, until = Seen(), time.monotonic() + seconds
    await asyncio.gather(_ask_the_good_one(port, seen, until), _probe(port, seen, until, process))
    return seen


async def _ask_the_good_one(port: int, seen: Seen, until: float) -> None:
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                while time.monotonic() < until:
                    began = time.perf_counter()
                    if await _exchange(reader, writer, request("/predict/minilm", GOOD)) != 200:
                        seen.wrong += 1
                    seen.good_ms.append((time.perf_counter() - began) * 1e3)
                    await asyncio.sleep(EVERY_S)
                continue
            finally:
                writer.close()
        seen.wrong += 1


async def _probe(port: int, seen: Seen, until: float, process: psutil.Process | None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    live = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    while time.monotonic() < until:
        began = time.perf_counter()
        await _exchange(reader, writer, live)
        seen.probe_ms.append((time.perf_counter() - began) * 1e3)
        if process is not None and len(seen.probe_ms) % 5 == 0:
            seen.most_rss = max(seen.most_rss, process.memory_info().rss)
        await asyncio.sleep(EVERY_S)
    writer.close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> int:
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head[9:12])


# -- attacks -------------------------------------------------------------------------------------------------------


def request(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def attacks() -> Iterator[Attack]:
    """Of bodies, then of connections. Bodies are made when they are needed, in the attacker's process."""
    name = b"a" * (60 * MB)
    embedding, completion, chat = "/v1/embeddings", "/v1/completions", "/v1/chat/completions"
    yield _again("a field's name of 60 MB", "/predict/minilm", lambda: b'{"inputs": "a", "' + name + b'": 1}')
    yield _again("a model's name of 60 MB", embedding, lambda: b'{"input": "a", "model": "' + name + b'"}')
    yield _again(
        "a parameter's name of 60 MB", "/predict/minilm", lambda: b'{"inputs": "a", "parameters": {"' + name + b'": 1}}'
    )
    yield _again("a text of 60 MB", "/predict/minilm", lambda: b'{"inputs": "' + name + b'"}')
    yield _again("8 million texts", "/predict/minilm", lambda: b'{"inputs": [' + b'"a",' * (8 * MB) + b'"a"]}')
    yield _again("1.9 million texts", "/predict/minilm", lambda: b'{"inputs": [' + b'"a",' * (19 * MB // 10) + b'"a"]}')
    yield _again(
        "1.9 million texts to /v1", embedding, lambda: b'{"model": "minilm", "input": [' + b'"a",' * (19 * MB // 10) + b'"a"]}'
    )
    yield _again("12 million token ids", completion, lambda: b'{"model": "gpt2", "prompt": [' + b"1," * (12 * MB) + b"1]}")
    yield _again("2 million token ids", completion, lambda: b'{"model": "gpt2", "prompt": [' + b"1," * (2 * MB) + b"1]}")
    yield _again("15 million empty lists", "/predict/minilm", lambda: b'{"inputs": [' + b"[]," * (15 * MB) + b"[]]}")
    yield _again("260,000 objects", "/predict/minilm", lambda: b'{"inputs": [' + b'{"text":"a"},' * 260_000 + b"1]}")
    yield _again(
        "a schema of 60 MB", completion, lambda: b'{"model": "gpt2", "prompt": "a", "guided_json": {"a": "' + name + b'"}}'
    )
    yield _again(
        "template arguments of 60 MB",
        chat,
        lambda: (
            b'{"model": "gpt2", "messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"a": "' + name + b'"}}'
        ),
    )
    yield _again("zeros that unpack to 60 MB", "/predict/minilm", _packed, head="Content-Encoding: gzip\r\n")
    yield _again("a model that nobody knows", "/predict/nobody", lambda: b'{"inputs": [' + b'"a",' * (19 * MB // 10) + b'"a"]}')
    yield _again("right: 40 pictures of 1 MB", "/predict/vit", _pictures)
    yield _again(
        "16,000 texts of 300, no labels", "/predict/zero-shot", lambda: json.dumps({"inputs": ["word " * 60] * 16_000}).encode()
    )
    yield _again("a WAV of 47,999 Hz", "/predict/wav2vec2", lambda: _wav(47_999), content_type="audio/wav")
    yield _again(
        "200,000 beams", "/predict/gpt2", lambda: b'{"inputs": "a", "parameters": {"num_beams": 200000, "max_new_tokens": 9}}'
    )
    yield _again(
        "a template that reaches into objects",
        "/predict/zero-shot",
        lambda: b'{"inputs":"a","parameters":{"candidate_labels":["b"],"hypothesis_template":"{0.__class__.__mro__} {}"}}',
    )
    yield Attack(
        name="500 unfinished headers", run=lambda port, until: _hold(port, until, 250, b"POST /predict/minilm HTTP/1.1\r\n")
    )
    yield Attack(name="1,300 connections", run=lambda port, until: _hold(port, until, 650, b""))
    slow = request("/predict/minilm", b" " * 5000)[:-5000]
    yield Attack(name="400 slow bodies", run=lambda port, until: _hold(port, until, 200, slow, trickle=b" "))


def _again(
    name: str, path: str, body: Callable[[], bytes], *, content_type: str = "application/json", head: str = ""
) -> Attack:
    """The same request again and again, each on a connection of its own: after a refusal nobody reads on."""

    def run(port: int, until: float) -> Sent:
        sent = request(path, body(), content_type).replace(
            b"\r\n\r\n", b"\r\n" + head.encode() + b"Connection: close\r\n\r\n", 1
        )
        seen: Sent = Counter()
        while time.monotonic() < until:
            seen[_once(port, sent)] += 1
        return seen

    return Attack(name=name, run=run)


def _once(port: int, sent: bytes) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        try:
            return connection.recv(2**16)[9:12].decode() or "closed"
        except ConnectionError:
            return "closed"
        except TimeoutError:
            return "late"


def _hold(port: int, until: float, count: int, sent: bytes, *, trickle: bytes = b"") -> Sent:
    """``count`` connections at a time that go no further than ``sent``; one that is closed is opened again."""
    seen: Sent = Counter()
    opened: list[socket.socket] = []
    while time.monotonic() < until:
        for _ in range(min(50, count - len(opened))):
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
                connection.sendall(sent)
                connection.setblocking(False)
                opened.append(connection)
                seen["opened"] += 1
            except OSError:
                seen["refused"] += 1
        for connection in list(opened):
            try:
                if trickle:
                    connection.send(trickle)
                elif connection.recv(1, socket.MSG_PEEK) == b"":
                    raise ConnectionError
            except BlockingIOError:
                pass
            except OSError:
                seen["closed"] += 1
                opened.remove(connection)
                connection.close()
        time.sleep(0.2)
    for connection in opened:
        connection.close()
    return seen


def _packed() -> bytes:
    return gzip.compress(b'{"inputs": "' + b"0" * (60 * MB) + b'"}', compresslevel=1)


def _pictures() -> bytes:
    picture = base64.b64encode(b"\x89PNG" + bytes(MB)).decode()
    return json.dumps({"inputs": [picture] * 40}).encode()


def _wav(rate: int) -> bytes:
    samples = bytes(32)
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


# -- the server ----------------------------------------------------------------------------------------------------


def put_models(incoming: Path) -> None:
    models = ensure_models(names=MODELS)
    for name in MODELS:
        shutil.copytree(models / name, incoming / name)
    (incoming / "gpt2" / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}\n{% endfor %}")


if __name__ == "__main__":
    main()
