"""What tests of Ray share: the source of an application as a user would write it, a question to a table, dropping, loading."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.server.systems import HEAVY, System

GREETER = """
import asyncio

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse


@serve.deployment(max_ongoing_requests=32, graceful_shutdown_timeout_s=1)
class Greeter:
    def __init__(self):
        self.go, self.left, self.here, self.all_here = asyncio.Event(), 0, 0, asyncio.Event()

    async def __call__(self, request: Request):
        match request.url.path.rsplit("/", 1)[-1]:
            case "boom":
                raise RuntimeError("boom")
            case "words":
                self.go.clear()
                return StreamingResponse(self.words(), media_type="text/plain")
            case "go":
                self.go.set()
                return PlainTextResponse("gone")
            case "here":
                return {"here": self.here}
            case "left":
                return {"left": self.left}
            case "meet":
                self.here += 1
                if self.here == int(request.url.query):
                    self.all_here.set()
                await self.all_here.wait()
                return PlainTextResponse(str(self.here))
            case "path":
                told = {
                    "method": request.method,
                    "path": request.url.path.removeprefix(request.scope.get("root_path", "")),
                    "query": request.url.query,
                    "type": request.headers["content-type"],
                    "body": list(await request.body()),
                }
                return JSONResponse(told, status_code=418)
        return {"hello": (await request.json())["name"]}

    async def words(self):
        try:
            yield "one "
            await self.go.wait()
            yield "two "
        except asyncio.CancelledError:
            self.left += 1
            raise


app = Greeter.bind()
"""

PATIENT = {"X-Request-Timeout": "900"}
ROW = {"inputs": [[5.1, 3.5, 1.4, 0.2]]}
SETOSA = (200, ["setosa"])
SETTINGS: Any = {
    "devices": {"host_memory": "12GiB"},
    "orchestration": {"load_on_discovery": False, "policies": HEAVY | {"evict_after_idle_seconds": 3600}},
    "models": {"greeter": {"allow_custom_code": True}, "broken": {"allow_custom_code": True}},
}


async def drop(modelium: System, iris: Path, *names: str) -> None:
    for name in names:
        beside = modelium.incoming.parent / name
        if name == "greeter":
            beside.mkdir()
            (beside / "serve_app.py").write_text(GREETER, encoding="utf-8")
        else:
            shutil.copytree(iris, beside)
        beside.rename(modelium.incoming / name)
        await modelium.becomes(name, "UNLOADED")


async def load(modelium: System, name: str) -> Any:
    status, seen = await modelium.post(f"/models/{name}/load", headers=PATIENT)
    assert status == 200, seen
    return seen
