"""The codecs alone: which bodies are refused, with the field named, and the shapes of answers to lists."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.errors import InvalidBody, RequestError
from modelium.gateway.codecs import encode
from modelium.signatures import signature
from modelium.values import ModelProfile, OnnxGraph, Task, Tensor

from .stand_in import numbers, profile_of, texts

JSON = "application/json"
GENERATIVE = (Task.TEXT_GENERATION, Task.TRANSLATION, Task.SUMMARIZATION, Task.TEXT2TEXT_GENERATION)


def refusal(task: Task, body: object, content_type: str = JSON) -> str:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(RequestError) as caught:
        encode(profile_of(task), content_type, data)
    return str(caught.value)


def graph(*inputs: Tensor, dynamic_batch: bool = True) -> ModelProfile:
    outputs = (Tensor(name="y", datatype="FP32", dims=(-1, 2)),)
    onnx = OnnxGraph(inputs=inputs, outputs=outputs, dynamic_batch=dynamic_batch, opset=17)
    return profile_of(Task.TENSORS, onnx=onnx)


X = Tensor(name="x", datatype="FP32", dims=(-1, 2))
IDS = Tensor(name="ids", datatype="INT8", dims=(-1, 2))
WORDS = Tensor(name="words", datatype="BYTES", dims=(-1, 1))


@pytest.mark.parametrize(
    ("task", "body", "said"),
    [
        (Task.FEATURE_EXTRACTION, {}, "inputs: is missing"),
        (Task.FEATURE_EXTRACTION, {"input": "x"}, "input: unknown field; did you mean 'inputs'?"),
        (Task.FEATURE_EXTRACTION, {"inputs": []}, "inputs: the list is empty"),
        (Task.FEATURE_EXTRACTION, {"inputs": ["a", "b", "c", 4]}, "inputs[3]: expected a string, found 4"),
        (Task.FEATURE_EXTRACTION, {"inputs": None}, "inputs: expected a string or a list of strings, found null"),
        (Task.FEATURE_EXTRACTION, ["x"], "the body: expected an object"),
        (Task.FEATURE_EXTRACTION, {"inputs": "x", "normalize": "yes"}, "normalize: expected true or false, found a string"),
        (Task.FEATURE_EXTRACTION, {"inputs": "x", "encoding_format": "base64"}, "encoding_format: is not supported"),
        (Task.FEATURE_EXTRACTION, b"", "the body is empty"),
        (Task.FEATURE_EXTRACTION, b"{", "the body is not JSON"),
        (Task.FEATURE_EXTRACTION, b'{"inputs": "\xff"}', "the body is not JSON"),
        (Task.FEATURE_EXTRACTION, b'{"inputs": "\\ud800"}', "the body is not JSON"),
        (Task.FEATURE_EXTRACTION, b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "more than 64 deep"),
        (Task.SENTENCE_SIMILARITY, {"inputs": {"source_sentence": "x"}}, "inputs.sentences: is missing"),
        (Task.SENTENCE_SIMILARITY, {"inputs": {"source_sentence": "x", "sentences": [1]}}, "inputs.sentences[0]: expected"),
        (Task.TEXT_CLASSIFICATION, {"inputs": "x", "parameters": {"topk": 1}}, "parameters.topk: unknown parameter"),
        (Task.TEXT_CLASSIFICATION, {"inputs": "x", "parameters": {"topk": 1}}, "did you mean 'top_k'?"),
        (Task.TEXT_CLASSIFICATION, {"inputs": "x", "parameters": {"top_k": 0}}, "parameters.top_k: must be at least 1"),
        (Task.TEXT_CLASSIFICATION, {"inputs": "x", "parameters": {"top_k": 1.5}}, "parameters.top_k: expected a whole number"),
        (Task.TEXT_CLASSIFICATION, {"inputs": "x", "parameters": {"top_k": True}}, "parameters.top_k: expected a whole number"),
        (Task.TEXT_CLASSIFICATION, {"inputs": "x", "parameters": [1]}, "parameters: expected an object, found a list"),
        (Task.TEXT_CLASSIFICATION, {"inputs": [{"text": "a", "pair": "b"}]}, "inputs[0].pair: unknown field"),
        (Task.TEXT_CLASSIFICATION, {"inputs": [{"text": "a", "text_pair": "b"}, {"text": "c"}]}, "inputs[1]: either all"),
        (Task.TEXT_CLASSIFICATION, {"inputs": [{"text": "a"}, {"text": "a", "text_pair": "b"}]}, "inputs[1]: either all"),
        (Task.TEXT_CLASSIFICATION, {"inputs": [{"text": "a"}, "b"]}, "inputs[1]: expected an object"),
        (Task.TOKEN_CLASSIFICATION, {"inputs": "x", "parameters": {"aggregation_strategy": "all"}}, "is not one of none,"),
        (Task.QUESTION_ANSWERING, {"inputs": "x"}, "inputs: expected an object with question, context"),
        (Task.QUESTION_ANSWERING, {"inputs": [{"question": "x"}]}, "inputs[0].context: is missing"),
        (Task.ZERO_SHOT_CLASSIFICATION, {"inputs": "x"}, "parameters.candidate_labels: is missing"),
        (Task.ZERO_SHOT_CLASSIFICATION, {"inputs": "x", "parameters": {"candidate_labels": []}}, "candidate_labels: the list"),
        (Task.TEXT_GENERATION, {"inputs": "x", "stream": True}, "stream: answers are not streamed"),
        (Task.TEXT_GENERATION, {"inputs": "x", "parameters": {"temperature": -1}}, "parameters.temperature: must be at"),
        (Task.TEXT_GENERATION, {"inputs": "x", "parameters": {"grammar": {}}}, "parameters.grammar: is not supported"),
        (Task.TRANSLATION, {"inputs": "x", "parameters": {"generate_parameters": {"beams": 1}}}, "parameters.beams: unknown"),
        (Task.IMAGE_CLASSIFICATION, {"inputs": "§"}, "inputs: is not base64"),
        (Task.IMAGE_CLASSIFICATION, {"inputs": ""}, "inputs: holds no bytes"),
        (Task.IMAGE_CLASSIFICATION, {"inputs": ["AAAA", 1]}, "inputs[1]: expected a string"),
        (Task.IMAGE_CLASSIFICATION, {"inputs": "https://example.org/cat.png"}, "inputs: is a URL"),
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused_with_its_field(task: Task, body: object, said: str) -> None:
    assert said in refusal(task, body)


def test_media_of_the_wrong_kind_are_refused() -> None:
    assert "audio/wav" in refusal(Task.IMAGE_CLASSIFICATION, b"RIFF", "audio/wav")
    assert "image/png" in refusal(Task.FEATURE_EXTRACTION, b"PNG", "image/png")
    assert "multipart" in refusal(Task.IMAGE_CLASSIFICATION, b"--x", "multipart/form-data")


def test_lists_get_lists() -> None:
    image = base64.b64encode(b"image").decode()
    labels = {"LABEL": texts(["a", "b"], ["b", "a"]), "SCORE": numbers([0.75, 0.25], [0.5, 0.5])}
    expected = [
        [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.25}],
        [{"label": "b", "score": 0.5}, {"label": "a", "score": 0.5}],
    ]
    for task, inputs in ((Task.TEXT_CLASSIFICATION, ["x", "y"]), (Task.IMAGE_CLASSIFICATION, [image, image])):
        call = encode(profile_of(task), JSON, json.dumps({"inputs": inputs}).encode())
        assert call.answer([labels]) == expected
        halves = [{name: array[i : i + 1] for name, array in labels.items()} for i in (0, 1)]
        assert call.answer(halves) == expected


def test_pairs_of_texts_reach_both_inputs() -> None:
    body = {"inputs": [{"text": "a", "text_pair": "b"}, {"text": "c", "text_pair": "d"}]}
    call = encode(profile_of(Task.TEXT_CLASSIFICATION), JSON, json.dumps(body).encode())
    assert call.inputs["TEXT"].tolist() == [[b"a"], [b"c"]]
    assert call.inputs["TEXT_PAIR"].tolist() == [[b"b"], [b"d"]]


def test_texts_come_with_as_many_images_as_they_have() -> None:
    image, other = (base64.b64encode(data).decode() for data in (b"one", b"two"))
    profile = profile_of(Task.IMAGE_TEXT_TO_TEXT)
    inputs = [{"text": "a", "images": [f"data:image/png;base64,{image}", other]}, "b", {"image": image}]
    call = encode(profile, JSON, json.dumps({"inputs": inputs}).encode())
    assert call.inputs["TEXT"].tolist() == [[b"a"], [b"b"], [b""]]
    assert call.inputs["IMAGE"].tolist() == [[b"one", b"two"], [b"", b""], [b"one", b""]]
    assert "IMAGE" not in encode(profile, JSON, b'{"inputs": {"text": "a"}}').inputs


def test_generated_texts_are_flat_for_translations_and_nested_for_continuations() -> None:
    def generated(*rows: list[str]) -> dict[str, Any]:
        return {"GENERATED_TEXT": texts(*rows)}

    body = json.dumps({"inputs": ["x", "y"]}).encode()
    two = json.dumps({"inputs": ["x", "y"], "parameters": {"num_return_sequences": 2}}).encode()
    answer = encode(profile_of(Task.TRANSLATION), JSON, body).answer([generated(["a"], ["b"])])
    assert answer == [{"translation_text": "a"}, {"translation_text": "b"}]
    answer = encode(profile_of(Task.TRANSLATION), JSON, two).answer([generated(["a", "b"], ["c", "d"])])
    assert answer == [
        [{"translation_text": "a"}, {"translation_text": "b"}],
        [{"translation_text": "c"}, {"translation_text": "d"}],
    ]
    answer = encode(profile_of(Task.TEXT_GENERATION), JSON, body).answer([generated(["a"], ["b"])])
    assert answer == [[{"generated_text": "a"}], [{"generated_text": "b"}]]


def test_several_masks_make_a_list_of_lists() -> None:
    call = encode(profile_of(Task.FILL_MASK), JSON, b'{"inputs": "[MASK] [MASK]"}')
    answer = call.answer(
        [
            {
                "SCORE": numbers([0.5, 0.25]),
                "TOKEN": numbers([1, 2], dtype=np.int64),
                "TOKEN_STR": texts(["a", "b"]),
                "SEQUENCE": texts(["a ?", "? b"]),
                "MASK": numbers([0, 1], dtype=np.int32),
                "COUNT": numbers([2], dtype=np.int32),
            }
        ]
    )
    assert answer == [
        [{"score": 0.5, "token": 1, "token_str": "a", "sequence": "a ?"}],
        [{"score": 0.25, "token": 2, "token_str": "b", "sequence": "? b"}],
    ]


@given(st.lists(st.text(), min_size=1, max_size=9), st.integers(1, 10))
def test_chunks_hold_every_row_once_in_order(items: list[str], max_rows: int) -> None:
    call = encode(profile_of(Task.FEATURE_EXTRACTION), JSON, json.dumps({"inputs": items}, ensure_ascii=False).encode())
    chunks = call.chunks(max_rows)
    assert all(len(chunk["TEXT"]) <= max_rows for chunk in chunks)
    assert [text.decode() for chunk in chunks for (text,) in chunk["TEXT"]] == items


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([task for task in Task if task not in (Task.TENSORS, Task.SERVE_APP)]), anything, anything)
def test_no_json_breaks_a_codec(task: Task, inputs: object, parameters: object) -> None:
    """Any JSON makes tensors of the contract or a refusal."""
    profile = profile_of(task)
    data = json.dumps({"inputs": inputs, "parameters": parameters}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        call = encode(profile, JSON, data)
    except RequestError:
        return
    known = {tensor.name for tensor in signature(profile).inputs}
    assert set(call.inputs) <= known
    assert {array.shape[0] for array in call.inputs.values()} == {call.rows}


@given(st.sampled_from([X, IDS, WORDS]), anything)
def test_no_json_breaks_the_tensor_codec(tensor: Tensor, inputs: object) -> None:
    try:
        call = encode(graph(tensor), JSON, json.dumps({"inputs": inputs}, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    except RequestError:
        return
    assert call.inputs[tensor.name].shape[1:] == tensor.dims[1:]


def test_tensors_by_name_or_bare() -> None:
    y = np.array([[0.5, 1.0], [2.0, 3.0]], dtype=np.float32)
    for body in ({"inputs": {"x": [[1, 2], [3, 4]]}}, {"inputs": [[1, 2], [3, 4.0]]}):
        call = encode(graph(X), JSON, json.dumps(body).encode())
        assert call.inputs["x"].dtype == np.float32
        assert call.inputs["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
        answer = call.answer([{"y": y[:1]}, {"y": y[1:]}])
        assert isinstance(answer, dict)
        assert np.array_equal(answer["y"], y)


def test_strings_in_tensors() -> None:
    call = encode(graph(WORDS), JSON, json.dumps({"inputs": [["é\0"], [""]]}).encode())
    assert call.inputs["words"].tolist() == [["é\0".encode()], [b""]]
    assert call.answer([{"words": call.inputs["words"]}]) == {"words": [["é\0"], [""]]}


@pytest.mark.parametrize(
    ("profile", "inputs", "said"),
    [
        (graph(X), [[1, 2], [3]], "inputs: the lists are not all of one length; expected [any, 2]"),
        (graph(X), [1, 2], "inputs: expected the shape [any, 2], found [2]"),
        (graph(X), [[1, 2, 3]], "found [1, 3]"),
        (graph(X), [["a", "b"]], "inputs: expected numbers only"),
        (graph(X), [[None, 1]], "inputs: expected numbers only"),
        (graph(X), {"z": [[1, 2]]}, "inputs.z: the model has no such input"),
        (graph(X), {}, "inputs.x: is missing"),
        (graph(IDS), [[1.5, 2]], "inputs: expected whole numbers (INT8), found fractions"),
        (graph(IDS), [[1, 300]], "inputs: does not fit into INT8"),
        (graph(WORDS), [[1]], "inputs: expected a string, found 1"),
        (graph(X, IDS), [[1, 2]], "inputs: expected an object with x, ids"),
        (graph(X, IDS), {"x": [[1, 2]], "ids": [[1, 2], [3, 4]]}, "inputs: all need the same first dimension, found 1, 2"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(profile: ModelProfile, inputs: object, said: str) -> None:
    with pytest.raises(InvalidBody) as caught:
        encode(profile, JSON, json.dumps({"inputs": inputs}).encode())
    assert said in str(caught.value)


def test_scalars_travel_with_one_dimension_more() -> None:
    one = Tensor(name="x", datatype="FP32", dims=())
    graph = OnnxGraph(inputs=(one,), outputs=(one,), dynamic_batch=False, opset=17)
    call = encode(profile_of(Task.TENSORS, onnx=graph), JSON, b'{"inputs": 2.5}')
    assert call.inputs["x"].tolist() == [2.5]
    assert call.answer([{"x": call.inputs["x"]}]) == {"x": 2.5}
    row = Tensor(name="x", datatype="FP32", dims=(-1,))
    graph = OnnxGraph(inputs=(row,), outputs=(row,), dynamic_batch=True, opset=17)
    call = encode(profile_of(Task.TENSORS, onnx=graph), JSON, b'{"inputs": [2.5, 3]}')
    assert call.inputs["x"].tolist() == [[2.5], [3.0]]
    answer = call.answer(call.chunks(1))
    assert isinstance(answer, dict)
    assert answer["x"].tolist() == [2.5, 3.0]


def test_a_graph_without_a_dynamic_batch_is_asked_whole() -> None:
    call = encode(
        graph(Tensor(name="x", datatype="FP32", dims=(2, 2)), dynamic_batch=False), JSON, b'{"inputs": [[1, 2], [3, 4]]}'
    )
    assert call.chunks(1) == [call.inputs]
