"""Hugging Face's words for text generation by vLLM: the body of a request enters, ``GenerationRequest``s leave.

The names are those of text-generation-inference, so ``huggingface_hub.InferenceClient`` works unchanged; their meaning is that
of the python runtime here, so a model that moves from one to the other answers alike: greedy unless ``do_sample`` or a
parameter that only sampling has asks for more; 128 new tokens unless the request or the folder's generation_config.json says
otherwise; the folder's own temperature, top_p and top_k where sampling is asked for without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelium.errors import InvalidBody
from modelium.gateway.codecs import Body
from modelium.gateway.codecs.fields import (
    SHAPE_DEPTH,
    SHAPE_SIZE,
    excess,
    items_of,
    mapping,
    nearest,
    shown,
    string,
    text_of,
    text_with_images,
)
from modelium.gateway.codecs.parameters import check_value
from modelium.gateway.generation.seeds import nth_seed
from modelium.gateway.generation.values import MOST_GENERATIONS, GenerationRequest
from modelium.values import JsonValue, ModelProfile
from modelium.values.parameters import COUNT, FLAG, NATURAL, NON_NEGATIVE, SEED, SEQUENCES, TEXT, UNIT, Kind, Rule

NEW_TOKENS = 128  # the python runtime's own number
_PENALTY = Rule(kind=Kind.REAL, low=-2, high=2)
_RULES: Mapping[str, Rule] = {
    "max_new_tokens": COUNT,
    "min_new_tokens": NATURAL,
    "do_sample": FLAG,
    "temperature": NON_NEGATIVE,
    "top_k": NATURAL,
    "top_p": UNIT,
    "min_p": UNIT,
    "repetition_penalty": NON_NEGATIVE,
    "frequency_penalty": _PENALTY,
    "presence_penalty": _PENALTY,
    "seed": SEED,
    "stop": Rule(kind=Kind.STOP),
    "ignore_eos": FLAG,
    "num_return_sequences": SEQUENCES,
    "return_full_text": FLAG,
    "details": FLAG,
    "top_n_tokens": Rule(kind=Kind.WHOLE, low=0, high=20),  # vLLM's own limit
    "adapter_id": TEXT,
}
# In Hugging Face's schema or the python runtime's, but vLLM behind Triton cannot do it; fine when they ask for nothing.
_ELSEWHERE = frozenset({"best_of", "decoder_input_details", "num_beams", "truncate", "typical_p", "watermark"})
_SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInput:
    """One prompt with its images as base64."""

    prompt: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCall:
    """A body for a generator of text. ``parameters`` are as they were sent: which there are depends on the runtime."""

    inputs: tuple[TextInput, ...]
    listed: bool
    stream: bool
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Checked parameters for vLLM: its own sampling words, and what shapes the answer."""

    sampling: Mapping[str, JsonValue] = field(default_factory=dict)
    samples: bool = False
    count: int = 1
    adapter: str = ""
    full_text: bool = False
    details: bool = False
    top_tokens: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()


def text_call(body: Body) -> TextCall:
    """What ``body`` asks of a generator of text, but for the parameters. Raises ``InvalidBody``."""
    inputs, called = body.inputs, body.called
    if inputs == []:
        raise InvalidBody("the list is empty; send at least one string", field=called)
    if isinstance(inputs, list):
        texts = tuple(_text_input(item, f"{called}[{index}]") for index, item in enumerate(items_of(inputs, called)))
    else:
        texts = (_text_input(inputs, called),)
    if body.stream and len(texts) > 1:
        raise InvalidBody(f"a stream takes one text, found {len(texts)}", field=called)
    return TextCall(inputs=texts, listed=isinstance(inputs, list), stream=body.stream, parameters=body.parameters)


def _text_input(value: object, path: str) -> TextInput:
    if not isinstance(value, dict):
        return TextInput(prompt=text_of(value, path))
    prompt, images = text_with_images(value, path)
    return TextInput(prompt=prompt, images=tuple(images))


def options_for(call: TextCall) -> Options:
    """The parameters of ``call`` for vLLM. Raises ``InvalidBody``, also when they ask for too many generations."""
    options = options_of(call.parameters)
    wanted = len(call.inputs) * options.count
    if wanted > MOST_GENERATIONS:
        name = "inputs" if options.count == 1 else "parameters.num_return_sequences"
        raise InvalidBody(f"one request makes at most {MOST_GENERATIONS} generations, found {wanted}; send several", field=name)
    return options


