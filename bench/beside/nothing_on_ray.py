"""Ray Serve with a deployment that answers the same few bytes: what its proxy and its way to a replica cost by themselves."""

from __future__ import annotations

import sys
import time

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

_ANSWER = b'{"model_name":"adder","outputs":[{"name":"y","datatype":"FP32","shape":[4,1],"data":[2.0,3.0,4.0,5.0]}]}'


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.1})
class Nothing:
    """Reads a body and says what it always says."""

    async def __call__(self, request: Request) -> Response:
        """Any path."""
        await request.body()
        return Response(_ANSWER, media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Nothing.bind(), route_prefix="/")
    print("ready", flush=True)
    while True:
        time.sleep(3600)
