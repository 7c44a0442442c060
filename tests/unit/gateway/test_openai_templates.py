"""Chat templates: the same text as transformers makes of them, from every place that a folder keeps them, within limits."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from modelium.gateway.openai.chat_fields import Message
from modelium.gateway.openai.chat_template import render_chat
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.messages import conversation_of
from modelium.gateway.openai.template_files import first_token, read_chat_format
from modelium.gateway.openai.template_renderer import Renderer
from tests.patience import cpu_s, work_s
from tests.unit.analyzers.folders import profile
from tests.unit.analyzers.gguf_files import LLAMA, gguf

from .chat_styles import STYLES

with_shared_renderer = pytest.mark.asyncio(loop_scope="module")


def transformers_render(conversations: list[Any], **given: Any) -> Any:
    """transformers' own; imported when it is called, for that takes seconds."""
    return importlib.import_module("transformers.utils.chat_template_utils").render_jinja_template(conversations, **given)


TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "f", "description": "<&> é", "parameters": {"type": "object", "properties": {}}}}
]
TALK: list[Any] = [
    {"role": "system", "content": "Be <b>brief</b> & kind."},
    {"role": "user", "content": "  Hi \n there "},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"a": [1, None]}}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "42"},
    {"role": "user", "content": "And 'quoted' \"text\"?"},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def renderer() -> AsyncIterator[Renderer]:
    running = Renderer()
    yield running
    await running.close()


@with_shared_renderer
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("tools", [None, TOOLS])
async def test_the_prompt_is_what_transformers_makes(renderer: Renderer, style: str, tools: list[Any] | None) -> None:
    template = STYLES[style]
    if "tools |" in template and tools is None:
        tools = TOOLS
    variables: Any = {"bos_token": "<s>", "eos_token": "</s>", "thinking": True}
    documents = [{"title": "T", "text": "é"}]
    for prompted in (True, False):
        [theirs], _ = transformers_render(
            [TALK], tools=tools, documents=documents, chat_template=template, add_generation_prompt=prompted, **variables
        )
        ours = await render_chat(
            renderer, template, TALK, tools=tools, documents=documents, add_generation_prompt=prompted, variables=variables
        )
        assert ours == theirs


@with_shared_renderer
@pytest.mark.parametrize("text", ["An answer that", "one with space behind \n", " before"])
@pytest.mark.parametrize("style", ["chatml", "llama 3"])
async def test_a_last_message_is_continued_as_transformers_does(renderer: Renderer, style: str, text: str) -> None:
    talk: list[Any] = [*TALK[:2], {"role": "assistant", "content": text}]
    [theirs], _ = transformers_render(
        [talk], chat_template=STYLES[style], continue_final_message=True, add_generation_prompt=False, bos_token="<s>"
    )
    ours = await render_chat(
        renderer, STYLES[style], talk, continue_final_message=True, add_generation_prompt=False, variables={"bos_token": "<s>"}
    )
    assert ours == theirs


