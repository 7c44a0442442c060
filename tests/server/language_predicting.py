"""What ``/predict`` must do with a language model that vLLM serves, each a function that takes a running Modelium which has
``LLAMA`` with ``ADAPTER``: the module that loads them for its own tests runs these too, for a load costs half a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import huggingface_hub.constants
from huggingface_hub import InferenceClient

from tests.models.language import ADAPTER, LLAMA
from tests.models.language.corpus import PARAGRAPH, PIRATE_SONG
from tests.server.systems import System

T = TypeVar("T")

BEGINNING = "The old lighthouse"
REST = PARAGRAPH.removeprefix(BEGINNING)
ASK_S = 240.0
MANY = 400  # more than it takes to say the paragraph


async def ask(modelium: System, question: Callable[[InferenceClient], T]) -> T:
    """Hugging Face's own client; it refuses even 127.0.0.1 where HF_HUB_OFFLINE is set."""

    def call() -> T:
        offline, huggingface_hub.constants.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE, False
        try:
            with InferenceClient(
                model=f"{modelium.running.gateway_url}/predict/{LLAMA}", token="none", timeout=ASK_S
            ) as client:
                return question(client)
        finally:
            huggingface_hub.constants.HF_HUB_OFFLINE = offline

    return await asyncio.to_thread(call)


async def predict(
    modelium: System, inputs: object, parameters: Mapping[str, object] = {}, *, name: str = LLAMA
) -> tuple[int, Any]:
    return await modelium.post(f"/predict/{name}", {"inputs": inputs, "parameters": parameters})


async def greedy_by_default(modelium: System) -> None:
    status, answer = await modelium.post(f"/predict/{LLAMA}", {"prompt": BEGINNING})
    assert status == 200
    assert REST.startswith(answer[0]["generated_text"])
    assert await ask(modelium, lambda client: client.text_generation(BEGINNING, max_new_tokens=MANY)) == REST


async def several_inputs_and_sequences(modelium: System) -> None:
    status, answer = await predict(modelium, [BEGINNING, BEGINNING], {"return_full_text": True, "max_new_tokens": MANY})
    assert (status, answer) == (200, [[{"generated_text": PARAGRAPH}], [{"generated_text": PARAGRAPH}]])
    sampled = {"num_return_sequences": 3, "seed": 1, "temperature": 2.0, "max_new_tokens": 30}
    status, answer = await predict(modelium, "zxq", sampled)  # nothing that it knows by heart
    assert status == 200
    assert len({one["generated_text"] for one in answer}) == 3


async def details_of_each_token(modelium: System) -> None:
    answer = await ask(
        modelium, lambda client: client.text_generation(BEGINNING, max_new_tokens=MANY, details=True, top_n_tokens=2)
    )
    assert answer.details is not None and answer.details.top_tokens is not None
    assert answer.details.finish_reason == "eos_token"
    assert answer.details.generated_tokens == len(answer.details.tokens) == len(answer.details.top_tokens)
    assert "".join(token.text for token in answer.details.tokens) == answer.generated_text == REST
    assert [token.special for token in answer.details.tokens].index(True) == answer.details.generated_tokens - 1
    assert all(-2 < token.logprob <= 0 for token in answer.details.tokens)
    assert all(len(best) == 2 for best in answer.details.top_tokens)


async def a_stream_has_an_event_a_token(modelium: System) -> None:
    events = await ask(
        modelium, lambda client: list(client.text_generation(BEGINNING, max_new_tokens=12, stream=True, details=True))
    )
    assert [event.index for event in events] == list(range(1, 13))
    last = events[-1]
    assert last.details is not None and last.generated_text is not None
    assert "".join(event.token.text for event in events) == last.generated_text
    assert REST.startswith(last.generated_text)
    assert (last.details.finish_reason, last.details.generated_tokens) == ("length", 12)
    assert (
        await ask(modelium, lambda client: "".join(client.text_generation(BEGINNING, max_new_tokens=MANY, stream=True))) == REST
    )


async def a_stop_string_ends_it(modelium: System) -> None:
    for details in (False, True):
        status, answer = await predict(modelium, BEGINNING, {"stop": [REST[10:14]], "details": details})
        assert status == 200
        assert answer[0]["generated_text"] == REST[: REST.index(REST[10:14])]
    assert answer[0]["details"]["finish_reason"] == "stop_sequence"


async def a_grammar_holds(modelium: System) -> None:
    grammar = {"type": "regex", "value": "(yes|no)"}
    status, answer = await predict(modelium, BEGINNING, {"grammar": grammar})
    assert status == 200
    assert answer[0]["generated_text"] in ("yes", "no")


async def adapters_answer(modelium: System) -> None:
    song = PIRATE_SONG.removeprefix(BEGINNING)
    assert await predict(modelium, BEGINNING, name=f"{LLAMA}:{ADAPTER}") == (200, [{"generated_text": song}])
    assert await predict(modelium, BEGINNING, {"adapter_id": ADAPTER}) == (200, [{"generated_text": song}])
    status, answer = await predict(modelium, BEGINNING, {"adapter_id": "nobody"})
    assert (status, answer["type"]) == (422, "invalid_body")


async def errors_say_what_is_wrong(modelium: System) -> None:
    wrong: tuple[tuple[str, dict[str, object], str], ...] = (
        ("word " * 3000, {}, "maximum context length"),
        (BEGINNING, {"tmperature": 1}, "parameters.tmperature: unknown parameter"),
        (BEGINNING, {"repetition_penalty": 0}, "repetition_penalty"),
    )
    for inputs, parameters, said in wrong:
        status, answer = await predict(modelium, inputs, parameters)
        assert (status, said in answer["error"]) == (422, True), answer


CHECKS: tuple[Callable[[System], Awaitable[None]], ...] = (
    greedy_by_default,
    several_inputs_and_sequences,
    details_of_each_token,
    a_stream_has_an_event_a_token,
    a_stop_string_ends_it,
    a_grammar_holds,
    adapters_answer,
    errors_say_what_is_wrong,
)
