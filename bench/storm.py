"""Minutes of clients of three protocols at once, over many more models than fit: how many were answered, refused, lost.

Thirty models of the same size, with weights of their own, share a budget that holds about five. Two hundred clients ask them,
a few models often and most of them seldom: a third over KServe v2 (HTTP), a third over gRPC, a third over OpenAI's API. They
have four API keys; one of them has most of the clients.

*Answered* is an embedding of the right width. *Refused* is an error in Modelium's own words: a full queue, a deadline.
*Lost* is anything else, and has to be 0. At the end nobody may be under way or wait, and at no moment may a model have had two
processes. Then, with ``--hang-ups``, so many clients of each protocol hang up at random moments: afterwards again nobody is
under way.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc
import psutil
from many_alike import different
from rich.console import Console
from rich.table import Table
from served import Served, serve
from tritonclient.grpc import service_pb2

_WIDTH = 384
_TEXT = "is anybody there?"
_KEYS = {"crowd": 140, "one": 30, "two": 20, "three": 10}  # → of 200 clients
_GRPC_REFUSALS = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED})
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_LEFT_WITHIN_S = 60.0


@dataclass(slots=True)
class Tally:
    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)

    @property
    def row(self) -> tuple[str, ...]:
        """Answered, refused, lost, and the seconds to the answer: median, 99 %, longest."""
        waits = sorted(self.waits_s) or [0.0]
        spread = (statistics.median(waits), waits[int(len(waits) * 0.99)], waits[-1])
        counts = (self.answered, self.refused.total(), self.lost.total())
        return (*map(str, counts), *(f"{each:.2f}" for each in spread))


class Lost(Exception):
    """No answer, and no refusal either."""


class Refused(Exception):
    """In Modelium's own words."""


