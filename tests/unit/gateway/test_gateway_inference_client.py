"""``huggingface_hub.InferenceClient`` works unchanged: for each task, what it sends reaches Triton as the contract's tensors,
and what it gets back parses into its own types."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from PIL import Image

from modelium.values import Task
from tests.patience import PATIENCE_S

from .ray_models import IRIS, PAINTER, classified
from .stand_in import Served, numbers, profile_of, repeated, texts

T = TypeVar("T")

LABELS = {"LABEL": texts(["cat", "dog"]), "SCORE": numbers([0.75, 0.25])}
GENERATED = {
    "GENERATED_TEXT": texts(["Hallo"]),
    "FINISH_REASON": texts(["stop"]),
    "INPUT_TOKENS": numbers([3], dtype=np.int32),
    "OUTPUT_TOKENS": numbers([2], dtype=np.int32),
}


async def ask(url: str, question: Callable[[InferenceClient], T]) -> T:
    """The client is synchronous, the gateway runs on this loop."""

    def call() -> T:
        with InferenceClient(model=url, token="none", timeout=PATIENCE_S) as client:
            return question(client)

    return await asyncio.to_thread(call)


def sent_parameters(gateway: Served) -> dict[str, Any]:
    (raw,) = gateway.triton.seen[-1]["PARAMETERS"][0]
    parsed: dict[str, Any] = json.loads(raw)
    return parsed


async def test_feature_extraction(gateway: Served) -> None:
    url = gateway.serve(
        profile_of(Task.FEATURE_EXTRACTION),
        lambda inputs: {"EMBEDDING": numbers(*([len(text), 0.5, 1] for (text,) in inputs["TEXT"]))},
    )
    one = await ask(url, lambda client: client.feature_extraction("abc"))
    assert one.tolist() == [3.0, 0.5, 1.0]
    assert "PARAMETERS" not in gateway.triton.seen[-1]
    both = await ask(url, lambda client: client.feature_extraction(["a", "ab"], normalize=True, truncate=True))
    assert both.tolist() == [[1.0, 0.5, 1.0], [2.0, 0.5, 1.0]]
    assert sent_parameters(gateway) == {"normalize": True, "truncate": True}


@pytest.mark.parametrize("task", [Task.SENTENCE_SIMILARITY, Task.FEATURE_EXTRACTION])
async def test_sentence_similarity(gateway: Served, task: Task) -> None:
    vectors = {b"x": [1, 0, 0], b"same": [2, 0, 0], b"other": [0, 3, 0], b"opposite": [-1, 0, 0], b"nothing": [0, 0, 0]}
    url = gateway.serve(profile_of(task), lambda inputs: {"EMBEDDING": numbers(*(vectors[text] for (text,) in inputs["TEXT"]))})
    others = ["same", "other", "opposite", "nothing"]
    assert await ask(url, lambda client: client.sentence_similarity("x", others)) == [1.0, 0.0, -1.0, 0.0]


async def test_text_classification(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.TEXT_CLASSIFICATION), repeated(LABELS))
    results = await ask(url, lambda client: client.text_classification("I like you", top_k=2, function_to_apply="softmax"))
    assert [(result.label, result.score) for result in results] == [("cat", 0.75), ("dog", 0.25)]
    assert sent_parameters(gateway) == {"top_k": 2, "function_to_apply": "softmax"}


async def test_token_classification(gateway: Served) -> None:
    url = gateway.serve(
        profile_of(Task.TOKEN_CLASSIFICATION),
        repeated(
            {
                "ENTITY": texts(["PER", "LOC", ""]),
                "SCORE": numbers([0.5, 0.25, 0]),
                "WORD": texts(["Ada", "London", ""]),
                "INDEX": numbers([-1, 4, 0], dtype=np.int32),
                "START": numbers([0, 7, 0], dtype=np.int32),
                "END": numbers([3, 13, 0], dtype=np.int32),
                "COUNT": numbers([2], dtype=np.int32),
            }
        ),
    )
    grouped, single = await ask(url, lambda client: client.token_classification("Ada in London", aggregation_strategy="simple"))
    assert (grouped.entity_group, grouped.entity, grouped.word, grouped.start, grouped.end) == ("PER", None, "Ada", 0, 3)
    assert (single.entity_group, single.entity, single.word) == (None, "LOC", "London")


async def test_a_token_without_a_place_says_so(gateway: Served) -> None:
    """-1 is no place in a text."""
    columns = {"ENTITY": texts(["PER"]), "SCORE": numbers([0.5]), "WORD": texts(["Ada"])}
    places = {name: numbers([-1], dtype=np.int32) for name in ("INDEX", "START", "END")}
    url = gateway.serve(
        profile_of(Task.TOKEN_CLASSIFICATION), repeated({**columns, **places, "COUNT": numbers([1], dtype=np.int32)})
    )
    async with gateway.http.post(url, json={"inputs": "Ada"}) as said:
        (found,) = await said.json()
    assert (found["start"], found["end"], found["word"]) == (None, None, "Ada")


async def test_fill_mask(gateway: Served) -> None:
    url = gateway.serve(
        profile_of(Task.FILL_MASK),
        repeated(
            {
                "SCORE": numbers([0.5, 0.25]),
                "TOKEN": numbers([7, 8], dtype=np.int64),
                "TOKEN_STR": texts(["happy", "sad"]),
                "SEQUENCE": texts(["be happy", "be sad"]),
                "MASK": numbers([0, 0], dtype=np.int32),
                "COUNT": numbers([2], dtype=np.int32),
            }
        ),
    )
    first, second = await ask(url, lambda client: client.fill_mask("be [MASK]", top_k=2, targets=["happy", "sad"]))
    assert (first.token, first.token_str, first.sequence, first.score) == (7, "happy", "be happy", 0.5)
    assert second.token_str == "sad"


async def test_question_answering(gateway: Served) -> None:
    found = {
        "ANSWER": texts(["Clara", "Berlin"]),
        "SCORE": numbers([0.5, 0.25]),
        "START": numbers([11, 20], dtype=np.int32),
        "END": numbers([16, 26], dtype=np.int32),
    }
    profile = profile_of(Task.QUESTION_ANSWERING)
    url = gateway.serve(profile, repeated({**found, "COUNT": numbers([1], dtype=np.int32)}))
    answer = await ask(url, lambda client: client.question_answering(question="Who?", context="My name is Clara."))
    assert not isinstance(answer, list)
    assert (answer.answer, answer.start, answer.end, answer.score) == ("Clara", 11, 16, 0.5)
    gateway.serve(profile, repeated({**found, "COUNT": numbers([2], dtype=np.int32)}))
    answers = await ask(url, lambda client: client.question_answering(question="Who?", context="My name is Clara.", top_k=2))
    assert isinstance(answers, list)
    assert [answer.answer for answer in answers] == ["Clara", "Berlin"]


async def test_zero_shot_classification(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.ZERO_SHOT_CLASSIFICATION), repeated(LABELS))
    results = await ask(
        url,
        lambda client: client.zero_shot_classification(
            "a pet", candidate_labels=["cat", "dog"], multi_label=True, hypothesis_template="It is {}."
        ),
    )
    assert [result.label for result in results] == ["cat", "dog"]
    assert gateway.triton.seen[-1]["CANDIDATE_LABELS"].tolist() == [[b"cat", b"dog"]]
    assert sent_parameters(gateway) == {"multi_label": True, "hypothesis_template": "It is {}."}


async def test_text_generation(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.TEXT_GENERATION), repeated(GENERATED))
    text = await ask(
        url, lambda client: client.text_generation("Hi", max_new_tokens=5, do_sample=False, stop=["."], return_full_text=False)
    )
    assert text == "Hallo"
    assert sent_parameters(gateway) == {"max_new_tokens": 5, "do_sample": False, "stop": ["."], "return_full_text": False}
    detailed = await ask(url, lambda client: client.text_generation("Hi", details=True))
    assert detailed.details is not None
    assert (detailed.details.finish_reason, detailed.details.generated_tokens) == ("eos_token", 2)


async def test_translation_and_summarization(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.TRANSLATION), repeated(GENERATED))
    translated = await ask(
        url,
        lambda client: client.translation("Hello", src_lang="en", tgt_lang="de", generate_parameters={"num_beams": 2}),
    )
    assert translated.translation_text == "Hallo"
    assert sent_parameters(gateway) == {"src_lang": "en", "tgt_lang": "de", "num_beams": 2}
    url = gateway.serve(profile_of(Task.SUMMARIZATION), repeated(GENERATED))
    assert (await ask(url, lambda client: client.summarization("Hello, hello"))).summary_text == "Hallo"


async def test_image_classification_raw_and_base64(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.IMAGE_CLASSIFICATION), repeated(LABELS))
    image = b"\x89PNG\r\n\x1a\n\x00\xff"
    results = await ask(url, lambda client: client.image_classification(image))
    assert [result.label for result in results] == ["cat", "dog"]
    assert gateway.triton.seen[-1]["IMAGE"].tolist() == [[image]]
    await ask(url, lambda client: client.image_classification(image, top_k=2))  # with parameters it sends base64
    assert gateway.triton.seen[-1]["IMAGE"].tolist() == [[image]]
    assert sent_parameters(gateway) == {"top_k": 2}


async def test_object_detection(gateway: Served) -> None:
    url = gateway.serve(
        profile_of(Task.OBJECT_DETECTION),
        repeated(
            {
                "LABEL": texts(["cat", ""]),
                "SCORE": numbers([0.5, 0]),
                "BOX": np.array([[[1, 2, 3, 4], [0, 0, 0, 0]]], dtype=np.int32),
                "COUNT": numbers([1], dtype=np.int32),
            }
        ),
    )
    (found,) = await ask(url, lambda client: client.object_detection(b"\xff\xd8image", threshold=0.4))
    assert (found.label, found.score) == ("cat", 0.5)
    assert (found.box.xmin, found.box.ymin, found.box.xmax, found.box.ymax) == (1, 2, 3, 4)


async def test_speech_and_audio(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.AUTOMATIC_SPEECH_RECOGNITION), repeated({"TEXT": texts(["héllo"])}))
    recording = b"RIFF\x00\x00\x00\x00WAVE"
    assert (await ask(url, lambda client: client.automatic_speech_recognition(recording))).text == "héllo"
    assert gateway.triton.seen[-1]["AUDIO"].tolist() == [[recording]]
    chunks = {
        "CHUNK_TEXT": texts(["hé", "llo", ""]),
        "CHUNK_START": numbers([0.0, 29.98, 0], dtype=np.float64),
        "CHUNK_END": numbers([29.98, -1, 0], dtype=np.float64),
        "CHUNKS": numbers([2], dtype=np.int32),
    }
    timed = gateway.serve(profile_of(Task.AUTOMATIC_SPEECH_RECOGNITION), repeated({"TEXT": texts(["héllo"]), **chunks}))
    body = {"inputs": base64.b64encode(recording).decode()}
    asked = {"return_timestamps": True, "generate_kwargs": {"task": "transcribe"}}  # as transformers' pipeline takes them
    async with gateway.http.post(timed, json={**body, "parameters": asked}) as said:
        parts = [{"timestamp": [0.0, 29.98], "text": "hé"}, {"timestamp": [29.98, None], "text": "llo"}]
        assert await said.json() == {"text": "héllo", "chunks": parts}
    assert sent_parameters(gateway) == {"return_timestamps": True, "task": "transcribe"}
    async with gateway.http.post(timed, json={**body, "parameters": {"return_timestamps": "word"}}) as said:
        assert said.status == 422 and "return_timestamps" in (await said.json())["error"]
    url = gateway.serve(profile_of(Task.AUDIO_CLASSIFICATION), repeated(LABELS))
    results = await ask(url, lambda client: client.audio_classification(recording, top_k=2))
    assert [result.label for result in results] == ["cat", "dog"]


async def test_tabular_classification(gateway: Served) -> None:
    url = gateway.serve(IRIS, repeated(classified(["setosa"], ["setosa"], [1.0])))
    table = {"length": ["5.1", "6.2"], "width": [3.5, 2.9]}
    assert await ask(url, lambda client: client.tabular_classification(table)) == ["setosa", "setosa"]
    rows = [json.loads(row) for (row,) in gateway.triton.seen[-1]["ROW"].tolist()]
    assert rows == [{"length": "5.1", "width": 3.5}, {"length": "6.2", "width": 2.9}]


async def test_text_to_image(gateway: Served) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (255, 0, 0)).save(file, format="PNG")
    picture = np.empty((1, 1), dtype=np.object_)
    picture[0, 0] = file.getvalue()
    url = gateway.serve(PAINTER, lambda _: {"IMAGE": picture})
    painted = await ask(url, lambda client: client.text_to_image("a red house", height=64, num_inference_steps=2, seed=7))
    assert (painted.size, painted.getpixel((0, 0))) == ((3, 2), (255, 0, 0))
    assert sent_parameters(gateway) == {"height": 64, "num_inference_steps": 2, "seed": 7}
