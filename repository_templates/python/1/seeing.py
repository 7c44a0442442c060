"""Text that is generated from text and pictures together.

What enters: rows with TEXT and any number of pictures in IMAGE. What leaves: GENERATED_TEXT, FINISH_REASON, token counts, as
for text alone; greedy unless the request asks for sampling. TEXT is the prompt as the model shall see it (a chat is rendered
before it comes here). Where it lacks the placeholders of its pictures (``<image>``), they are put in front of it.

Rows are generated one after the other: each family packs its pictures in a way of its own, and few can be padded together.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from .contract import Answer, BadInput, Row, Settings, TooLong, attempt, parse_parameters
from .finite import FiniteScores
from .generation import NEW_TOKENS, Cancelled, answer_of
from .loading import load_model
from .pictures import read_images
from .processors import Processor, move
from .sampling import MOST_TOKENS, GenerateParameters, check, check_places, cut, sampling

_TAIL = 8  # tokens of the prompt that the answer is decoded with: a token alone can lose its leading space
# The processor writes an end after the prompt, and nothing follows an end.
_ENDS_ITS_PROMPT = frozenset({"git"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    inputs: dict[str, Any]
    text: str
    length: int
    parameters: GenerateParameters
    row: Row


class ImageTextToText:
    """A model that reads pictures and text, and writes text."""

    def __init__(self, settings: Settings) -> None:
        self._model = load_model(settings, "AutoModelForImageTextToText")
        if not self._model.can_generate():
            raise RuntimeError(f"{type(self._model).__name__} generates no text")
        self._processor = Processor.of(settings, self._model.config)
        self._tokenizer = self._processor.tokenizer
        eos = self._model.generation_config.eos_token_id
        if eos is None:
            eos = self._tokenizer.eos_token_id if self._tokenizer.eos_token_id is not None else self._tokenizer.sep_token_id
        self._ends = frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])
        if self._model.generation_config.pad_token_id is None:
            pad = self._tokenizer.pad_token_id
            self._model.generation_config.pad_token_id = pad if pad is not None else self._tokenizer.eos_token_id or 0
        self._taken = _taken(self._model)
        config = self._model.config
        text_config = config.get_text_config(decoder=True)
        # An encoder-decoder's prompt lies elsewhere than what it writes.
        self._apart = bool(config.is_encoder_decoder)
        self._context = settings.max_length or getattr(text_config, "max_position_embeddings", None) or MOST_TOKENS

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, prompts = attempt(rows, self._read)
        for index, prompt in prompts.items():
            answers[index] = self._generate(prompt)
        return answers

    def _read(self, row: Row) -> _Prompt:
        parameters = check(parse_parameters(GenerateParameters, row.parameters))
        if parameters.truncate is not None:
            raise BadInput("parameter 'truncate' could cut pictures out of the prompt; leave it out")
        pictures = read_images([data for data in row.inputs.get("IMAGE", ()) if data])
        text = row.text("TEXT")
        if not pictures and self._model.main_input_name != "input_ids":
            raise BadInput("IMAGE is missing: this model writes about a picture")
        if not pictures and not text:
            raise BadInput("TEXT is empty, and there is no IMAGE: there is nothing to write about")
        inputs = self._inputs(text, pictures)
        ids = inputs.get("input_ids", inputs.get("decoder_input_ids"))
        length = int(ids.shape[1]) if ids is not None else 0
        if not self._apart and length >= self._context:
            raise TooLong(f"TEXT and IMAGE are {length} tokens, this model's context is {self._context}")
        check_places(parameters, length + self._new_tokens(parameters, length))
        return _Prompt(inputs=inputs, text=text, length=length, parameters=parameters, row=row)

    def _new_tokens(self, parameters: GenerateParameters, length: int) -> int:
        wanted = parameters.max_new_tokens or self._model.generation_config.max_new_tokens or NEW_TOKENS
        return min(wanted, self._context if self._apart else self._context - length)

    def _inputs(self, text: str, pictures: list[Image.Image]) -> dict[str, Any]:
        """What ``generate`` takes, on the model's device."""
        inputs = self._processor.encode(text, pictures)
        ids = inputs.get("input_ids")
        if self._model.config.model_type in _ENDS_ITS_PROMPT and ids is not None and int(ids[0, -1]) in self._ends:
            inputs |= {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask") if name in inputs}
        if self._apart and "input_ids" in inputs and "input_ids" not in self._taken:
            inputs["decoder_input_ids"] = inputs.pop("input_ids")
        device, dtype = self._model.device, self._model.dtype
        return {name: move(value, device, dtype) for name, value in inputs.items() if name in self._taken}

    def _generate(self, prompt: _Prompt) -> Answer:
        parameters = prompt.parameters
        options = sampling(parameters) | {"max_new_tokens": self._new_tokens(parameters, prompt.length)}
        if parameters.seed is not None:
            torch.manual_seed(parameters.seed)
        if parameters.stop:
            options |= {"stop_strings": list(parameters.stop), "tokenizer": self._tokenizer}
        watch = Cancelled([prompt.row])
        options |= {
            "stopping_criteria": StoppingCriteriaList([watch]),
            "logits_processor": LogitsProcessorList([FiniteScores()]),
        }
        output = self._model.generate(**prompt.inputs, **options)
        texts, reasons, counts = [], [], []
        for sequence in output.tolist():
            before, tokens = sequence[: watch.prompt_tokens][-_TAIL:], self._until_end(sequence[watch.prompt_tokens :])
            known = len(self._tokenizer.decode(before, skip_special_tokens=True))
            text = self._tokenizer.decode([*before, *tokens], skip_special_tokens=True)[known:]
            text, stopped = cut(text, parameters.stop)
            texts.append(prompt.text + text if parameters.return_full_text else text)
            reasons.append("stop" if stopped or (tokens and tokens[-1] in self._ends) else "length")
            counts.append(len(tokens))
        return answer_of(texts, reasons, prompt.length, counts)

    def _until_end(self, tokens: list[int]) -> list[int]:
        """Up to the end token, that one included; what follows is padding."""
        return next((tokens[: place + 1] for place, token in enumerate(tokens) if token in self._ends), tokens)


def _taken(model: PreTrainedModel) -> frozenset[str]:
    """Names that the model has a use for; ``generate`` refuses the rest of what a processor makes."""
    methods = (model.forward, model.generate, model.prepare_inputs_for_generation)
    return frozenset(name for method in methods for name in inspect.signature(method).parameters) - {"labels"}
