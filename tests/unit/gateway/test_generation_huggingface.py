"""``/predict`` for texts that vLLM continues: Hugging Face's words in, its shapes out, and its own client unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import TextGenerationError, ValidationError
from hypothesis import given
from hypothesis import strategies as st

from modelium.errors import InferenceFailed, InvalidBody
from modelium.gateway.generation.huggingface import TextInput, options_of, request_of
from modelium.values import Adapter, LanguageModel, ModelProfile, Task
from tests.patience import PATIENCE_S

from .stand_in import Served, Step, Tensors, profile_of, response, text_asked

T = TypeVar("T")
PIRATE = Adapter(name="pirate", path=Path("pirate"), rank=8)


def llama(*, defaults: dict[str, Any] | None = None, task: Task = Task.TEXT_GENERATION) -> ModelProfile:
    language = LanguageModel(
        layers=2, hidden_size=8, heads=2, kv_heads=2, head_size=4, vocabulary=100, groups=(),
        generation_defaults=defaults or {}, adapters=(PIRATE,),
    )  # fmt: skip
    return replace(profile_of(task, "llama"), is_llm=True, language=language)


def token(text: str, token_id: int = 7, logprob: float = -0.5) -> dict[str, dict[str, Any]]:
    return {str(token_id): {"logprob": logprob, "rank": 1, "decoded_token": text}}


def hello(inputs: Tensors) -> Iterator[Step]:
    yield response("Hel", logprobs=[token("Hel", 5, -0.25)] if "return_logprobs" in inputs else None)
    yield response("lo", logprobs=[token("lo", 6, -0.5)] if "return_logprobs" in inputs else None)
    yield response("", "stop", logprobs=[token("</s>", 2, -0.75)] if "return_logprobs" in inputs else None)


async def ask(url: str, question: Callable[[InferenceClient], T]) -> T:
    def call() -> T:
        with InferenceClient(model=url, token="none", timeout=PATIENCE_S) as client:
            return question(client)

    return await asyncio.to_thread(call)


async def post(gateway: Served, url: str, body: object) -> tuple[int, Any]:
    async with gateway.http.post(url, json=body) as answer:
        return answer.status, await answer.json()


def sampling_of(gateway: Served, place: int = -1) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(gateway.triton.seen[place]["sampling_parameters"][0])
    return parsed


async def test_the_client_gets_text(gateway: Served) -> None:
    url = gateway.serve_vllm(llama(), hello)
    assert await ask(url, lambda client: client.text_generation("Once", max_new_tokens=5)) == "Hello"
    (inputs,) = gateway.triton.seen
    assert inputs["text_input"].tolist() == [b"Once"]
    assert {name for name, array in inputs.items() if array.dtype == bool and array.all()} == {
        "stream", "exclude_input_in_output", "return_finish_reason", "return_num_input_tokens", "return_num_output_tokens",
    }  # fmt: skip
    assert sampling_of(gateway) == {"temperature": 0, "max_tokens": 5}


async def test_the_client_gets_details(gateway: Served) -> None:
    url = gateway.serve_vllm(llama(), hello)
    answer = await ask(url, lambda client: client.text_generation("Once", details=True, seed=4, return_full_text=True))
    assert answer.generated_text == "OnceHello"
    assert answer.details is not None
    assert (answer.details.finish_reason, answer.details.generated_tokens, answer.details.seed) == ("eos_token", 3, 4)
    assert [(one.id, one.text, one.logprob, one.special) for one in answer.details.tokens] == [
        (5, "Hel", -0.25, False),
        (6, "lo", -0.5, False),
        (2, "", -0.75, True),
    ]
    assert sampling_of(gateway)["logprobs"] == 0


async def test_the_client_streams(gateway: Served) -> None:
    url = gateway.serve_vllm(llama(), hello)
    assert await ask(url, lambda client: list(client.text_generation("Once", stream=True))) == ["Hel", "lo", ""]
    events = await ask(url, lambda client: list(client.text_generation("Once", stream=True, details=True)))
    assert [event.index for event in events] == [1, 2, 3]
    assert [(event.token.id, event.token.text) for event in events] == [(5, "Hel"), (6, "lo"), (2, "")]
    assert [event.generated_text for event in events] == [None, None, "Hello"]
    assert events[-1].details is not None
    assert (events[-1].details.finish_reason, events[-1].details.generated_tokens) == ("eos_token", 3)
    assert events[-1].details.input_length == 3


async def test_an_error_in_a_stream_is_the_clients_own(gateway: Served) -> None:
    url = gateway.serve_vllm(llama(), lambda inputs: [response("Hel"), InferenceFailed("it went wrong")])
    with pytest.raises(ValidationError, match="it went wrong"):
        await ask(url, lambda client: list(client.text_generation("Once", stream=True)))
    assert issubclass(ValidationError, TextGenerationError)


@pytest.mark.parametrize(
    ("said", "stop", "reason"),
    [
        ([("Hello", None), ("", "stop")], ["END"], "eos_token"),
        ([("Hello", None), (" END", "stop")], ["END"], "stop_sequence"),
        ([("Hello", "length")], ["END"], "length"),
        ([("Hello", None), ("", "stop")], None, "eos_token"),
    ],
)
async def test_a_stop_string_is_told_from_the_end_token(
    gateway: Served, said: Sequence[tuple[str, str | None]], stop: list[str] | None, reason: str
) -> None:
    """vLLM says "stop" for both, and cuts the stop string off the text but not off the tokens."""
    steps = [response(text.partition(" END")[0], end, logprobs=[token(text)]) for text, end in said]
    url = gateway.serve_vllm(llama(), lambda inputs: steps)
    answer = await ask(url, lambda client: client.text_generation("Once", details=True, stop=stop))
    assert answer.details is not None
    assert (answer.generated_text, answer.details.finish_reason) == ("Hello", reason)


async def test_several_tokens_in_one_piece_are_several_events(gateway: Served) -> None:
    def steps(inputs: Tensors) -> Iterator[Step]:
        yield response("One two", tokens=2, logprobs=[token("One"), token(" two")])
        yield response("é", "length", tokens=2, logprobs=[token("Ã"), token("©")])  # bytes of one letter

    url = gateway.serve_vllm(llama(), steps)
    events = await ask(url, lambda client: list(client.text_generation("x", stream=True, details=True)))
    assert [event.token.text for event in events] == ["One", " two", "", "é"]
    assert events[-1].generated_text == "One twoé"


async def test_several_inputs_are_generated_side_by_side_and_keep_their_order(gateway: Served) -> None:
    first_may_end = asyncio.Event()

    def steps(inputs: Tensors) -> Iterator[Step]:
        if inputs["text_input"][0] == b"first":
            yield first_may_end
        else:
            first_may_end.set()
        yield response(inputs["text_input"][0].decode().upper(), "length")

    url = gateway.serve_vllm(llama(), steps)
    answer = await post(gateway, url, {"inputs": ["first", "second"]})
    assert answer == (200, [[{"generated_text": "FIRST"}], [{"generated_text": "SECOND"}]])
    assert gateway.controller.held == 0


async def test_several_sequences_of_one_input_have_seeds_of_their_own(gateway: Served) -> None:
    url = gateway.serve_vllm(llama(), hello)
    parameters = {"num_return_sequences": 2, "do_sample": True, "seed": 10}
    _, answer = await post(gateway, url, {"prompt": "Once", "parameters": parameters})
    assert answer == [{"generated_text": "Hello"}, {"generated_text": "Hello"}]
    assert sorted(sampling_of(gateway, place)["seed"] for place in (0, 1)) == [10, 11]


async def test_adapters_by_name_and_by_parameter(gateway: Served) -> None:
    url = gateway.serve_vllm(llama(), hello, adapters=[PIRATE])
    assert (await post(gateway, f"{url}:pirate", {"inputs": "Once"}))[0] == 200
    assert sampling_of(gateway)["lora_name"] == "pirate"
    assert (await post(gateway, url, {"inputs": "Once", "parameters": {"adapter_id": "pirate"}}))[0] == 200
    assert sampling_of(gateway)["lora_name"] == "pirate"
    assert (await post(gateway, f"{url}:parrot", {"inputs": "Once"}))[0] == 404
    status, answer = await post(gateway, url, {"inputs": "Once", "parameters": {"adapter_id": "parrot"}})
    assert (status, answer["error"]) == (422, "parameters.adapter_id: 'llama' has no adapter 'parrot'; it has pirate")


async def test_the_python_runtime_has_no_adapters(gateway: Served) -> None:
    url = gateway.serve(llama())
    status, answer = await post(gateway, f"{url}:pirate", {"inputs": "Once"})
    assert (status, answer["error"]) == (422, "'llama' is served by python, which has no LoRA adapters")


async def test_images_go_to_vllm(gateway: Served) -> None:
    url = gateway.serve_vllm(llama(task=Task.IMAGE_TEXT_TO_TEXT), hello)
    inputs = {"text": "<image> What is it?", "image": "data:image/png;base64,AAAA"}
    assert (await post(gateway, url, {"inputs": inputs})) == (200, [{"generated_text": "Hello"}])
    assert gateway.triton.seen[-1]["image"].tolist() == [b"AAAA"]
    assert (await post(gateway, url, {"inputs": {"text": "<image><image>", "images": ["AAAA", "AAAB"]}}))[0] == 200
    assert gateway.triton.seen[-1]["image"].tolist() == [b"AAAA", b"AAAB"]


@pytest.mark.parametrize(
    ("parameters", "defaults", "sampling"),
    [
        ({}, {}, {"temperature": 0, "max_tokens": 128}),
        ({}, {"max_new_tokens": 40, "temperature": 0.6, "top_p": 0.9}, {"temperature": 0, "max_tokens": 40}),
        ({"do_sample": True}, {"temperature": 0.6, "top_p": 0.9}, {"temperature": 0.6, "top_p": 0.9, "max_tokens": 128}),
        ({"top_p": 0.5}, {}, {"top_p": 0.5, "max_tokens": 128}),
        ({"temperature": 0.7, "do_sample": False}, {}, {"temperature": 0, "max_tokens": 128}),
        ({"temperature": 0, "top_k": 5}, {}, {"temperature": 0, "max_tokens": 128}),
        ({"temperature": 2, "top_k": 0, "min_p": 0.1}, {}, {"temperature": 2, "min_p": 0.1, "max_tokens": 128}),
        ({"repetition_penalty": 1.2, "stop": "x", "min_new_tokens": 2, "ignore_eos": True}, {},
         {"temperature": 0, "repetition_penalty": 1.2, "stop": ["x"], "min_tokens": 2, "ignore_eos": True, "max_tokens": 128}),
        ({"grammar": {"type": "json", "value": {"type": "object"}}}, {},
         {"temperature": 0, "structured_outputs": {"json": {"type": "object"}}, "max_tokens": 128}),
        ({"grammar": {"type": "regex", "value": "a+"}}, {},
         {"temperature": 0, "structured_outputs": {"regex": "a+"}, "max_tokens": 128}),
        ({"best_of": 1, "watermark": False, "truncate": None, "typical_p": 1.0}, {}, {"temperature": 0, "max_tokens": 128}),
        ({"typical_p": 0.95, "temperature": 0.8, "do_sample": False}, {}, {"temperature": 0, "max_tokens": 128}),
    ],
)  # fmt: skip
def test_parameters_mean_what_they_mean_to_the_python_runtime(
    parameters: dict[str, object], defaults: dict[str, Any], sampling: dict[str, object]
) -> None:
    made = request_of(TextInput(prompt="x"), options_of(parameters), llama(defaults=defaults))
    assert made.sampling == sampling


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"max_new_tokens": 0}, "parameters.max_new_tokens: must be at least 1, found 0"),
        ({"max_tokens": 5}, "parameters.max_tokens: unknown parameter of text-generation; did you mean 'max_new_tokens'?"),
        ({"watermark": True}, "parameters.watermark: is supported neither by vLLM nor in a stream; leave it out"),
        ({"typical_p": 0.5, "do_sample": True}, "parameters.typical_p: is supported neither by vLLM nor in a stream"),
        ({"typical_p": 2}, "parameters.typical_p: must be"),
        ({"best_of": 2}, "parameters.best_of: is supported neither by vLLM nor in a stream; leave it out"),
        ({"decoder_input_details": True}, "parameters.decoder_input_details: is supported neither"),
        ({"num_return_sequences": 2}, "parameters.num_return_sequences: above 1 needs do_sample"),
        ({"grammar": {"type": "yaml", "value": ""}}, "parameters.grammar.type: 'yaml' is not one of json, json_schema, regex"),
        ({"stop": [1]}, "parameters.stop[0]: expected a string, found 1"),
    ],
)
def test_what_cannot_be_honoured_is_named(parameters: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidBody) as raised:
        options_of(parameters)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "inputs: is missing"),
        ({"inputs": "x", "prompt": "x"}, "prompt: is another word for inputs"),
        ({"inputs": ["a", "b"], "stream": True}, "inputs: a stream takes one text, found 2"),
        ({"inputs": []}, "inputs: the list is empty"),
        ({"inputs": ["a", 3]}, "inputs[1]: expected a string, found 3"),
        ({"prompt": 3}, "prompt: expected a string, found 3"),
        ({"inputs": "x", "stream": "yes"}, "stream: expected true or false"),
        ({"inputs": "x", "max_new_tokens": 5}, "max_new_tokens: unknown field"),
        ({"inputs": {"text": "x", "image": "http://x"}}, "inputs.image: is a URL"),
        ({"inputs": {"text": "x", "images": ["AAAA", "?"]}}, "inputs.images[1]: is not base64"),
        ({"inputs": {"text": "x", "image": "AAAA", "images": ["AAAA"]}}, "inputs.images: is another word for image"),
        ({"inputs": {}}, "inputs.text: is missing"),
    ],
)
def test_bodies_that_do_not_fit_are_told_why(body: object, said: str) -> None:
    with pytest.raises(InvalidBody) as raised:
        text_asked(body)
    assert str(raised.value).startswith(said)


async def test_a_body_that_fits_no_runtime_loads_no_model(gateway: Served) -> None:
    url = gateway.serve_vllm(llama(), hello)
    gateway.controller.models["llama"] = replace(gateway.controller.models["llama"], placement=None)
    gateway.controller.refuse = AssertionError("a lease was taken")
    assert (await post(gateway, url, {"inputs": "x", "parameters": {"tmperature": 1}}))[0] == 422
    assert (await post(gateway, url, {"inputs": "x", "stream": True, "parameters": {"tmperature": 1}}))[0] == 422


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "image", "type", "value"]), inner),
    max_leaves=4,
)
names = st.sampled_from(
    ["temperature", "top_k", "stop", "grammar", "details", "seed", "num_return_sequences", "best_of", "what"]
)


@given(inputs=json_values, parameters=st.dictionaries(names, json_values), stream=json_values)
def test_no_body_breaks_anything(inputs: object, parameters: dict[str, object], stream: object) -> None:
    try:
        call = text_asked({"inputs": inputs, "parameters": parameters, "stream": stream})
        options = options_of(call.parameters)
    except InvalidBody:
        return
    assert [request_of(source, options, llama()).prompt for source in call.inputs]