def options_of(parameters: Mapping[str, object]) -> Options:
    """The parameters for vLLM. Raises ``InvalidBody`` that names the first wrong one."""
    sent: dict[str, JsonValue] = {}
    unable: dict[str, object] = {}
    grammar: dict[str, JsonValue] | None = None
    for name, value in parameters.items():
        path = f"parameters.{shown(name)}"
        if value is None:
            continue
        if name == "grammar":
            grammar = _grammar(value, path)
        elif name in _RULES:
            sent[name] = check_value(_RULES[name], value, path)  # type: ignore[assignment]  # what JSON held stays JSON
        elif name not in _ELSEWHERE:
            raise InvalidBody(f"unknown parameter of text-generation{nearest(name, sorted(_RULES))}", field=path)
        elif value is not False and (isinstance(value, bool) or value != 1):
            unable[name] = value
    samples = _samples(sent)
    for name, value in unable.items():
        if name != "typical_p" or samples:
            raise InvalidBody("is supported neither by vLLM nor in a stream; leave it out", field=f"parameters.{name}")
        check_value(UNIT, value, f"parameters.{name}")  # a greedy answer is the same with any: langchain always sends one
    count, seed, top_tokens, stop = (sent.get(name) for name in ("num_return_sequences", "seed", "top_n_tokens", "stop"))
    if isinstance(count, int) and count > 1 and not samples:
        raise InvalidBody(
            "above 1 needs do_sample, for greedy answers are all the same", field="parameters.num_return_sequences"
        )
    return Options(
        sampling=_in_vllms_words(sent, grammar, samples=samples),
        samples=samples,
        count=count if isinstance(count, int) else 1,
        adapter=str(sent.get("adapter_id", "")),
        full_text=bool(sent.get("return_full_text")),
        details=bool(sent.get("details")),
        top_tokens=top_tokens if isinstance(top_tokens, int) else 0,
        seed=seed if isinstance(seed, int) else None,
        stop=tuple(str(word) for word in stop) if isinstance(stop, list) else (),
    )


def _in_vllms_words(
    sent: Mapping[str, JsonValue], grammar: dict[str, JsonValue] | None, *, samples: bool
) -> dict[str, JsonValue]:
    sampling: dict[str, JsonValue] = {} if samples else {"temperature": 0}
    for name in _SAMPLING_ONLY if samples else ():
        if name in sent and not (name == "top_k" and sent[name] == 0):
            sampling[name] = sent[name]
    for name in ("repetition_penalty", "frequency_penalty", "presence_penalty", "seed", "stop", "ignore_eos"):
        if name in sent:
            sampling[name] = sent[name]
    for ours, theirs in (("max_new_tokens", "max_tokens"), ("min_new_tokens", "min_tokens"), ("top_n_tokens", "logprobs")):
        if ours in sent:
            sampling[theirs] = sent[ours]
    if grammar is not None:
        sampling["structured_outputs"] = grammar
    return sampling


def _samples(sent: Mapping[str, JsonValue]) -> bool:
    """As the python runtime: asked for in words (do_sample), or by a parameter that only sampling has."""
    if "do_sample" in sent:
        return bool(sent["do_sample"])
    return sent.get("temperature") != 0 and any(name in sent for name in _SAMPLING_ONLY)


def _grammar(value: object, path: str) -> dict[str, JsonValue]:
    sent = mapping(value, path, ("type", "value"))
    if said := excess(value, size=SHAPE_SIZE, depth=SHAPE_DEPTH):
        raise InvalidBody(said, field=path)
    match sent["type"]:
        case "json":
            return {"json": sent["value"]}  # type: ignore[dict-item]  # a JSON schema, vLLM's to judge
        case "json_schema" if isinstance(sent["value"], dict) and "schema" in sent["value"]:
            return {"json": sent["value"]["schema"]}
        case "regex":
            return {"regex": string(sent["value"], f"{path}.value")}
        case other:
            raise InvalidBody(f"{shown(other)!r} is not one of json, json_schema, regex", field=f"{path}.type")


def request_of(
    source: TextInput, options: Options, profile: ModelProfile, *, adapter: str = "", sequence: int = 0, tokens: bool = False
) -> GenerationRequest:
    """One generation. ``sequence`` numbers several for one input; ``tokens``: the answer shows each token."""
    language = profile.language
    defaults: Mapping[str, JsonValue] = language.generation_defaults if language is not None else {}
    sampling = dict(options.sampling)
    if "max_tokens" not in sampling:
        sampling["max_tokens"] = defaults.get("max_new_tokens") or NEW_TOKENS
    for name in (*(_SAMPLING_ONLY if options.samples else ()), "repetition_penalty"):
        if name not in sampling and defaults.get(name) is not None:
            sampling[name] = defaults[name]
    if sequence and options.seed is not None:
        sampling["seed"] = nth_seed(options.seed, sequence)
    return GenerationRequest(
        prompt=source.prompt, sampling=sampling, images=source.images, adapter=options.adapter or adapter, logprobs=tokens
    )