Ask = Callable[[str], Awaitable[None]]  # of a model; raises ``Lost`` and ``Refused``


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--budget", default="1000MiB", help="devices.host_memory")
    parser.add_argument("--deadline", type=float, default=120, help="seconds that a client waits")
    parser.add_argument("--hang-ups", type=int, default=333, help="clients of each protocol that hang up, afterwards")
    options = parser.parse_args()
    names = [f"minilm-{number}" for number in range(options.models)]

    def prepare(incoming: Path) -> None:
        different(incoming, names)
        keys = incoming.parent / "keys"
        keys.write_text("".join(f"{name}: {key_of(name)}\n" for name in _KEYS))
        keys.chmod(0o600)

    settings = {
        "devices": {"host_memory": options.budget},
        "gateway": {"api_keys_file": "keys", "max_waiting": options.clients, "max_waiting_per_key": options.clients // 2},
        "orchestration": {"load_on_discovery": False, "policies": {"evict_after_idle_seconds": 5}},
    }
    with serve(settings, prepare=prepare) as served:
        lost = asyncio.run(run(served, names, options))
    if lost:
        raise SystemExit("requests were lost, or something was left of them")


def key_of(name: str) -> str:
    return f"{name}-0123456789abcdef"


async def run(served: Served, names: list[str], options: argparse.Namespace) -> bool:
    await known(served, names)
    timeout = aiohttp.ClientTimeout(total=options.deadline + 60)
    twice = asyncio.create_task(loaded_twice(served))
    by_protocol: dict[str, Tally] = defaultdict(Tally)
    by_key: dict[str, Tally] = defaultdict(Tally)
    by_model: dict[str, Tally] = defaultdict(Tally)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel,
    ):
        protocols: dict[str, Callable[[str], Ask]] = {
            "KServe, HTTP": lambda key: kserve(session, served, key, options.deadline),
            "KServe, gRPC": lambda key: kserve_grpc(channel, key, options.deadline),
            "OpenAI": lambda key: openai(session, served, key, options.deadline),
        }
        end = time.monotonic() + options.minutes * 60
        keys = [name for name, share in _KEYS.items() for _ in range(share)]
        async with asyncio.TaskGroup() as group:
            for number in range(options.clients):
                protocol, key = list(protocols)[number % len(protocols)], keys[number * len(keys) // options.clients]
                tallies = (by_protocol[protocol], by_key[key])
                group.create_task(client(protocols[protocol](key), names, number, end, tallies, by_model))
        show(by_protocol, by_key, by_model)
        left = await nobody_left(served)
        for protocol, made in protocols.items():
            gone = await hang_up(made("crowd"), names, options.hang_ups)
            more = await nobody_left(served)
            said = f"{options.hang_ups} clients hung up, {gone} of them before their answer"
            print(f"{protocol}: {said}; left of them: {more or 'nobody'}")
            left = left or more
    twice.cancel()
    with suppress(asyncio.CancelledError):
        await twice
    return bool(left or any(tally.lost for tally in by_protocol.values()))


async def client(
    ask: Ask, names: list[str], number: int, end: float, tallies: tuple[Tally, ...], by_model: dict[str, Tally]
) -> None:
    """Asks, waits for the answer, thinks for a moment."""
    chance = random.Random(number)
    weights = [1 / (place + 1) for place in range(len(names))]
    while time.monotonic() < end:
        [name] = chance.choices(names, weights)
        began = time.monotonic()
        told = (*tallies, by_model[name])
        try:
            await ask(name)
        except Refused as error:
            for tally in told:
                tally.refused[str(error)] += 1
            await asyncio.sleep(1.0)
        except Exception as error:
            for tally in told:
                tally.lost[f"{type(error).__name__}: {error}"[:150]] += 1
        else:
            for tally in told:
                tally.answered += 1
                tally.waits_s.append(time.monotonic() - began)
        await asyncio.sleep(chance.expovariate(2))


def check(values: float) -> None:
    if values != _WIDTH:
        raise Lost(f"{values} numbers instead of {_WIDTH}")


def openai(session: aiohttp.ClientSession, served: Served, key: str, deadline_s: float) -> Ask:
    async def ask(name: str) -> None:
        body = {"model": name, "input": _TEXT}
        answer = await post(session, f"http://127.0.0.1:{served.port}/v1/embeddings", body, key, deadline_s)
        check(len(answer["data"][0]["embedding"]))

    return ask


def kserve(session: aiohttp.ClientSession, served: Served, key: str, deadline_s: float) -> Ask:
    async def ask(name: str) -> None:
        body = {"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [_TEXT]}]}
        answer = await post(session, f"http://127.0.0.1:{served.port}/v2/models/{name}/infer", body, key, deadline_s)
        check(answer["outputs"][0]["shape"][-1])

    return ask


async def post(
    session: aiohttp.ClientSession, url: str, body: object, key: str, deadline_s: float
) -> dict[str, list[dict[str, list[float]]]]:
    headers = {"Authorization": f"Bearer {key_of(key)}", "X-Request-Timeout": f"{deadline_s:g}"}
    async with session.post(url, json=body, headers=headers) as response:
        answer = await response.json()
    if response.status == 200:
        return dict(answer)
    error = answer.get("error")
    kind = (error.get("code") or error.get("type")) if isinstance(error, dict) else answer.get("type")
    if response.status in (429, 503, 504):
        raise Refused(f"{response.status} {kind}")
    raise Lost(f"{response.status} {error}")


def kserve_grpc(channel: grpc.aio.Channel, key: str, deadline_s: float) -> Ask:
    infer = channel.unary_unary(
        _INFER,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )

    async def ask(name: str) -> None:
        request = service_pb2.ModelInferRequest(model_name=name)
        text = request.inputs.add(name="TEXT", datatype="BYTES", shape=[1, 1])
        text.contents.bytes_contents.append(_TEXT.encode())
        try:
            answer = await infer(request, timeout=deadline_s, metadata=(("authorization", f"Bearer {key_of(key)}"),))
        except grpc.aio.AioRpcError as error:
            if error.code() in _GRPC_REFUSALS:
                raise Refused(f"{error.code().name}: {(error.details() or '')[:60]}") from None
            raise Lost(f"{error.code().name}: {error.details()}") from None
        check(answer.outputs[0].shape[-1])

    return ask


async def hang_up(ask: Ask, names: list[str], number: int) -> int:
    """How many had no answer yet."""
    chance = random.Random(number)
    tasks = []
    for _ in range(number):
        tasks.append(asyncio.ensure_future(ask(chance.choice(names))))
        await asyncio.sleep(chance.expovariate(100))
        if chance.random() < 0.5:
            chance.choice(tasks).cancel()
    for task in tasks:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    return sum(isinstance(each, asyncio.CancelledError) for each in done)


# -- what Modelium says of it ----------------------------------------------------------------------------------------


async def known(served: Served, names: list[str]) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key_of('one')}"}) as session:
        while True:
            async with session.get(f"http://127.0.0.1:{served.port}/models") as response:
                models = (await response.json())["models"]
            if {each["name"] for each in models if each["state"] == "UNLOADED"} >= set(names):
                return
            await asyncio.sleep(0.5)


async def nobody_left(served: Served) -> dict[str, float]:
    """Who is under way or waits, when everybody has gone; waits a while for the last ones to go."""
    end = time.monotonic() + _LEFT_WITHIN_S
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{served.metrics_port}/metrics") as response:
                text = await response.text()
            found = re.findall(
                r"^(modelium_(?:requests_in_flight|requests_waiting|key_requests_waiting){.*}) (\S+)$", text, re.MULTILINE
            )
            left = {series: float(value) for series, value in found if float(value)}
            if not left or time.monotonic() > end:
                return left
            await asyncio.sleep(0.2)


async def loaded_twice(served: Served) -> None:
    """Say so where a model has two stubs at once, and how many models were loaded at most."""
    most = 0
    try:
        while True:
            stubs = await asyncio.to_thread(stubs_of, served)
            most = max(most, len(stubs))
            for name, number in stubs.items():
                if number > 1:
                    print(f"{name} was loaded {number} times at once")
            await asyncio.sleep(0.5)
    finally:
        print(f"{most} models had a process at once, at most")


def stubs_of(served: Served) -> Counter[str]:
    found: Counter[str] = Counter()
    for process in served.processes():
        with suppress(psutil.Error):
            words = process.cmdline()
            if words and words[0].endswith("triton_python_backend_stub"):
                found[next(word for word in words if word.startswith("minilm-"))] += 1
    return found


def show(*kinds: dict[str, Tally]) -> None:
    table = Table(title="two hundred clients: seconds to their answers")
    for column in ("of", "answered", "refused", "lost", "median", "99 %", "longest"):
        table.add_column(column, justify="right")
    for tallies in kinds:
        for name in sorted(tallies, key=lambda name: (len(name), name)):
            table.add_row(name, *tallies[name].row)
        table.add_section()
    Console(width=120).print(table)
    for name, tally in kinds[0].items():
        for words, number in (tally.refused + tally.lost).most_common(10):
            print(f"  {name}: {number} × {words}")


if __name__ == "__main__":
    main()
