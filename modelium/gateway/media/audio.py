"""``/v1/audio/transcriptions`` and ``/v1/audio/translations``: a form with a recording enters, what was said leaves."""

from __future__ import annotations

import time
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aiohttp import web

from modelium.errors import ModeliumError
from modelium.gateway.asking import Asked, Asking
from modelium.gateway.codecs import Body, Heard, encode_body, heard_in
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import json_response, waited_headers
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, EVENTS, FORM, TEXT, Reply, describes
from modelium.gateway.http.events import EventStream
from modelium.gateway.http.forms import read_form
from modelium.gateway.media.requests import SpeechRequest, TranscriptionRequest, TranslationRequest
from modelium.gateway.media.transcripts import Transcript, Translation, VerboseTranscript, srt, text_of, usage_of, verbose, vtt
from modelium.gateway.openai.answers import DONE, Json, event
from modelium.gateway.openai.directory import Directory, Served, require
from modelium.gateway.openai.errors import BadRequest, told
from modelium.gateway.openai.reading import read_fields
from modelium.values import Gives

if TYPE_CHECKING:
    from modelium.controller import Lease

TaskWord = Literal["transcribe", "translate"]
S = TypeVar("S", bound=SpeechRequest)

_ALSO = (
    Reply(content_type=TEXT, says="as `response_format` says: text, srt or vtt"),
    Reply(content_type=EVENTS, says="with `stream`: OpenAI's events, each with vLLM's `choices`, then `[DONE]`"),
)
_OF_A_LIST = frozenset({"timestamp_granularities", "include"})  # names that come once for each element


