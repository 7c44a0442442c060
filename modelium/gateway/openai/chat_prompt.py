"""Chats made ready: a checked request, a profile and its chat format enter; prompt, images and reading of the answer leave."""

from __future__ import annotations

from dataclasses import dataclass

from modelium.gateway.openai.chat_template import render_chat
from modelium.gateway.openai.choices import ChatChoice
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.messages import conversation_of
from modelium.gateway.openai.reasoning import START, Thoughts, reasons
from modelium.gateway.openai.requests import ChatRequest
from modelium.gateway.openai.sampling import Sampling, sampling_of, unheard
from modelium.gateway.openai.template_files import ChatFormat
from modelium.gateway.openai.template_renderer import Renderer
from modelium.gateway.openai.tool_calls import choose_family
from modelium.gateway.openai.tool_choice import ToolUse, tool_use_of
from modelium.values import ModelProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyChat:
    """A chat as the engine takes it."""

    prompt: str
    rendered: str  # the same with what the engine's tokenizer writes itself
    images: tuple[str, ...]
    sampling: Sampling
    tools: ToolUse
    reasons: bool  # what it thinks is told apart from what it says
    inside: bool  # the prompt ends in the middle of a thought
    shows_thoughts: bool = True
    streams: bool = False
    echo: str = ""  # what the answer begins with
    ignored: tuple[str, ...] = ()  # what means nothing to this model

    def choice(self) -> ChatChoice:
        """A new one for each of the n."""
        thoughts = Thoughts(inside=self.inside) if self.reasons else None
        return ChatChoice(self.tools.reader(in_parts=self.streams), thoughts, shows_thoughts=self.shows_thoughts)


async def ready_chat(
    request: ChatRequest, profile: ModelProfile, form: ChatFormat, tool_parser: str | None, renderer: Renderer
) -> ReadyChat:
    """Raises ``BadRequest``."""
    template = form.template(tools=bool(request.tools))
    if template is None:
        raise BadRequest(
            f"model: {profile.name!r} has no chat template, so it takes no chats; ask POST /v1/completions, or put a "
            "chat_template.jinja into its folder",
            param="model",
            code="no_chat_template",
        )
    if request.continue_final_message and request.add_generation_prompt:
        raise BadRequest("continue_final_message: excludes add_generation_prompt", param="continue_final_message")
    tools = tool_use_of(request, choose_family(template, named=tool_parser))
    language = profile.language
    takes_images = profile.task.row.takes_images or (language is not None and "image" in language.modalities)
    conversation = conversation_of(request.messages, template, takes_images=takes_images)
    extra = dict(request.chat_template_kwargs or {})
    if request.reasoning_effort is not None:
        extra.setdefault("reasoning_effort", request.reasoning_effort)
    if request.enable_thinking is not None:
        extra.setdefault("enable_thinking", request.enable_thinking)
    prompt = await render_chat(
        renderer,
        template,
        conversation.messages,
        tools=tools.offered or None,
        documents=request.documents,
        add_generation_prompt=not request.continue_final_message and request.add_generation_prompt is not False,
        continue_final_message=request.continue_final_message,
        variables={**form.special_tokens, **extra},
    )
    sampling = sampling_of(request, language.generation_defaults if language is not None else {})
    if tools.shape is not None and request.use_beam_search:
        raise BadRequest("use_beam_search: beams cannot be held to a function that is forced", param="use_beam_search")
    if tools.shape is not None:  # a forced call wins over the form of an answer, which there is not
        sampling["structured_outputs"] = {"json": tools.shape}
    if tools.special:
        sampling["skip_special_tokens"] = False
    inside = prompt.rstrip().endswith(START)
    return ReadyChat(
        prompt=without_prefix(prompt, form.prefix),
        rendered=prompt,
        images=conversation.images,
        sampling=sampling,
        tools=tools,
        # Held to a schema from its first token on, a model has no room for thoughts.
        reasons=reasons(template) and "structured_outputs" not in sampling,
        inside=inside,
        shows_thoughts=request.include_reasoning is not False,
        streams=bool(request.stream),
        echo=_echo(request) if request.echo else "",
        ignored=_ignored(request, template, tools),
    )


def _echo(request: ChatRequest) -> str:
    """The last message, where it has the role that the answer has: with a new turn the assistant's, else its own."""
    last = request.messages[-1]
    if request.add_generation_prompt is not False and not request.continue_final_message and last.role != "assistant":
        return ""
    if isinstance(last.content, str):
        return last.content
    return "\n".join(part.text for part in last.content or () if part.text is not None)


def _ignored(request: ChatRequest, template: str, tools: ToolUse) -> tuple[str, ...]:
    """A switch that the template does not know; strict arguments where nothing but the model's own will holds them."""
    found = ["enable_thinking"] if request.enable_thinking is not None and "enable_thinking" not in template else []
    if tools.automatic and any(tool.function.strict for tool in request.tools or ()):
        found.append("tools.function.strict")
    return (*found, *unheard(request))


def without_prefix(prompt: str, prefix: str) -> str:
    """The engine's tokenizer writes ``prefix`` (<s>) itself: two of them make models worse.

    >>> without_prefix("<s>[INST] hi", "<s>")
    '[INST] hi'
    """
    return prompt.removeprefix(prefix) if prefix else prompt
