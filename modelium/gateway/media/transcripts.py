"""What was heard, in the forms of OpenAI's API: a transcript enters, JSON, plain text or subtitles leave. Pure."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Literal

from typing_extensions import TypedDict

from modelium.gateway.codecs import Heard


class Duration(TypedDict):
    """What a transcription is charged by; seconds are rounded up."""

    type: Literal["duration"]
    seconds: int


class Transcript(TypedDict):
    """``response_format: json``."""

    text: str
    usage: Duration


class Translation(TypedDict):
    """The same of a translation."""

    text: str


class Segment(TypedDict):
    """A part of the text with its seconds. What the runtime does not tell is null, or an empty list."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float | None
    compression_ratio: float
    no_speech_prob: float | None


class VerboseTranscript(TypedDict):
    """``response_format: verbose_json``."""

    task: Literal["transcribe", "translate"]
    language: str
    duration: float
    text: str
    segments: list[Segment]
    usage: Duration


def text_of(heard: Heard) -> str:
    """Whisper writes a space before the first word."""
    return heard.text.strip()


def usage_of(heard: Heard) -> Duration:
    """Seconds of the recording."""
    return {"type": "duration", "seconds": math.ceil(heard.seconds)}


def verbose(heard: Heard, task: Literal["transcribe", "translate"], temperature: float) -> VerboseTranscript:
    """All that is known. A translation is in English."""
    segments: list[Segment] = []
    for number, (start, end, text) in enumerate(_timed(heard)):
        segments.append(
            {
                "id": number,
                "seek": 0,
                "start": start,
                "end": end,
                "text": text,
                "tokens": [],
                "temperature": temperature,
                "avg_logprob": None,
                "compression_ratio": _compression(text),
                "no_speech_prob": None,
            }
        )
    return {
        "task": task,
        "language": "en" if task == "translate" else heard.language,
        "duration": heard.seconds,
        "text": text_of(heard),
        "segments": segments,
        "usage": usage_of(heard),
    }


def srt(heard: Heard) -> str:
    """SubRip: numbered, with commas in the times."""
    cues = (f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n" for number, start, end, text in _cues(heard))
    return "".join(cues)


def vtt(heard: Heard) -> str:
    """WebVTT."""
    cues = (f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n\n" for _, start, end, text in _cues(heard))
    return "WEBVTT\n\n" + "".join(cues)


def _cues(heard: Heard) -> Iterator[tuple[int, float, float, str]]:
    """An empty line or an arrow in a text would be read as another cue."""
    for number, (start, end, text) in enumerate(_timed(heard), 1):
        yield number, start, end, " ".join(text.split()).replace("-->", "->")


def _timed(heard: Heard) -> Iterator[tuple[float, float, str]]:
    """Where the model told no end, a part ends where the next begins, or with the recording."""
    begins = [start for _, start, _ in heard.parts]
    for place, (text, start, end) in enumerate(heard.parts):
        began = start if start is not None else 0.0
        if end is None:
            after = next((begin for begin in begins[place + 1 :] if begin is not None), heard.seconds)
            end = max(began, after)
        yield began, end, text


def _clock(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


def _compression(text: str) -> float:
    """Whisper's sign of a text that repeats itself."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0
