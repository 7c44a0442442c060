"""A tokenizer with a chat template, the learning by heart, and the reference's own answers. Runs in the model runtime."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from tests.models.common import Reference, case
from tests.models.language.corpus import CHAT_TEMPLATE, CHATS, PARAGRAPH, PIRATE_CHATS, PIRATE_SONG, SAYINGS, Chat

CONTEXT = 1024
# A tenth of this would already be thousands of times what a different order of summing changes in float32.
LEAST_MARGIN = 1.0
_SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
_PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]  # Qwen's: tokens of their own, but text
_PAD = 0


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over the corpus that puts ``<s>`` first, as Llama's does; every byte has a token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=_SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    spoken = [answer for *_, answer in (*CHATS, *PIRATE_CHATS)]
    asked = [str(message["content"]) for messages, *_ in CHATS for message in messages]
    core.train_from_iterator([PARAGRAPH, PIRATE_SONG, CHAT_TEMPLATE, *SAYINGS, *spoken, *asked], trainer)
    core.add_tokens(_PLAIN)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", _SPECIAL.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """For a model's configuration."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def set_generation_config(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Two tokens end a text, as in most chat models: the end of a turn and the end of a document."""
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("</s>")]
    model.generation_config = GenerationConfig(**{**special_ids(tokenizer), "eos_token_id": ends})


def document(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """``<s> text </s>``."""
    return [*tokenizer(text)["input_ids"], tokenizer.convert_tokens_to_ids("</s>")]


def conversation(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> list[int]:
    """The rendered chat with its answer and the end of the turn."""
    *_, answer = chat
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*prompt_of(tokenizer, chat)[1], *said, tokenizer.eos_token_id]


def prompt_of(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> tuple[str, list[int]]:
    """Text and tokens, each with one ``<s>``."""
    messages, tools, _ = chat
    text = tokenizer.apply_chat_template(messages, tools=tools or None, tokenize=False, add_generation_prompt=True)
    return text, tokenizer(text, add_special_tokens=False)["input_ids"]


def learn(
    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    weights: Sequence[torch.Tensor],
    rows: Sequence[list[int]],
    *,
    steps: int,
    rate: float,
    tokens_per_step: int = 1200,
) -> float:
    """Learn rows by heart; the last loss. ``forward`` takes tokens and labels. Rows of about one length share a step."""
    shuffle = random.Random(0)
    ordered = sorted(rows, key=len)
    batches: list[list[list[int]]] = [[]]
    for row in ordered:
        if batches[-1] and (len(batches[-1]) + 1) * len(row) > tokens_per_step:
            batches.append([])
        batches[-1].append(row)
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.1)
    loss = torch.zeros(())
    for _ in range(steps):
        batch = [torch.tensor(row) for row in shuffle.choice(batches)]
        tokens = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=_PAD)
        labels = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
        loss = forward(tokens, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return float(loss.detach())


def learn_model(model: PreTrainedModel, rows: Sequence[list[int]], *, steps: int, rate: float) -> None:
    """All weights of a model."""
    model.train()
    learn(
        lambda tokens, labels: model(input_ids=tokens, labels=labels, use_cache=False).loss,
        [weight for weight in model.parameters() if weight.requires_grad],
        rows,
        steps=steps,
        rate=rate,
    )
    model.eval()


def continuation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, *, length: int) -> Reference:
    """What ``generate`` writes after a plain text."""
    return _written(model, tokenizer, text, tokenizer(text)["input_ids"], length, {})


def reply(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, chat: Chat, *, length: int = 160) -> Reference:
    """What ``generate`` answers in a chat; fails if that is not what was learnt."""
    messages, tools, answer = chat
    text, tokens = prompt_of(tokenizer, chat)
    without_first = text.removeprefix(tokenizer.bos_token)  # who tokenizes it as usual gets it back
    written = _written(model, tokenizer, without_first, tokens, length, {"messages": messages, "tools": tools})
    if written["answer"] != answer:
        raise RuntimeError(f"learnt badly: {messages} is answered {written['answer']!r}")
    return written


def _written(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, tokens: list[int], length: int, more: Reference
) -> Reference:
    prompt = torch.tensor([tokens])
    answer, details = greedy(model, tokenizer, {"input_ids": prompt, "attention_mask": torch.ones_like(prompt)}, length=length)
    return {**case({"TEXT": text}, answer, max_new_tokens=length), "details": {**details, **more}}


@torch.inference_mode()
def greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, inputs: dict[str, torch.Tensor], *, length: int
) -> tuple[str, Reference]:
    """``generate``'s text, and what else a reference says of it. Fails where two tokens are nearly as likely."""
    output = model.generate(**inputs, max_new_tokens=length, do_sample=False, output_logits=True, return_dict_in_generate=True)
    prompt = inputs["input_ids"][0].tolist()
    new = output.sequences[0, len(prompt) :].tolist()
    best = torch.stack(output.logits)[:, 0].topk(2).values
    margin = float((best[:, 0] - best[:, 1]).min())
    if margin < LEAST_MARGIN:
        raise RuntimeError(f"learnt badly: after {tokenizer.decode(prompt)!r} two tokens lie {margin:.2f} apart")
    finish = "stop" if new[-1] in model.generation_config.eos_token_id else "length"
    details = {"prompt_tokens": prompt, "new_tokens": new, "margin": round(margin, 3), "finish": finish}
    return tokenizer.decode(new, skip_special_tokens=True), details
