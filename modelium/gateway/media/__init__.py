"""OpenAI's routes for sound and pictures: forms and JSON enter, transcripts and pictures leave.

Models are asked in the words that ``/predict`` has for them (``codecs``).
"""

from __future__ import annotations

from aiohttp import web

from modelium.gateway.asking import Asking
from modelium.gateway.media.audio import Audio
from modelium.gateway.media.images import Images
from modelium.gateway.openai.directory import Directory

__all__ = ["Media"]

# Below /v1, below a model's own address, and where Azure has them.
_ROOTS = ("/v1",)
_ROOTS_OF_MODELS = ("/predict/{model:.+}/v1", "/openai/deployments/{model:.+}")


class Media:
    """The handlers."""

    def __init__(self, directory: Directory, asking: Asking, *, timeout_s: float) -> None:
        self._audio = Audio(directory, asking, timeout_s=timeout_s)
        self._images = Images(directory, asking, timeout_s=timeout_s)

    def routes(self) -> list[web.RouteDef]:
        """Those whose body names the model."""
        return self._below(_ROOTS)

    def routes_of_models(self) -> list[web.RouteDef]:
        """Those whose path does: they come before ``/predict/{model}``."""
        return self._below(_ROOTS_OF_MODELS)

    def _below(self, roots: tuple[str, ...]) -> list[web.RouteDef]:
        return [
            web.post(f"{root}{path}", handler)
            for root in roots
            for path, handler in (
                ("/audio/transcriptions", self._audio.transcribe),
                ("/audio/translations", self._audio.translate),
                ("/images/generations", self._images.generate),
            )
        ]
