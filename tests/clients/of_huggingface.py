"""``huggingface_hub.InferenceClient``: each task, asked by the client that blocks and by the other one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clients.asked import CHAT, EMBEDS, PATIENCE_S, At, asks

_MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
_PLACES = "Ada was in London. Grace was in New York."


def _file(at: At, name: str) -> bytes:
    return (Path(at.files) / name).read_bytes()


# By task: the model, and the question.
TASKS: dict[str, tuple[str, Callable[[Any, At], Any]]] = {
    "feature_extraction": (EMBEDS, lambda client, at: client.feature_extraction("a cat")),
    "sentence_similarity": (EMBEDS, lambda client, at: client.sentence_similarity("a cat", other_sentences=["a dog", "rain"])),
    "text_classification": ("classifier", lambda client, at: client.text_classification("The film was great")),
    "token_classification": ("ner", lambda client, at: client.token_classification("Ada Lovelace lived in New York .")),
    "fill_mask": ("fill-mask", lambda client, at: client.fill_mask("the capital of Italy is [MASK].")),
    "question_answering": ("qa", lambda client, at: client.question_answering(question="where was Ada?", context=_PLACES)),
    "zero_shot_classification": (
        "zero-shot",
        lambda client, at: client.zero_shot_classification("we talked about bread", ["sports", "cooking"]),
    ),
    "translation": ("t5", lambda client, at: client.translation("the house is small", src_lang="en", tgt_lang="de")),
    "image_classification": ("vit", lambda client, at: client.image_classification(_file(at, "red.png"))),
    "object_detection": ("yolos", lambda client, at: client.object_detection(_file(at, "red.png"), threshold=0.05)),
    "automatic_speech_recognition": (
        "wav2vec2",
        lambda client, at: client.automatic_speech_recognition(_file(at, "abcd.wav")),
    ),
    "audio_classification": ("audio-classifier", lambda client, at: client.audio_classification(_file(at, "low.wav"))),
    "text_generation": (CHAT, lambda client, at: client.text_generation("The old lighthouse", max_new_tokens=20)),
    "chat_completion": (CHAT, lambda client, at: client.chat_completion(_MESSAGES, max_tokens=20)),
}


def _enter(task: str, model: str, question: Callable[[Any, At], Any]) -> None:
    def blocking(at: At) -> Any:
        from huggingface_hub import InferenceClient

        with InferenceClient(model=at.predict, token="none", timeout=PATIENCE_S) as client:
            return _said(question(client, at))

    async def waiting(at: At) -> Any:
        from huggingface_hub import AsyncInferenceClient

        async with AsyncInferenceClient(model=at.predict, token="none", timeout=PATIENCE_S) as client:
            return _said(await question(client, at))

    asks(model, f"huggingface_hub {task}")(blocking)
    asks(model, f"huggingface_hub {task} (async)")(waiting)


for _task, (_model, _question) in TASKS.items():
    _enter(_task, _model, _question)


@asks(CHAT, "huggingface_hub text_generation, streamed")
def streamed(at: At) -> str:
    from huggingface_hub import InferenceClient

    with InferenceClient(model=at.predict, token="none", timeout=PATIENCE_S) as client:
        return "".join(client.text_generation("The old lighthouse", max_new_tokens=20, stream=True))


@asks(CHAT, "huggingface_hub chat_completion, streamed")
def chat_streamed(at: At) -> str:
    from huggingface_hub import InferenceClient

    with InferenceClient(model=at.predict, token="none", timeout=PATIENCE_S) as client:
        chunks = client.chat_completion(_MESSAGES, max_tokens=20, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def _said(answer: Any) -> Any:
    """The choices of a chat have a text; everything else is shown as it is."""
    return answer.choices[0].message.content if hasattr(answer, "choices") else answer
