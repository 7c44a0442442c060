"""Applications of Ray Serve for the tests: their sources, as a user would write them."""

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