class Audio:
    """The handlers."""

    def __init__(self, directory: Directory, asking: Asking, *, timeout_s: float) -> None:
        self._directory = directory
        self._asking = asking
        self._timeout_s = timeout_s

    @describes(
        "What is said in a recording.",
        takes=TranscriptionRequest,
        takes_as=FORM,
        file="file",
        gives=Transcript | VerboseTranscript,
        also=_ALSO,
        fails=ASKING,
        example={"model": "NAME"},
    )
    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/audio/transcriptions``. Raises ``BadRequest`` and what asking a model raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked, recording = await _read(TranscriptionRequest, request, deadline)
        if asked.timestamp_granularities and asked.response_format != "verbose_json":
            raise BadRequest(
                "timestamp_granularities: times are part of verbose_json; send response_format: verbose_json as well",
                param="timestamp_granularities",
            )
        if "word" in (asked.timestamp_granularities or ()):
            raise BadRequest(
                "timestamp_granularities: no runtime here tells the times of words; send segment, or leave it out",
                param="timestamp_granularities",
                code="unsupported_parameter",
            )
        return await self._answer(request, asked, recording, "transcribe", deadline)

    @describes(
        "What is said in a recording, in English.",
        takes=TranslationRequest,
        takes_as=FORM,
        file="file",
        gives=Translation | VerboseTranscript,
        also=_ALSO,
        fails=ASKING,
        example={"model": "NAME"},
    )
    async def translate(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/audio/translations``, into English. Raises the same."""
        deadline = deadline_of(request, self._timeout_s)
        asked, recording = await _read(TranslationRequest, request, deadline)
        return await self._answer(request, asked, recording, "translate", deadline)

    async def _answer(
        self, request: web.Request, asked: SpeechRequest, recording: bytes, task: TaskWord, deadline: Deadline
    ) -> web.StreamResponse:
        served = await self._directory.find(request, asked.model, deadline)
        require(served, lambda row: row.gives is Gives.TRANSCRIPTS, "transcriptions")
        parameters = _parameters(asked, served, task)
        encode_body(served.profile, Body(inputs=None, raw=b"", parameters=parameters))  # before anything is loaded

        async def ask(lease: Lease) -> Heard:
            call = encode_body(lease.profile, Body(inputs=None, raw=recording, parameters=parameters))
            return heard_in(await self._asking.infer(lease, call, deadline))

        if asked.stream:
            return await self._stream(request, asked, served, task, ask, deadline)
        answered = await self._asking.once(served.name, ask, deadline)
        return _written(asked, task, answered)

    async def _stream(
        self, request: web.Request, asked: SpeechRequest, served: Served, task: TaskWord, ask: Any, deadline: Deadline
    ) -> web.StreamResponse:
        """What is said comes in one piece; events keep the connection alive until then.

        Each event is OpenAI's (``type``) and vLLM's (``choices``) at once: their clients read different fields.
        """

        def error_event(error: ModeliumError) -> bytes:
            return event(told(error, request).body)

        kind = "transcription" if task == "transcribe" else "translation"
        head: Json = {"id": f"{kind[:5]}-{token_hex(16)}", "object": f"{kind}.chunk"}
        head |= {"created": int(time.time()), "model": asked.model}
        waiting = EventStream(
            request, comment=lambda: self._asking.waiting(served.name), error_event=error_event, deadline=deadline
        )
        async with waiting as events:
            heard = (await self._asking.once(served.name, ask, deadline)).answer
            text = text_of(heard)
            said = {"type": "transcript.text.delta", "delta": text, "choices": [_choice(text, None)]}
            await events.send(event(head | said))
            done = {"type": "transcript.text.done", "text": text, "usage": usage_of(heard), "choices": [_choice("", "stop")]}
            await events.send(event(head | done))
            await events.send(DONE)
        return events.response


def _choice(content: str, finish_reason: str | None) -> Json:
    return {"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}


async def _read(kind: type[S], request: web.Request, deadline: Deadline) -> tuple[S, bytes]:
    """The fields and the recording. Raises ``BadRequest`` and what ``read_form`` raises."""
    form = await read_form(request, deadline)
    fields: dict[str, object] = {}
    for sent, value in form.fields:
        name = sent.removesuffix("[]")
        if name in _OF_A_LIST:
            listed = fields.setdefault(name, [])
            assert isinstance(listed, list)
            listed.append(value)
        elif name in fields:
            raise BadRequest(f"{name[:100]}: was sent twice", param=name[:100])
        elif value:  # an empty field asks for nothing
            fields[name] = value
    asked = read_fields(kind, fields, request)
    if form.file is None:
        raise BadRequest(
            "file: is missing; send the recording as a part of the form", param="file", code="missing_required_parameter"
        )
    if not form.file:
        raise BadRequest("file: is empty", param="file", code="invalid_value")
    if asked.stream and asked.wants_times:
        raise BadRequest(f"stream: an answer as {asked.response_format} comes in one piece; send json or text", param="stream")
    return asked, form.file


def _parameters(asked: SpeechRequest, served: Served, task: TaskWord) -> dict[str, object]:
    """In ``/predict``'s words. Raises ``BadRequest`` for what this kind of model cannot do."""
    parameters: dict[str, object] = {
        "language": asked.language,
        "prompt": asked.prompt,
        "temperature": asked.temperature,
        "seed": asked.seed,
        "max_new_tokens": asked.max_completion_tokens,
        "return_timestamps": asked.wants_times or None,
    }
    if served.profile.model_type == "whisper":
        return parameters | {"task": task}
    if task == "translate":
        raise BadRequest(
            f"model: {served.name!r} does not translate; Whisper models do", param="model", code="unsupported_model"
        )
    if asked.wants_times:
        raise BadRequest(
            f"response_format: {served.name!r} does not tell when something was said, Whisper models do; send json or text",
            param="response_format",
            code="unsupported_parameter",
        )
    for name in ("language", "prompt"):
        if parameters[name]:
            raise BadRequest(
                f"{name}: means nothing to {served.name!r}, which is no Whisper; leave it out",
                param=name,
                code="unsupported_parameter",
            )
    return parameters


def _written(asked: SpeechRequest, task: TaskWord, answered: Asked[Heard]) -> web.Response:
    heard = answered.answer
    headers = waited_headers(answered.waited.seconds, cold=answered.waited.cold)
    match asked.response_format:
        case "json" if task == "translate":
            translation: Translation = {"text": text_of(heard)}
            return json_response(translation, headers=headers)
        case "json":
            transcript: Transcript = {"text": text_of(heard), "usage": usage_of(heard)}
            return json_response(transcript, headers=headers)
        case "verbose_json":
            return json_response(verbose(heard, task, asked.temperature or 0.0), headers=headers)
        case "srt":
            said = srt(heard)
        case "vtt":
            said = vtt(heard)
        case "text":
            said = f"{text_of(heard)}\n"
    return web.Response(text=said, headers=headers)
