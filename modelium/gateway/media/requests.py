"""The fields of OpenAI's requests for sound and pictures, with their kinds and bounds."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelium.gateway.generation.seeds import LAST_SEED
from modelium.gateway.openai.fields import Many
from modelium.gateway.openai.requests import Count, Request, Sentence

_Seed = Annotated[int, Field(ge=0, le=LAST_SEED)]
_Word = Annotated[str, Field(max_length=100)]


class SpeechRequest(Request):
    """What transcriptions and translations have in common. The recording is the form's ``file``."""

    # How a server cuts a recording up, and what its clients ask of other models: it is read whole here.
    harmless: ClassVar[frozenset[str]] = Request.harmless | {"chunking_strategy", "stream_include_usage"}
    language: _Word | None = None
    prompt: Sentence | None = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: _Seed | None = None
    max_completion_tokens: Count | None = None
    stream: bool | None = None

    @property
    def wants_times(self) -> bool:
        """Are the seconds of each part in the answer?"""
        return self.response_format in ("srt", "vtt", "verbose_json")


class TranscriptionRequest(SpeechRequest):
    """The form of ``/v1/audio/transcriptions``."""

    timestamp_granularities: Many[Literal["word", "segment"]] | None = None


class TranslationRequest(SpeechRequest):
    """The form of ``/v1/audio/translations``. ``language``: what is spoken, as in vLLM."""


class ImageRequest(Request):
    """The body of ``/v1/images/generations``. The last five are diffusers' own, which clients send in ``extra_body``."""

    prompt: Annotated[str, Field(min_length=1, max_length=10_000)]
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    size: _Word | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    stream: bool | None = None
    negative_prompt: Sentence | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=1e6)] | None = None
    seed: _Seed | None = None
