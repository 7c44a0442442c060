"""Bodies of ``/v1`` requests: JSON enters, checked requests leave; what does not fit is refused with the field's name.

Five kinds of fields. Those that are honoured are declared here; some have another server's name (``ALSO``). Those that OpenAI's
clients send and that change nothing about the answer of a local model are ignored (``IGNORED``). Those that would change it and
cannot be honoured are refused in words of their own (``UNAVAILABLE``). A name that is nearly a right one is a typing error and
refused with that, as OpenAI does. Any other is some server's own and left out; the answer's header says so.
"""

from __future__ import annotations

import difflib
import reprlib
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PrivateAttr, ValidationError, field_validator

from modelium.errors import InvalidBody
from modelium.gateway.codecs.fields import decoded, nearest, plain_base64, shown
from modelium.gateway.codecs.json_text import load_json
from modelium.gateway.generation.seeds import LAST_SEED
from modelium.gateway.openai.errors import Refused
from modelium.gateway.openai.fields import Arguments, Few, Ids, Many, Shape, Text, Texts

IGNORED = frozenset(
    {
        "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "prompt_cache_options", "prediction", "verbosity", "moderation", "priority", "request_id",
    }
)  # fmt: skip

# What other servers call it: llama.cpp, Ollama, text-generation-inference.
ALSO = {
    "repeat_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
}
_UNLIMITED = frozenset({"n_predict", "num_predict"})  # below 0 they ask for no limit: that is to leave the field out
_NEARLY = 0.85  # of difflib: temprature is, typical_p (of top_p) is not
_MOST_NAMED = 20
_MOST_FIELDS = 128

UNAVAILABLE = {
    "functions": "the older form of `tools`; send those",
    "function_call": "the older form of `tool_choice`; send that",
    "audio": "no model here speaks",
    "web_search_options": "there is no web search here",
    "suffix": "text cannot be inserted before a suffix here; put the model's own fill-in-the-middle tokens into the prompt",
    "chat_template": "a request cannot bring its own template; put it into the model's folder as chat_template.jinja",
    "best_of": "sampling several answers and keeping the best is not offered; send `n` and choose",
    "use_beam_search": "beam search is not offered",
    "prompt_logprobs": "log probabilities of the prompt are not offered",
    "truncate_prompt_tokens": "prompts are not cut; shorten the prompt",
}

MOST_NAME_CHARACTERS = 512

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Seed = Annotated[int, Field(ge=-(2**63), le=LAST_SEED)]
Object = dict[str, JsonValue]


class Part(BaseModel):
    """A piece of a message: text or an image. The rest is known by name, so that it can be refused by name."""

    model_config = ConfigDict(extra="allow")
    type: str
    text: Text | None = None
    refusal: Text | None = None
    image_url: Object | str | None = None

    @field_validator("image_url")
    @classmethod
    def _plain(cls, sent: Object | str | None) -> Object | str | None:
        """The base64 of a data: URL as every decoder takes it; whether this URL may be sent at all is said elsewhere."""
        url = sent.get("url") if isinstance(sent, dict) else sent
        if not isinstance(url, str) or not url.startswith("data:") or "," not in url:
            return sent
        head, _, data = url.partition(",")
        plain = f"{head},{plain_base64(data)}"
        if data:
            try:
                decoded(plain, "image_url")
            except InvalidBody as error:
                raise ValueError(str(error)) from None
        return {**sent, "url": plain} if isinstance(sent, dict) else plain


class FunctionCall(BaseModel):
    name: str
    arguments: Annotated[str | Object, Arguments] = ""


class ToolCall(BaseModel):
    id: str = ""
    type: str = "function"
    function: FunctionCall


