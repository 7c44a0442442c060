"""A Triton that somebody else runs: its addresses enter, its comings and goings leave, in the form of the embedded server's.

Modelium shares its model repository and speaks to it over gRPC; starting, stopping and its log are its owner's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from modelium.config import TritonSettings
from modelium.errors import TritonError
from modelium.triton.client import TritonClient
from modelium.values import VllmFacts

log = logging.getLogger(__name__)

_ASK_EVERY_S = 0.5
_GONE_AFTER = 2  # unanswered questions in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """It stopped answering."""

    grpc_url: str

    def __str__(self) -> str:
        return f"the Triton at {self.grpc_url} does not answer any more"


class ExternalServer:
    """Follows one external Triton: ``start()`` returns when it answers, ``wait()`` when it does not any more."""

    pid: int | None = None  # not ours to see: it may run in another container

    def __init__(self, settings: TritonSettings) -> None:
        self.http_url = settings.http_url
        self.grpc_url = settings.grpc_url
        self.metrics_url = settings.metrics_url
        self.headers: Mapping[str, str] = settings.sent_headers()
        self._repository = settings.model_repository
        self.vllm = VllmFacts()  # a Triton elsewhere does not say which one it has
        self.backends = frozenset(settings.backends or ("python", "onnxruntime"))

    async def start(self) -> None:
        """Make the model repository, then wait until it answers, however long that takes; said once in the log.

        A Triton that starts together with Modelium waits for its repository, or does not start without it.
        """
        try:
            await asyncio.to_thread(self._repository.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            raise TritonError(
                f"{self._repository} cannot be made ({error.strerror}): choose another with `triton.model_repository`, "
                "or give this user the right to write there"
            ) from error
        client = TritonClient(http_url=self.http_url, grpc_url=self.grpc_url, headers=self.headers)
        try:
            said = False
            while not await client.live():
                if not said:
                    log.warning("no Triton answers at %s (triton.grpc_url); waiting for it", self.grpc_url)
                    said = True
                await asyncio.sleep(_ASK_EVERY_S)
        finally:
            await client.close()

    async def wait(self) -> Away:
        """Return when it has not answered several times in a row."""
        client = TritonClient(http_url=self.http_url, grpc_url=self.grpc_url, headers=self.headers)
        try:
            unanswered = 0
            while unanswered < _GONE_AFTER:
                await asyncio.sleep(_ASK_EVERY_S)
                unanswered = 0 if await client.live() else unanswered + 1
        finally:
            await client.close()
        return Away(grpc_url=self.grpc_url)

    async def stop(self) -> None:
        """Nothing: its models stay loaded and are found again."""
