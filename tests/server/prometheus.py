"""A real Prometheus for one test: our own configuration and rules enter, with other targets and a shorter pace; what leaves is
a process that answers on a free port, spoken to over its HTTP API.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from modelium.guarded.addresses import claim_addresses
from tests.monitoring import PROMETHEUS, tool
from tests.patience import PATIENCE_S

PACE = "1s"  # of scrapes and of the rules; the real ones take 15 s

Series = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A running Prometheus. ``since``: when it began to scrape, in Unix time."""

    url: str
    http: aiohttp.ClientSession
    since: float

    async def get(self, path: str, **parameters: str) -> Any:
        """``data`` of an answer of the API; fails with the API's own words."""
        async with self.http.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{parameters}: {answer['error']}"
        return answer["data"]

    async def now(self, expr: str) -> Series:
        """What an expression says now."""
        series: Series = (await self.get("query", query=expr))["result"]
        return series

    async def ever(self, expr: str) -> Series:
        """What an expression has said since the beginning, this moment included; numbers only."""
        now = time.time()
        began = now - math.ceil(now - self.since)  # whole seconds before now: the last step is now itself
        data = await self.get("query_range", query=expr, start=str(began), end=str(now), step=PACE)
        numbers = ({**one, "values": [at for at in one["values"] if at[1] != "NaN"]} for one in data["result"])
        return [one for one in numbers if one["values"]]

    async def until(self, expr: str, holds: Callable[[Series], bool] = bool, *, patience_s: float = PATIENCE_S) -> Series:
        """Wait until ``holds`` of what an expression says."""
        deadline = time.monotonic() + patience_s
        while not holds(seen := await self.now(expr)):
            assert time.monotonic() < deadline, f"never came true: {expr}; last seen: {seen}"
            await asyncio.sleep(0.1)
        return seen


@contextlib.asynccontextmanager
async def prometheus(directory: Path, targets: Mapping[str, str]) -> AsyncIterator[Prometheus]:
    """Prometheus with its data below ``directory``; ``targets``: the address of each job but its own."""
    with _running(directory, targets) as process:
        async with aiohttp.ClientSession() as http:
            deadline = time.monotonic() + PATIENCE_S
            while not await _is_ready(http, process.url):
                assert process.runs() and time.monotonic() < deadline, f"Prometheus does not answer:\n{process.words()}"
                await asyncio.sleep(0.05)
            yield Prometheus(url=process.url, http=http, since=time.time())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    url: str
    child: subprocess.Popen[bytes]
    log: Path

    def runs(self) -> bool:
        return self.child.poll() is None

    def words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def _running(directory: Path, targets: Mapping[str, str]) -> Iterator[_Process]:
    directory.mkdir()
    (address,) = map(str, claim_addresses({"web.listen-address": "127.0.0.1:0"}).values())
    configuration = directory / "prometheus.yml"
    configuration.write_text(yaml.safe_dump(_configured({**targets, "prometheus": address})))
    flags = {"config.file": configuration, "storage.tsdb.path": directory / "data", "web.listen-address": address}
    command = [tool("prometheus"), *(f"--{flag}={value}" for flag, value in flags.items())]
    log = directory / "log"
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield _Process(url=f"http://{address}", child=child, log=log)
    finally:
        child.kill()  # its data is of no more use
        child.wait(timeout=240)


def _configured(targets: Mapping[str, str]) -> dict[str, Any]:
    """prometheus.yml with these targets, the real rules, and everything once a second."""
    made: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    made["global"] = dict.fromkeys(made["global"], PACE)
    made["rule_files"] = [str(PROMETHEUS / pattern) for pattern in made["rule_files"]]
    for job in made["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return made


async def _is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/-/ready") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