class Message(BaseModel):
    """Of a conversation. What clients send back with an assistant's message besides these (``refusal`` …) is ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Many[Part] | None = None
    name: str | None = None
    tool_calls: Many[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: Text | None = None


class Function(BaseModel):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class Tool(BaseModel):
    type: Literal["function"]
    function: Function


class _FunctionName(BaseModel):
    name: str


class NamedTool(BaseModel):
    type: Literal["function"] = "function"
    function: _FunctionName


class _AllowedTools(BaseModel):
    mode: Literal["auto", "required"]
    tools: Many[NamedTool]


class AllowedTools(BaseModel):
    """Some of the tools only; the others stay known to the client."""

    type: Literal["allowed_tools"]
    allowed_tools: _AllowedTools


class JsonSchema(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    name: str = "answer"
    schema_: Annotated[Object, Shape, Field(alias="schema", default_factory=dict)]
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False
    include_obfuscation: bool = False


class StructuredOutputs(BaseModel):
    """vLLM's way to say what the text must look like; exactly one of them."""

    model_config = ConfigDict(extra="forbid")
    json_: Annotated[Object | str | None, Field(alias="json")] = None
    regex: str | None = None
    choice: Many[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool | None = None


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    model: Annotated[str, Field(min_length=1, max_length=MOST_NAME_CHARACTERS)]
    _ignored: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names in the body that mean nothing here."""
        return self._ignored

    def leave_out(self, names: tuple[str, ...]) -> None:
        self._ignored = names


class Generating(_Request):
    """What chats and completions have in common: sampling and streaming. None: not sent."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: str | Many[str] | None = None
    seed: Seed | None = None
    max_tokens: Count | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, float], Few] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    # vLLM's own, which clients send through `extra_body`
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    stop_token_ids: Ids | None = None
    bad_words: Many[str] | None = None
    allowed_token_ids: Ids | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Natural | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    structured_outputs: Annotated[StructuredOutputs, Shape] | None = None
    guided_json: Annotated[Object | str, Shape] | None = None
    guided_regex: Annotated[str, Shape] | None = None
    guided_choice: Annotated[Many[str], Shape] | None = None
    guided_grammar: Annotated[str, Shape] | None = None

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Generating):
    messages: Annotated[Many[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[Many[Tool], Arguments] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    modalities: Many[Literal["text"]] | None = None
    reasoning_effort: str | None = None
    # for the chat template, in transformers' words
    documents: Annotated[Many[Object], Arguments] | None = None
    chat_template_kwargs: Annotated[Object, Arguments] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False


class CompletionRequest(Generating):
    prompt: Texts
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class EmbeddingRequest(_Request):
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    encoding: Literal["model"] | None = None  # token ids are of the model's own tokenizer


R = TypeVar("R", bound=_Request)


def parse(kind: type[R], data: bytes) -> R:
    """Raises ``Refused`` with the first field that does not fit."""
    body = load_json(data)
    if not isinstance(body, dict):
        raise Refused(f"the body must be a JSON object, found {type(body).__name__}")
    for theirs, ours in ALSO.items():
        if theirs in _UNLIMITED and isinstance(body.get(theirs), int) and body[theirs] < 0:
            continue
        if theirs in body and ours in kind.model_fields and body.get(ours) is None:
            body[ours] = body.pop(theirs)
    if len(body) > _MOST_FIELDS:  # each unknown name is compared with all known ones
        raise Refused(f"the body has {len(body):,} fields; {_MOST_FIELDS} are more than any request has")
    known = {name: value for name, value in body.items() if _means_something(kind, name, value)}
    ignored = tuple(shown(name) for name in body if name not in kind.model_fields and name not in IGNORED)
    try:
        request = kind.model_validate(known)
    except ValidationError as error:
        raise _first(error) from None
    request.leave_out(ignored[:_MOST_NAMED])
    return request


def _means_something(kind: type[_Request], name: str, value: object) -> bool:
    """False for a field that is ignored; raises for one that cannot be honoured, unless it asks for nothing."""
    if name in kind.model_fields:
        return value is not None
    if name in IGNORED or value is None or value is False or value in ([], "", {}):
        return False
    if name == "best_of" and value == 1:
        return False
    if name in UNAVAILABLE:
        raise Refused(f"{name}: {UNAVAILABLE[name]}", param=name, code="unsupported_parameter")
    if difflib.get_close_matches(name[:100], kind.model_fields, n=1, cutoff=_NEARLY):
        near = nearest(name, sorted(kind.model_fields))
        raise Refused(f"{shown(name)}: unknown parameter{near}", param=shown(name), code="unknown_parameter")
    return False


def _first(error: ValidationError) -> Refused:
    """The deepest fault of the first field that has one: of a union's branches that is the one which fitted best."""
    faults = error.errors(include_url=False, include_context=False)
    head = faults[0]["loc"][0] if faults[0]["loc"] else ""
    fault = max((f for f in faults if f["loc"][:1] == (head,)), key=lambda f: len(f["loc"]))
    where = [str(part) for part in fault["loc"] if isinstance(part, int) or _is_field(str(part))]
    place = shown(".".join(where))
    if fault["type"] == "extra_forbidden":
        return Refused(f"{place}: unknown parameter", param=place, code="unknown_parameter")
    if fault["type"] == "missing":
        return Refused(f"{place}: is missing", param=place, code="missing_required_parameter")
    return Refused(f"{place}: {fault['msg']} (found {_short(fault['input'])})", param=place, code="invalid_value")


def _is_field(part: str) -> bool:
    """pydantic puts the names of a union's branches (``list[Part]``) into the place; users do not know them."""
    return part.replace("_", "").isalnum() and part.islower() and part not in ("str", "int", "float", "bool", "dict", "list")


_SHORTENED = reprlib.Repr()  # looks at the beginning only
_SHORTENED.maxstring = _SHORTENED.maxother = 80


def _short(value: object) -> str:
    if isinstance(value, dict | list) and len(value) > 20:
        return f"{len(value)} of them"
    text = _SHORTENED.repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
