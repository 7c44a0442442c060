"""The fields of ``/v1`` requests that are honoured, with their kinds and bounds. ``parsing`` makes them of a body, and knows
those that are not. ``harmless`` of each: names that clients send along and that change nothing about a local model's answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from modelium.gateway.codecs.parameters import LONGEST_TEXT
from modelium.gateway.generation.seeds import LAST_SEED
from modelium.gateway.openai.chat_fields import AllowedTools, Message, NamedTool, Object, Tool
from modelium.gateway.openai.fields import Arguments, Few, FewIds, Ids, Many, Shape, Texts, Word, Words
from modelium.gateway.openai.unknown import Unknown

MOST_NAME_CHARACTERS = 512

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Seed = Annotated[int, Field(ge=-(2**63), le=LAST_SEED)]
Sentence = Annotated[str, Field(max_length=LONGEST_TEXT)]  # of a parameter, as in /predict


class JsonSchema(BaseModel):
    """The schema that an answer has to follow."""

    model_config = ConfigDict(populate_by_name=True)
    name: str = "answer"
    schema_: Annotated[Object, Shape, Field(alias="schema", default_factory=dict)]
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(BaseModel):
    """The form of an answer. ``schema`` and ``value``: what huggingface_hub and others make of ``json_schema``."""

    model_config = ConfigDict(populate_by_name=True)
    type: Literal["text", "json_object", "json_schema", "json", "regex", "structural_tag"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[Object | None, Shape, Field(alias="schema")] = None
    value: Annotated[Object | str | None, Shape] = None
    format: Annotated[Object | None, Shape] = None  # of structural_tag, and its older form
    structures: Annotated[Many[Object] | None, Shape] = None
    triggers: Many[str] | None = None


class StreamOptions(BaseModel):
    """What a stream says besides its text."""

    harmless: ClassVar[frozenset[str]] = frozenset({"include_obfuscation"})
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


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


class Request(BaseModel):
    """What all requests have."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
            "prompt_cache_options", "prediction", "verbosity", "moderation", "request_id",
        }
    )  # fmt: skip
    model: Annotated[str, Field(min_length=1, max_length=MOST_NAME_CHARACTERS)]
    _ignored: tuple[Unknown, ...] = PrivateAttr(())

    @property
    def ignored(self) -> tuple[Unknown, ...]:
        """Names in the body that mean nothing here."""
        return self._ignored

    def leave_out(self, unknown: Sequence[Unknown]) -> None:
        """Remember what was ignored, for a header of the answer."""
        self._ignored = tuple(unknown)


class Generating(Request):
    """What chats and completions have in common: sampling and streaming. None: not sent."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Word | Words | None = None
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
    bad_words: Words | None = None
    allowed_token_ids: Ids | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Natural | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    prompt_logprobs: Annotated[int, Field(ge=-1)] | None = None
    logprob_token_ids: FewIds | None = None  # whose log-probabilities are told, in place of the likeliest
    use_beam_search: bool | None = None  # of ``n`` beams
    length_penalty: float | None = None  # of beams
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    echo: bool | None = None
    structured_outputs: Annotated[StructuredOutputs, Shape] | None = None
    guided_json: Annotated[Object | str, Shape] | None = None
    guided_regex: Annotated[str, Shape] | None = None
    guided_choice: Annotated[Many[str], Shape] | None = None
    guided_grammar: Annotated[str, Shape] | None = None

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return self.n or 1

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Are those of the prompt part of the answer?"""
        return self.prompt_logprobs is not None

    @property
    def wants_details(self) -> bool:
        """Does the answer tell which tokens were read or written?"""
        return bool(self.return_token_ids) or self.prompt_logprobs is not None


class ChatRequest(Generating):
    """The body of ``/v1/chat/completions``."""

    messages: Annotated[Many[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[Many[Tool], Arguments] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    modalities: Many[Literal["text"]] | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None  # false: thoughts are left out of the answer
    # for the chat template, in transformers' words
    documents: Annotated[Many[Object], Arguments] | None = None
    chat_template_kwargs: Annotated[Object, Arguments] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    enable_thinking: bool | None = None  # what other servers take beside chat_template_kwargs, and put there


class CompletionRequest(Generating):
    """The body of ``/v1/completions``."""

    prompt: Texts
    max_tokens: Natural | None = None  # 0: the prompt alone, with echo
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    add_special_tokens: bool | None = None

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Those of an echoed prompt too."""
        return self.prompt_logprobs is not None or (bool(self.echo) and self.logprobs is not None)

    @property
    def wants_details(self) -> bool:
        """Which an echo of token ids needs as well."""
        by_ids = not isinstance(self.prompt, str) and not isinstance(next(iter(self.prompt), ""), str)
        return super().wants_details or (bool(self.echo) and (by_ids or self.logprobs is not None))


class EmbeddingRequest(Request):
    """The body of ``/v1/embeddings``."""

    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    encoding: Literal["model"] | None = None  # token ids are of the model's own tokenizer
    # before each text, as sentence-transformers has it: one of the folder's prompts by its name, or this very one
    prompt_name: Sentence | None = None
    prompt: Sentence | None = None