@with_shared_renderer
@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% if %}", "broken: line 1"),
        ("{{ messages[99].content.x }}", "no element 99"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{{ messages.append(1) }}", "refuses them"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses them"),
        ("{% for a in 'b' %}" * 25 + "{% endfor %}" * 25, "broken: too many statically nested blocks"),
        ("{{ '\\ud800' }}", "cannot render them: UnicodeEncodeError"),
    ],
)
async def test_what_a_template_refuses_is_said_in_its_words(renderer: Renderer, template: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        await render_chat(renderer, template, TALK)


@with_shared_renderer
async def test_a_long_chat_collected_in_a_variable_is_rendered(renderer: Renderer) -> None:
    talk: list[Any] = [{"role": "user", "content": "x" * 1000}] * 1000
    template = (
        "{% set ns = namespace(text='') %}"
        "{% for message in messages %}{% set ns.text = ns.text + message.content %}{% endfor %}"
        "{{ ns.text }}"
    )
    assert await render_chat(renderer, template, talk) == "x" * 1_000_000


# -- folders -------------------------------------------------------------------------------------------------------


def test_templates_are_found_where_models_keep_them(tmp_path: Path) -> None:
    def write(name: str, value: object) -> None:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")

    assert read_chat_format(tmp_path).template(tools=False) is None
    write("chat_template.json", {"chat_template": "processor's"})
    assert read_chat_format(tmp_path).template(tools=False) == "processor's"
    named = [{"name": "default", "template": "named"}, {"name": "tool_use", "template": "for tools"}]
    write("tokenizer_config.json", {"chat_template": named, "bos_token": {"content": "<s>"}, "eos_token": "</s>"})
    form = read_chat_format(tmp_path)
    assert (form.template(tools=False), form.template(tools=True)) == ("named", "for tools")
    assert form.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    write("tokenizer_config.json", {"chat_template": "one string"})
    assert read_chat_format(tmp_path).template(tools=True) == "one string"
    write("chat_template.jinja", "the file")
    write("additional_chat_templates/tool_use.jinja", "a file for tools")
    form = read_chat_format(tmp_path)
    assert (form.template(tools=False), form.template(tools=True)) == ("the file", "a file for tools")
    assert read_chat_format(tmp_path / "model.gguf").template(tools=False) == "the file"
    write("tokenizer_config.json", "{ broken")
    assert read_chat_format(tmp_path).special_tokens == {}


def test_a_gguf_file_carries_its_own_template(tmp_path: Path) -> None:
    usual = "{{ messages }}" + "x" * 20_000  # as long as they are
    facts = {**LLAMA, "tokenizer.chat_template": usual, "tokenizer.chat_template.tool_use": "with tools"}
    (tmp_path / "model.gguf").write_bytes(gguf(facts))
    language = profile(tmp_path / "model.gguf").language
    assert language is not None
    (tmp_path / "model.gguf").write_bytes(b"")  # it was read with the header, and is not opened again
    form = read_chat_format(tmp_path / "model.gguf", language.chat_templates)
    assert (form.template(tools=False), form.template(tools=True)) == (usual, "with tools")
    (tmp_path / "chat_template.jinja").write_text("beside")
    assert read_chat_format(tmp_path / "model.gguf", language.chat_templates).template(tools=False) == "beside"


def test_what_is_no_file_is_no_template(tmp_path: Path) -> None:
    for name in ("chat_template.jinja", "tokenizer_config.json", "model.gguf"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "additional_chat_templates" / "rag.jinja").mkdir(parents=True)
    assert dict(read_chat_format(tmp_path).templates) == {}


def test_the_token_before_every_text_is_found_in_the_midst_of_a_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("x")
    processor = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]}
    vocabulary = {"post_processor": 1, "é": 2, '"post_processor": {': 3}
    tokenizer: dict[str, object] = {
        "added_tokens": [],
        "model": {"vocab": vocabulary},
        "post_processor": processor,
        "decoder": None,
    }
    for indent in (None, 2):
        (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=indent), encoding="utf-8")
        assert read_chat_format(tmp_path).prefix == "<s>"
    (tmp_path / "tokenizer.json").write_text('{"post_processor": {"type": ' + "[" * 100_000)
    assert read_chat_format(tmp_path).prefix == ""


def test_a_folder_is_searched_and_parsed_in_pieces_within_bounds(tmp_path: Path) -> None:
    """Whoever parses lets no other thread run: seconds for 4 MiB of empty lists."""
    config, tokenizer = tmp_path / "tokenizer_config.json", tmp_path / "tokenizer.json"
    config.write_text('{"chat_template": "x", "a": [' + "[]," * 300_000 + "0]}")
    assert read_chat_format(tmp_path).templates == {}
    config.write_text(
        json.dumps({"chat_template": "x", "added_tokens_decoder": {str(n): {"content": str(n)} for n in range(30_000)}})
    )
    processor = json.dumps({"type": "BertProcessing", "cls": ["[CLS]", 1]})
    for before in (0, 2**21 - 30, 2**21 - 8, 2**21, 2**23):
        tokenizer.write_text("{" + " " * before + '"post_processor": ' + processor + "}")
        assert read_chat_format(tmp_path).prefix == "[CLS]"


@pytest.mark.parametrize(
    ("processor", "token"),
    [
        (None, ""),
        ({"type": "ByteLevel"}, ""),
        ({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}, "<s>"),
        ({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}]}, ""),
        (
            {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "RobertaProcessing", "cls": ["<s>", 0]}]},
            "<s>",
        ),
    ],
)
def test_the_token_before_every_text_is_found(processor: object, token: str) -> None:
    assert first_token(processor) == token


# -- messages ------------------------------------------------------------------------------------------------------


def test_contents_fit_the_template() -> None:
    parts = Message.model_validate({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})
    plain = Message(role="developer", content="d")
    walks = "{% for message in messages %}{% for part in message['content'] %}{{ part.text }}{% endfor %}{% endfor %}"
    made: Callable[[str], list[Any]] = lambda template: [  # noqa: E731
        (one["role"], one["content"]) for one in conversation_of([plain, parts], template, takes_images=False).messages
    ]
    assert made("{{ message.content }}") == [("system", "d"), ("user", "a\nb")]
    listed = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert made(walks + "developer") == [("developer", [{"type": "text", "text": "d"}]), ("user", listed)]
    assert made(walks + "{% if message.content is string %}") == [("system", "d"), ("user", listed)]


def test_a_long_template_is_looked_through_at_once() -> None:
    said = [Message(role="user", content="x")]
    long = ("for x in " + "message" * 150_000, "for m in m" * 100_000, "for " + " " * 10**6, "content is " * 100_000)
    assert cpu_s(lambda: [conversation_of(said, template, takes_images=False) for template in long]) < 100 * work_s()


def test_arguments_of_earlier_calls_are_objects() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = Message.model_validate({"role": "assistant", "content": None, "tool_calls": [call]})
    [one] = conversation_of([message], "", takes_images=False).messages
    assert one["tool_calls"] == [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]
    assert one["content"] == ""
