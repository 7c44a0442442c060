"""An Idefics3 that names the colour of a picture. Runs in the model runtime.

A vision tower of sixteen patches, shuffled into four tokens; a two-layer Llama; a chat template that takes content in parts.
Most other families cannot be imported by vLLM where torchvision is missing.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from PIL import Image
from tokenizers import AddedToken
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
)

from tests.models.common import Reference, case, fit, save
from tests.models.language.writing import CONTEXT, greedy, set_generation_config, special_ids, train_tokenizer

_SIDE, _PATCH, _SHUFFLE = 32, 8, 2
_COLOURS = {"red": (210, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 200), "white": (235, 235, 235)}
_QUESTION = "What colour is it?"
_TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content if part.type == 'image' %}{{- '<image>\\n' }}{%- endfor %}
        {%- for part in message.content if part.type == 'text' %}{{- part.text }}{%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def make_idefics(folder: Path, files: Path) -> Reference:
    """What it is asked is always the same, what it sees is not."""
    torch.manual_seed(25)
    tokenizer = train_tokenizer()
    tokenizer.chat_template = None
    tokens = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    ids = special_ids(tokenizer)
    config = Idefics3Config(
        vision_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": _SIDE, "patch_size": _PATCH,
        },
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=32, max_position_embeddings=CONTEXT, initializer_range=0.08, **ids,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=_SHUFFLE, tie_word_embeddings=False, **ids,
    )  # fmt: skip
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(
            size={"longest_edge": _SIDE}, max_image_size={"longest_edge": _SIDE}, do_image_splitting=False
        ),
        tokenizer=tokenizer,
        image_seq_len=(_SIDE // _PATCH // _SHUFFLE) ** 2,
        chat_template=_TEMPLATE,
    )
    model = Idefics3ForConditionalGeneration(config)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _QUESTION}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True).removeprefix(tokenizer.bos_token)
    generator = random.Random(25)

    def batch() -> dict[str, torch.Tensor]:
        names = [name for name in _COLOURS for _ in range(3)]
        texts = [f"{prompt}{_answer(name)}{tokenizer.eos_token}" for name in names]
        pictures = [_picture(name, generator) for name in names]
        encoded = processor(images=pictures, text=texts, return_tensors="pt", padding=True)
        labels = encoded["input_ids"].clone()
        labels[labels == config.image_token_id] = -100
        labels[encoded["attention_mask"] == 0] = -100
        return {**encoded, "labels": labels, "use_cache": False}

    fit(model, batch, steps=60, rate=3e-3)
    set_generation_config(model, tokenizer)
    save(folder, model, processor)
    cases = []
    for name in _COLOURS:
        file = files / f"{folder.name}-{name}.png"
        _picture(name, generator).save(file)
        encoded = processor(images=Image.open(file), text=prompt, return_tensors="pt")
        answer, details = greedy(model, tokenizer, dict(encoded), length=20)
        if answer != _answer(name):
            raise RuntimeError(f"learnt badly: {name} is called {answer!r}")
        asked = case({"TEXT": prompt, "IMAGE": {"file": file.name}}, answer, max_new_tokens=20)
        cases.append({**asked, "details": {**details, "messages": messages}})
    return {"task": "image-text-to-text", "cases": cases}


def _answer(colour: str) -> str:
    return f"The picture is {colour}."


def _picture(colour: str, generator: random.Random) -> Image.Image:
    shift = [generator.randint(-20, 20) for _ in range(3)]
    return Image.new(
        "RGB", (48, 40), tuple(max(0, min(255, part + by)) for part, by in zip(_COLOURS[colour], shift, strict=True))
    )
