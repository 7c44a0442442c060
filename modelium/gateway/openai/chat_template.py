"""Rendering chats: a template, messages and variables enter, the prompt leaves: the same text that transformers would make."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.template_renderer import Renderer
from modelium.values import JsonValue

_END = "CONTINUE_FINAL_MESSAGE_TAG "

Object = Mapping[str, JsonValue]


async def render_chat(
    renderer: Renderer,
    template: str,
    messages: Sequence[Object],
    *,
    tools: Sequence[Object] | None = None,
    documents: Sequence[Object] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    variables: Object | None = None,
) -> str:
    """The prompt. Raises ``BadRequest`` with the template's own words, or when it is no template."""
    said = ""
    if continue_final_message:
        messages, said = _marked(messages)
    given: dict[str, JsonValue] = {
        **(variables or {}),
        "messages": [dict(message) for message in messages],
        "tools": [dict(tool) for tool in tools] if tools is not None else None,
        "documents": [dict(document) for document in documents] if documents is not None else None,
        "add_generation_prompt": add_generation_prompt,
    }
    prompt = await renderer.render(template, given)
    return _cut(prompt, said) if continue_final_message else prompt


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
    raise BadRequest("continue_final_message: the last message has no text to continue", param="messages")


def _cut(prompt: str, said: str) -> str:
    """Everything up to the mark; a template may have trimmed the space before or behind it."""
    at = prompt.rfind(_END.strip())
    if at < 0 or said.strip() not in prompt:
        raise BadRequest("continue_final_message: the chat template leaves the last message out", param="messages")
    return prompt[:at] if prompt.startswith(_END, at) else prompt[:at].rstrip()
