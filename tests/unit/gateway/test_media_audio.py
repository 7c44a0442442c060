"""Speech in OpenAI's API: the openai package and forms written by hand, against a model that answers what the test wants."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI

from modelium.errors import InferenceFailed, NotServable
from modelium.values import Task

from .stand_in import Served, Tensors, numbers, profile_of, repeated, served, texts

WHISPER = profile_of(Task.AUTOMATIC_SPEECH_RECOGNITION, "whisper", model_type="whisper")
WAV2VEC2 = profile_of(Task.AUTOMATIC_SPEECH_RECOGNITION, "wav2vec2", model_type="wav2vec2")
RECORDING = b"RIFF\x00\x00\r\n--\x00WAVE"
URL = "/v1/audio/transcriptions"


def said(*parts: tuple[str, float, float], seconds: float = 2.2, language: str = "fr") -> Tensors:
    """What Whisper answers; an end of -1 was not told."""
    return {
        "TEXT": texts(["".join(text for text, _, _ in parts)]),
        "CHUNK_TEXT": texts([text for text, _, _ in parts]),
        "CHUNK_START": numbers([start for _, start, _ in parts], dtype=np.float64),
        "CHUNK_END": numbers([end for _, _, end in parts], dtype=np.float64),
        "CHUNKS": numbers([len(parts)], dtype=np.int32),
        "DURATION": numbers([seconds], dtype=np.float64),
        "LANGUAGE": texts([language]),
    }


HELLO = said((" Hé --> llo", 0.0, 1.5), (" there\n\nyou", 1.5, -1))


@pytest.fixture
async def whisper(gateway: Served) -> Served:
    gateway.serve(WAV2VEC2, repeated(HELLO))
    gateway.serve(WHISPER, repeated(HELLO))
    return gateway


def sent(gateway: Served) -> Any:
    (inputs,) = gateway.triton.seen
    assert inputs["AUDIO"].tolist() == [[RECORDING]]
    return json.loads(inputs["PARAMETERS"].item(0))


async def post(gateway: Served, path: str = URL, **fields: Any) -> tuple[int, Any]:
    """A form; None leaves a field out, a list sends it several times."""
    form = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for name, value in ({"model": "whisper", "file": RECORDING} | fields).items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bytes):
                form.add_field(name, one, filename="a.wav", content_type="audio/wav")
            elif one is not None:
                form.add_field(name, one)
    async with gateway.http.post(f"{gateway.url}{path}", data=form) as response:
        return response.status, await response.json() if response.content_type == "application/json" else await response.text()


async def test_a_transcript_has_its_text_and_what_was_heard(whisper: Served, client: AsyncOpenAI) -> None:
    heard = await client.audio.transcriptions.create(
        model="whisper", file=("a.wav", RECORDING), language="fr", prompt="names: Zoë", temperature=0.2
    )
    assert heard.text == "Hé --> llo there\n\nyou"
    assert heard.usage is not None and heard.usage.to_dict() == {"type": "duration", "seconds": 3}
    assert sent(whisper) == {"language": "fr", "prompt": "names: Zoë", "temperature": 0.2, "task": "transcribe"}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of openai's own translations
async def test_a_translation_is_asked_for(whisper: Served, client: AsyncOpenAI) -> None:
    heard = await client.audio.translations.create(model="whisper", file=("a.wav", RECORDING))
    assert heard.to_dict() == {"text": "Hé --> llo there\n\nyou"}
    assert sent(whisper) == {"task": "translate"}
    verbose = await client.audio.translations.create(model="whisper", file=("a.wav", RECORDING), response_format="verbose_json")
    assert (verbose.language, verbose.duration) == ("en", 2.2)


async def test_subtitles(whisper: Served, client: AsyncOpenAI) -> None:
    """An arrow or an empty line inside would begin another cue."""
    srt = await client.audio.transcriptions.create(model="whisper", file=("a.wav", RECORDING), response_format="srt")
    assert srt == "1\n00:00:00,000 --> 00:00:01,500\nHé -> llo\n\n2\n00:00:01,500 --> 00:00:02,200\nthere you\n\n"
    assert sent(whisper) == {"task": "transcribe", "return_timestamps": True}
    vtt = await client.audio.transcriptions.create(model="whisper", file=("a.wav", RECORDING), response_format="vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHé -> llo\n\n")
    text = await client.audio.transcriptions.create(model="whisper", file=("a.wav", RECORDING), response_format="text")
    assert text == "Hé --> llo there\n\nyou\n"


async def test_everything_that_is_known(whisper: Served, client: AsyncOpenAI) -> None:
    heard = await client.audio.transcriptions.create(
        model="whisper", file=("a.wav", RECORDING), response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert (heard.language, heard.duration, heard.words) == ("fr", 2.2, None)
    assert heard.segments is not None
    assert [(one.id, one.start, one.end, one.text) for one in heard.segments] == [
        (0, 0.0, 1.5, " Hé --> llo"),
        (1, 1.5, 2.2, " there\n\nyou"),
    ]


async def test_a_stream_has_openais_events_and_vllms_chunks(whisper: Served, client: AsyncOpenAI) -> None:
    stream = await client.audio.transcriptions.create(model="whisper", file=("a.wav", RECORDING), stream=True)
    events = [one async for one in stream]
    assert [one.type for one in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[0].to_dict()["delta"] == "Hé --> llo there\n\nyou"
    assert events[1].to_dict()["usage"] == {"type": "duration", "seconds": 3}
    status, body = await post(whisper, stream="true")
    chunks = [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: {")]
    assert status == 200 and body.endswith("data: [DONE]\n\n")
    assert [chunk["object"] for chunk in chunks] == ["transcription.chunk"] * 2
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "Hé --> llo there\n\nyou"


async def test_an_error_before_a_stream_keeps_its_status(whisper: Served) -> None:
    whisper.controller.refuse = NotServable("broken")
    status, body = await post(whisper, stream="true")
    assert (status, body["error"]["code"]) == (503, "not_servable")


@pytest.mark.parametrize(
    "path", ["/predict/whisper/v1/audio/transcriptions", "/openai/deployments/whisper/audio/transcriptions"]
)
async def test_the_path_may_name_the_model(whisper: Served, path: str) -> None:
    status, body = await post(whisper, path, model=None)
    assert (status, body["text"]) == (200, "Hé --> llo there\n\nyou")
    assert (await post(whisper, path, model="another"))[0] == 200
    status, body = await post(whisper, path, file=None)
    assert status == 400 and body["error"]["param"] == "file"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"file": None}, "file", "is missing"),
        ({"file": b""}, "file", "is empty"),
        ({"model": None}, "model", "is missing"),
        ({"response_format": "diarized_json"}, "response_format", "'json', 'text', 'srt', 'verbose_json' or 'vtt'"),
        ({"timestamp_granularities[]": "segment"}, "timestamp_granularities", "send response_format: verbose_json"),
        (
            {"timestamp_granularities[]": ["segment", "word"], "response_format": "verbose_json"},
            "timestamp_granularities",
            "no runtime here tells the times of words",
        ),
        ({"temperature": "2"}, "temperature", "less than or equal to 1"),
        ({"temperature": "warm"}, "temperature", "valid number"),
        ({"stream": "true", "response_format": "srt"}, "stream", "comes in one piece"),
        ({"language": ["en", "fr"]}, "language", "was sent twice"),
        ({"prompt": "x" * 10_001}, "prompt", "at most 10000 characters"),
        ({"use_beam_search": "true"}, "use_beam_search", "beam search is not offered"),
        ({"model": "wav2vec2", "response_format": "vtt"}, "response_format", "'wav2vec2' does not tell when"),
        ({"model": "wav2vec2", "language": "en"}, "language", "means nothing to 'wav2vec2'"),
    ],
)
async def test_what_cannot_be_done_is_said_before_anything_is_loaded(
    whisper: Served, fields: dict[str, Any], param: str, words: str
) -> None:
    status, body = await post(whisper, **fields)
    assert (status, body["error"]["param"]) == (400, param), body
    assert words in body["error"]["message"]
    assert whisper.controller.askers == []


async def test_other_models_and_other_bodies_are_refused(whisper: Served) -> None:
    whisper.serve(profile_of(Task.TEXT_CLASSIFICATION, "classifier"))
    status, body = await post(whisper, model="classifier")
    assert status == 400 and "does not do transcriptions; it does text-classification" in body["error"]["message"]
    status, body = await post(whisper, "/v1/audio/translations", model="wav2vec2")
    assert status == 400 and "'wav2vec2' does not translate" in body["error"]["message"]
    status, body = await post(whisper, model="whispr")
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    async with whisper.http.post(f"{whisper.url}{URL}", json={"model": "whisper"}) as response:
        assert response.status == 415 and "multipart/form-data" in (await response.json())["error"]["message"]
    async with whisper.http.post(
        f"{whisper.url}{URL}", data=b"--y", headers={"Content-Type": "multipart/form-data; boundary=x"}
    ) as response:
        assert response.status == 400 and "the boundary" in (await response.json())["error"]["message"]
    async with whisper.http.post(
        f"{whisper.url}{URL}", data=b"--y", headers={"Content-Type": "multipart/form-data"}
    ) as response:
        assert response.status == 400 and "no boundary" in (await response.json())["error"]["message"]


async def test_a_recording_has_the_bounds_of_every_body(whisper: Served) -> None:
    """The gateway of these tests takes 100 kB."""
    status, body = await post(whisper, file=b"x" * 100_001)
    assert status == 413 and "gateway.max_body_bytes" in body["error"]["message"]
    status, _ = await post(whisper, file=b"x" * 90_000)
    assert status == 200


async def test_unknown_fields_are_named_and_harmless_ones_are_not(whisper: Served) -> None:
    form = aiohttp.FormData({"model": "whisper", "hotwords": "x", "chunking_strategy": "auto", "temprature": "1"})
    form.add_field("file", RECORDING, filename="a.wav")
    async with whisper.http.post(f"{whisper.url}{URL}", data=form) as response:
        assert response.status == 200
        assert response.headers["X-Modelium-Ignored"] == "hotwords, temprature; did-you-mean=temperature"


async def test_what_the_model_refuses_is_a_bad_request(whisper: Served, client: AsyncOpenAI) -> None:
    whisper.triton.faults = [InferenceFailed("AUDIO cannot be read as wav, flac, ogg or mp3")]
    with pytest.raises(openai.BadRequestError, match="cannot be read"):
        await client.audio.transcriptions.create(model="whisper", file=("a.wav", RECORDING))


async def test_a_page_that_may_ask_may_send_a_form() -> None:
    """A browser of another site is refused all the same, and so is a form for another route."""
    async with served(cors_origins=["https://app.example"]) as gateway:
        gateway.serve(WHISPER, repeated(HELLO))
        for origin, path, status in (
            ("https://app.example", URL, 200),
            ("https://evil.example", URL, 403),
            ("https://app.example", "/predict/whisper", 415),
        ):
            form = aiohttp.FormData({"model": "whisper"})
            form.add_field("file", RECORDING, filename="a.wav")
            headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
            async with gateway.http.post(f"{gateway.url}{path}", data=form, headers=headers) as response:
                assert response.status == status, (origin, path)
