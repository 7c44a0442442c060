"""What goes to each runtime and what comes back: the stock vLLM backend's habits, and the python runtime's words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from modelium.errors import InvalidBody, TritonError
from modelium.gateway.generation import GenerationRequest, Piece, python_runtime, vllm_runtime
from modelium.gateway.generation.values import TokenLogprob
from modelium.signatures import VLLM
from modelium.values import Task

from .stand_in import engine_of, numbers, profile_of, response, texts

LLAMA = profile_of(Task.TEXT_GENERATION, "llama")


def sampling_sent(request: GenerationRequest) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(vllm_runtime.tensors_of(request, engine_of())["sampling_parameters"][0])
    return parsed


def test_the_inputs_are_those_of_the_contract() -> None:
    request = GenerationRequest(prompt="x", images=("AAAA", "BBBB"), adapter="pirate", logprobs=True)
    inputs = vllm_runtime.tensors_of(request, engine_of())
    contract = {tensor.name: tensor for tensor in VLLM.inputs}
    assert inputs.keys() <= contract.keys()
    for name, array in inputs.items():
        assert contract[name].dims in ((-1,), array.shape)
        assert (contract[name].datatype == "BOOL") == (array.dtype == bool)


def test_the_stock_backend_needs_to_be_told_how_many_tokens() -> None:
    assert sampling_sent(GenerationRequest(prompt="x"))["max_tokens"] == 512  # max_model_len
    assert sampling_sent(GenerationRequest(prompt="x", sampling={"max_tokens": 3}))["max_tokens"] == 3


def test_structured_outputs_are_json_inside_json() -> None:
    sent = sampling_sent(GenerationRequest(prompt="x", sampling={"structured_outputs": {"regex": "a+"}}))
    assert json.loads(sent["structured_outputs"]) == {"regex": "a+"}


def read(outputs: Any, *, logprobs: int | None = None) -> Piece:
    sampling = {} if logprobs is None else {"logprobs": logprobs}
    return vllm_runtime.PieceReader(GenerationRequest(prompt="x", sampling=sampling)).pieces(outputs)[0]


@pytest.mark.parametrize(("reason", "finish"), [("None", None), ("", None), ("stop", "stop"), ("length", "length")])
def test_a_finish_reason_that_is_none(reason: str, finish: str | None) -> None:
    assert read(response("a", reason)).finish_reason == finish


def test_a_backend_without_counts() -> None:
    assert read({"text_output": texts(["a"])[0]}) == Piece(text="a", output_tokens=1)
    assert read({"text_output": texts([""])[0]}) == Piece(text="", output_tokens=0)
    scalar = {"text_output": texts(["a"])[0], "num_input_tokens": np.array(5, dtype=np.uint32)}
    assert read(scalar).prompt_tokens == 5


def test_the_token_that_was_taken_comes_first_and_its_alternatives_by_rank() -> None:
    taken = {"logprob": -3.0, "rank": 9, "decoded_token": "c"}
    best = {"logprob": -0.25, "rank": 1, "decoded_token": "a"}
    second = {"logprob": -1.0, "rank": 2, "decoded_token": None}
    outputs = response("c", logprobs=[{"3": taken, "2": second, "1": best}])
    best_two = (("a", -0.25), ("", -1.0))
    expected = TokenLogprob(token="c", token_id=3, logprob=-3.0, alternatives=best_two, alternative_ids=(1, 2))
    assert read(outputs, logprobs=2).logprobs == (expected,)
    assert read(outputs, logprobs=0).logprobs == (TokenLogprob(token="c", token_id=3, logprob=-3.0),)


def test_an_impossible_token_has_minus_infinity() -> None:
    outputs = response("c", logprobs=[{"3": {"logprob": float("-inf"), "rank": 9, "decoded_token": "c"}}])
    assert read(outputs, logprobs=0).logprobs[0].logprob == float("-inf")


@pytest.mark.parametrize("raw", ["null", ""])
def test_no_logprobs_at_all(raw: str) -> None:
    assert read({**response("a"), "logprobs": texts([raw])[0]}).logprobs == ()


def test_half_a_letter_is_shown_as_such() -> None:
    array = np.empty(1, dtype=np.object_)
    array[0] = b"\xc3"
    assert read({"text_output": array}).text == "\ufffd"


@pytest.mark.parametrize("outputs", [{}, {"text_output": numbers([])}, {**response("a"), "logprobs": texts(['[{"x": 1}]'])[0]}])
def test_what_is_not_the_contract_is_tritons_fault(outputs: Any) -> None:
    with pytest.raises(TritonError, match="contract"):
        read(outputs)


@pytest.mark.parametrize(
    ("sampling", "parameters"),
    [
        ({}, {"do_sample": True}),  # vLLM's own default
        ({"temperature": 0, "top_p": 0.5, "top_k": 5, "max_tokens": 3}, {"do_sample": False, "max_new_tokens": 3}),
        ({"temperature": 0.5, "top_p": 0.5, "top_k": -1}, {"do_sample": True, "temperature": 0.5, "top_p": 0.5}),
        ({"stop": "x", "seed": 3, "repetition_penalty": 1.1},
         {"do_sample": True, "stop": ["x"], "seed": 3, "repetition_penalty": 1.1}),
        ({"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": None, "min_p": 0, "ignore_eos": False},
         {"do_sample": True}),
    ],
)  # fmt: skip
def test_the_python_runtime_gets_its_own_words(sampling: Any, parameters: Any) -> None:
    inputs = python_runtime.tensors_of(GenerationRequest(prompt="x", sampling=sampling), LLAMA)
    assert {name: array.shape for name, array in inputs.items()} == {"TEXT": (1, 1), "PARAMETERS": (1, 1)}
    assert json.loads(inputs["PARAMETERS"][0, 0]) == parameters


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (GenerationRequest(prompt="x", sampling={"frequency_penalty": 0.5}), "frequency_penalty: "),
        (GenerationRequest(prompt="x", sampling={"structured_outputs": {"json": {}}}), "structured_outputs: "),
        (GenerationRequest(prompt="x", logprobs=True), "logprobs: "),
        (GenerationRequest(prompt="x", adapter="pirate"), "model: "),
        (GenerationRequest(prompt="x", images=("AAAA",)), "image: 'llama' takes no images, found 1"),
    ],
)
def test_what_the_python_runtime_cannot_do_is_named(request_: GenerationRequest, named: str) -> None:
    with pytest.raises(InvalidBody) as raised:
        python_runtime.tensors_of(request_, LLAMA)
    assert str(raised.value).startswith(named)


def test_images_go_to_the_python_runtime_as_bytes() -> None:
    profile = profile_of(Task.IMAGE_TEXT_TO_TEXT, "llava")
    inputs = python_runtime.tensors_of(GenerationRequest(prompt="x", images=("AAAA", "AAAB")), profile)
    assert inputs["IMAGE"].tolist() == [[b"\0\0\0", b"\0\0\1"]]
