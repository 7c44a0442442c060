"""Rendering chats: a template, messages and variables enter, the prompt leaves: the same text that transformers would make."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache

from jinja2 import Template, TemplateError, TemplateSyntaxError

from modelium.gateway.openai.errors import Refused
from modelium.gateway.openai.template_limits import MAX_STRING, Environment, TemplateTooExpensive, limited
from modelium.values import JsonValue

RENDER_SECONDS = 5.0
_END = "CONTINUE_FINAL_MESSAGE_TAG "

Object = Mapping[str, JsonValue]


def render_chat(
    template: str,
    messages: Sequence[Object],
    *,
    tools: Sequence[Object] | None = None,
    documents: Sequence[Object] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    variables: Object | None = None,
    seconds: float = RENDER_SECONDS,
) -> str:
    """The prompt. Raises ``Refused`` with the template's own words, or when it is no template."""
    said = ""
    if continue_final_message:
        messages, said = _marked(messages)
    try:
        compiled = _compiled(template)
        with limited(seconds) as budget:
            written: list[str] = []
            length = 0
            for block in compiled.generate(
                {
                    **(variables or {}),
                    "messages": list(messages),
                    "tools": list(tools) if tools is not None else None,
                    "documents": list(documents) if documents is not None else None,
                    "add_generation_prompt": add_generation_prompt,
                }
            ):
                budget.check_time()
                written.append(block)
                length += len(block)
                if length > MAX_STRING:
                    raise TemplateTooExpensive("it makes too much text")
    except TemplateTooExpensive as error:
        raise Refused(f"messages: this model's chat template was stopped: {error}", param="messages") from None
    except TemplateSyntaxError as error:
        raise Refused(f"this model's chat template is broken: line {error.lineno}: {error.message}") from None
    except TemplateError as error:
        raise Refused(f"messages: this model's chat template refuses them: {error.message}", param="messages") from None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
        what = f"{type(error).__name__}: {error}"
        raise Refused(f"messages: this model's chat template cannot render them: {what}", param="messages") from None
    prompt = "".join(written)
    return _cut(prompt, said) if continue_final_message else prompt


@lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    return Environment().from_string(template)


def _marked(messages: Sequence[Object]) -> tuple[list[Object], str]:
    """The messages with a mark at the end of the last one's text, and that text."""
    marked = [*messages[:-1], copy.deepcopy(dict(messages[-1]))]
    last = marked[-1]
    assert isinstance(last, dict)
    content = last.get("content")
    if isinstance(content, str):
        last["content"] = content + _END
        return marked, content
    for part in reversed(content if isinstance(content, list) else []):
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            part["text"] = text + _END
            return marked, text
    raise Refused("continue_final_message: the last message has no text to continue", param="messages")


def _cut(prompt: str, said: str) -> str:
    """Everything up to the mark; a template may have trimmed the space before or behind it."""
    at = prompt.rfind(_END.strip())
    if at < 0 or said.strip() not in prompt:
        raise Refused("continue_final_message: the chat template leaves the last message out", param="messages")
    return prompt[:at] if prompt.startswith(_END, at) else prompt[:at].rstrip()
