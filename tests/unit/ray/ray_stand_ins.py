"""Ray without Ray: a dashboard whose answers have the shape of Ray 2.60's own, and programs that look like ``ray start``."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

VERSION = "2.60.0"
GIB = 2**30
Json = dict[str, Any]


def worker(pid: int = 1, **used: float) -> Json:
    """What a worker was given: ``CPU=1, GPU=0.5``. Names are as the dashboard writes them, which is in camel case."""
    slots = {name: {"resourceSlots": [{"slot": "0", "allocation": amount}]} for name, amount in used.items()}
    return {"pid": pid, "workerType": "WORKER", "language": "PYTHON", "usedResources": slots}


def node(
    name: str = "a",
    ip: str = "127.0.0.1",
    *,
    cpus: float = 8.0,
    gpus: Sequence[tuple[int, int]] = (),
    memory: float = 32.0 * GIB,
    used: int = 2 * GIB,
    workers: Sequence[Json] = (),
    state: str = "ALIVE",
) -> Json:
    """One node of ``/nodes?view=summary``; ``gpus``: total and used MiB of each."""
    resources = {"CPU": cpus, "memory": memory, "objectStoreMemory": 134217728.0, f"node:{ip}": 1.0}
    return {
        "now": 1795784729.5,
        "hostname": "somewhere",
        "ip": ip,
        "cpu": 12.1,
        "cpus": [8, 8],
        "mem": [64 * GIB, 64 * GIB - used, 3.1, used],
        "gpus": [
            {"index": index, "name": "NVIDIA L4", "uuid": f"GPU-{index}", "memoryUsed": taken, "memoryTotal": total}
            for index, (total, taken) in enumerate(gpus)
        ],
        "tpus": [],
        "raylet": {
            "storeStats": {"objectStoreBytesAvail": "134217728"},
            "coreWorkersStats": list(workers),
            **_known_to_the_head(name, ip, resources | ({"GPU": float(len(gpus))} if gpus else {}), state),
        },
    }


def silent_node(name: str = "a", ip: str = "127.0.0.1") -> Json:
    """One that has joined, and whose agent has not said anything yet: the first seconds of every node (measured)."""
    return {"tpus": [], "raylet": _known_to_the_head(name, ip, {"CPU": 8.0, "memory": 32.0 * GIB}, "ALIVE")}


def _known_to_the_head(name: str, ip: str, resources: Json, state: str) -> Json:
    return {
        "nodeId": name,
        "nodeManagerAddress": ip,
        "nodeManagerHostname": "somewhere",
        "isHeadNode": False,
        "resourcesTotal": resources,
        "state": state,
        "stateMessage": None,
    }


def actor(name: str = "", *, on: str = "a", group: str | None = None, **required: float) -> Json:
    """One actor of the state API."""
    return {
        "actor_id": "0634bc4f6dbf2d77bc76e3df01000000",
        "class_name": "Actor",
        "state": "ALIVE",
        "name": name,
        "node_id": on,
        "required_resources": required,
        "placement_group_id": group,
    }


def group(name: str = "", **on: Json) -> Json:
    """A placement group of the state API: one bundle a node, by what it reserves."""
    bundles = [
        {"bundle_id": {"bundle_index": index}, "unit_resources": reserved, "node_id": where}
        for index, (where, reserved) in enumerate(on.items())
    ]
    return {"placement_group_id": "af02961db8691f7e0fe6630efcb801000000", "name": name, "state": "CREATED", "bundles": bundles}


def _listed(rows: Sequence[Json]) -> Json:
    result = {"total": len(rows), "num_after_truncation": len(rows), "result": list(rows), "warnings": None}
    return {"result": True, "msg": "", "data": {"result": result}}


@dataclass(slots=True)
class StandInDashboard:
    """Change it while it runs. ``instead``: path → status and text that it answers with whatever else holds."""

    url: str = ""
    version: str = VERSION
    nodes: list[Json] = field(default_factory=lambda: [node()])
    actors: list[Json] = field(default_factory=list)
    groups: list[Json] = field(default_factory=list)
    token: str = ""
    reaches_head: bool = True
    instead: dict[str, tuple[int, str]] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)  # that it was asked with

    async def answer(self, request: web.Request) -> web.Response:
        said = request.headers.get("Authorization", "")
        self.tokens.append(said)
        if self.token and said != f"Bearer {self.token}":
            return web.Response(status=401, text="Unauthorized: Missing authentication token")
        if request.path in self.instead:
            status, text = self.instead[request.path]
            return web.Response(status=status, text=text)
        match (request.method, request.path_qs):
            case ("GET", "/api/version"):
                body: Json = {
                    "version": "4",
                    "ray_version": self.version,
                    "ray_commit": "b7f4259e",
                    "session_name": "session_x",
                }
                return web.Response(text=json.dumps(body), content_type="application/json")
            case ("GET", "/nodes?view=summary"):
                data = {"summary": self.nodes, "nodeLogicalResources": {}}
                return web.json_response({"result": True, "msg": "Node summary fetched.", "data": data})
            case ("GET", path) if path.startswith("/api/v0/actors?"):
                return web.json_response(_listed(self.actors))
            case ("GET", path) if path.startswith("/api/v0/placement_groups?"):
                return web.json_response(_listed(self.groups))
            case ("GET", "/api/gcs_healthz"):
                if self.reaches_head:
                    return web.Response(text="success", content_type="application/text")
                return web.Response(status=503, reason="Health check failed")
            case ("POST", "/join"):  # not Ray's: a program that looks like `ray start` says so
                self.nodes = [*self.nodes, node("me", await request.text())]
                return web.Response()
        return web.Response(status=404)


@asynccontextmanager
async def dashboard(**changes: Any) -> AsyncIterator[StandInDashboard]:
    """A dashboard on a port of its own."""
    stand_in = StandInDashboard(**changes)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stand_in.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stand_in.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield stand_in
    finally:
        await runner.cleanup()


# A head: answers as its dashboard and wants its token; ``/end`` ends it.
HEAD = f"""
import http.server, json, os, sys
options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if "=" in word)
print("a word of the head's", flush=True)
class Dashboard(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers["Authorization"] != "Bearer " + os.environ["RAY_AUTH_TOKEN"]:
            self.send_response(401); self.end_headers(); return
        if self.path == "/end":
            print("the head has had enough", flush=True)
            print("-----", flush=True)
            os._exit(3)
        self.send_response(200); self.end_headers()
        if self.path == "/nodes?view=summary":
            node = json.loads({json.dumps(json.dumps(node("head", "127.0.0.2")))})
            self.wfile.write(json.dumps({{"data": {{"summary": [node]}}}}).encode())
        elif self.path.startswith("/api/v0/"):
            self.wfile.write({json.dumps(json.dumps(_listed([])))}.encode())
    def log_message(self, *words): pass
http.server.HTTPServer((options["dashboard-host"], int(options["dashboard-port"])), Dashboard).serve_forever()
"""
ENDS_AT_ONCE = "print('Traceback'); print('ValueError: no room in /dev/shm'); print('-----'); raise SystemExit(1)"


def joins(dashboard_url: str) -> str:
    """A node that joins and stays."""
    return (
        f"import signal, urllib.request; request = urllib.request.Request('{dashboard_url}/join', data=b'127.0.0.1')\n"
        "urllib.request.urlopen(request).close(); signal.pause()"
    )


def runtime(directory: Path, program: str) -> Path:
    """A model runtime whose ``ray`` is ``program``."""
    bin_directory = directory / "bin"
    bin_directory.mkdir(parents=True)
    probe = {"version": [3, 11], "site_packages": str(directory), "library": "", "places": [], "packages": {"ray": VERSION}}
    python = bin_directory / "python3"
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -I ]; then echo \'{json.dumps(probe)}\'; else exec {sys.executable} -S "$@"; fi\n'
    )
    python.chmod(0o755)
    (bin_directory / "ray").write_text(program, encoding="utf-8")
    return directory
