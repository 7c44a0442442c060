"""Chat templates rendered in processes beside the controller: a template and its variables enter, its text leaves.

However a template loops or grows, it is ended after some seconds, and meanwhile the controller's own loop keeps turning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from modelium.gateway.openai.child_process import Children
from modelium.gateway.openai.errors import BadRequest
from modelium.values import JsonValue

RENDER_SECONDS = 5.0
_PROGRAM = Path(__file__).with_name("template_process.py")


@dataclass(slots=True)
class Renderer:
    """``close`` ends its processes. A template is rendered once at a time."""

    seconds: float = RENDER_SECONDS
    _children: Children = field(default_factory=lambda: Children(_PROGRAM))

    async def render(self, template: str, variables: Mapping[str, JsonValue]) -> str:
        """Raises ``BadRequest`` with the template's own words, or when it is no template, or takes too much."""
        try:
            # The process ends itself a little later than it is ended: that is for when the controller is gone.
            request = orjson.dumps({"template": template, "variables": variables, "seconds": self.seconds + 1})
        except TypeError as error:
            raise BadRequest(f"messages: the chat template cannot be given them: {error}", param="messages") from None
        answer = await self._ask(template, request)
        match answer:
            case {"text": str(text)}:
                return text
            case {"error": "broken", "words": words}:
                raise BadRequest(f"this model's chat template is broken: {words}")
            case {"error": "refuses", "words": words}:
                raise BadRequest(f"messages: this model's chat template refuses them: {words}", param="messages")
            case {"error": "stopped", "words": words}:
                raise _stopped(words)
            case _:
                words = answer["words"]
                raise BadRequest(f"messages: this model's chat template cannot render them: {words}", param="messages")

    async def close(self) -> None:
        """End its processes."""
        await self._children.close()

    async def _ask(self, template: str, request: bytes) -> dict[str, str]:
        async with self._children.one(template) as child:
            try:
                async with asyncio.timeout(self.seconds):
                    await child.send(request)
                    answer: dict[str, str] = orjson.loads(await child.receive())
            except TimeoutError:
                raise _stopped("it did not end in time") from None
            except (EOFError, ConnectionError, ValueError):
                raise _stopped("its process ended, most likely for lack of memory") from None
            child.keep = "spent" not in answer
        return answer


def _stopped(words: str) -> BadRequest:
    return BadRequest(f"messages: this model's chat template was stopped: {words}", param="messages")
