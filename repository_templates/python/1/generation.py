"""Text that is generated: continuations (decoders) and translations, summaries (encoder-decoders).

What enters: rows with TEXT. What leaves: GENERATED_TEXT, FINISH_REASON ("stop" or "length"), token counts.
Greedy unless the request asks for sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from .batching import Encoding, buckets, group
from .contract import Answer, BadInput, Row, Settings, TooLong, as_bytes, attempt, ints, parse_parameters
from .finite import FiniteScores
from .languages import Languages
from .loading import load_text_model, move
from .sampling import MOST_TOKENS, GenerateParameters, TransformParameters, check, check_places, cut, sampling, width

_TRANSLATION = "translation"
NEW_TOKENS = 128  # where neither the request nor the folder says how many
# Of an encoder-decoder whose configuration knows no end.
_LONGEST_OUTPUT, _LONGEST_INPUT = 8_192, 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    encoding: Encoding
    text: str
    parameters: GenerateParameters
    row: Row

    @property
    def length(self) -> int:
        return len(self.encoding["input_ids"])


class Cancelled(StoppingCriteria):
    """Ends the sequences whose requests were cancelled. ``prompt_tokens``: how many a sequence had before its first new one."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._steps = 0
        self.prompt_tokens = 0

    def __call__(self, input_ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self._steps += 1
        if self._steps == 1:
            self.prompt_tokens = input_ids.shape[1] - 1
        gone = [self._steps % 8 == 0 and row.is_cancelled() for row in self._rows]
        sequences_per_row = max(1, len(input_ids) // len(self._rows))
        return torch.tensor(gone, device=input_ids.device).repeat_interleave(sequences_per_row)


class _Generator:
    """What decoders and encoder-decoders share: batches of equal parameters through ``generate``, and reading its result."""

    def __init__(self, settings: Settings, auto_class: str) -> None:
        self.model, self.text = load_text_model(settings, auto_class)
        self.tokenizer = self.text.tokenizer
        eos = self.model.generation_config.eos_token_id
        self._ends = frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])
        self._pad = self.tokenizer.pad_token_id or 0

    def generate(
        self, prompts: dict[int, _Prompt], new_tokens: dict[int, int], options: dict[int, dict[str, Any]]
    ) -> dict[int, list[list[int]]]:
        """The new tokens of each row's sequences."""
        results: dict[int, list[list[int]]] = {}
        # A row with a seed is sampled alone: its answer must not depend on who shares the batch.
        keys = {i: (repr(options[i]), new_tokens[i], i if prompts[i].parameters.seed is not None else -1) for i in prompts}
        for members in group(keys).values():
            wide = width(prompts[members[0]].parameters)
            lengths = [(prompts[i].length + new_tokens[i]) * wide for i in members]
            for bucket in buckets(lengths, self.text.budget):
                part = [members[place] for place in bucket]
                results |= zip(part, self._run([prompts[i] for i in part], options[part[0]]), strict=True)
        return results

    def _run(self, prompts: Sequence[_Prompt], options: dict[str, Any]) -> list[list[list[int]]]:
        batch = move(self.text.pad([prompt.encoding for prompt in prompts], side="left"), self.model)
        batch.pop("token_type_ids", None)
        parameters = prompts[0].parameters
        if parameters.seed is not None:
            torch.manual_seed(parameters.seed)
        if parameters.stop:
            options = {**options, "stop_strings": list(parameters.stop), "tokenizer": self.tokenizer}
        stopping = StoppingCriteriaList([Cancelled([prompt.row for prompt in prompts])])
        options = {**options, "stopping_criteria": stopping, "logits_processor": LogitsProcessorList([FiniteScores()])}
        output = self.model.generate(**batch, **options, pad_token_id=self._pad)
        skip = 1 if self.model.config.is_encoder_decoder else batch["input_ids"].shape[1]
        tokens: list[list[int]] = output[:, skip:].tolist()
        count = parameters.num_return_sequences
        return [tokens[i * count : (i + 1) * count] for i in range(len(prompts))]

    def read(self, tokens: list[int]) -> tuple[list[int], bool]:
        """Tokens up to the end token, that one included, and whether there was one. What follows is padding."""
        for place, token in enumerate(tokens):
            if token in self._ends:
                return tokens[: place + 1], True
        return tokens, False


class TextGeneration:
    """A decoder that continues a prompt."""

    def __init__(self, settings: Settings) -> None:
        self._generator = _Generator(settings, "AutoModelForCausalLM")
        config = self._generator.model.config
        self._context = settings.max_length or getattr(config, "max_position_embeddings", None) or MOST_TOKENS

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, prompts = attempt(rows, self._read)
        lengths = {i: self._new_tokens(prompt.parameters, prompt.length) for i, prompt in prompts.items()}
        options = {i: sampling(prompt.parameters) | {"max_new_tokens": lengths[i]} for i, prompt in prompts.items()}
        for index, sequences in self._generator.generate(prompts, lengths, options).items():
            answers[index] = self._decode(prompts[index], sequences)
        return answers

    def _new_tokens(self, parameters: GenerateParameters, length: int) -> int:
        wanted = parameters.max_new_tokens or self._generator.model.generation_config.max_new_tokens or NEW_TOKENS
        return min(wanted, self._context - length)

    def _read(self, row: Row) -> _Prompt:
        parameters = check(parse_parameters(GenerateParameters, row.parameters))
        text = row.text("TEXT")
        encoding: Encoding = self._generator.tokenizer(text).data
        if parameters.truncate is not None:
            encoding = {name: values[-parameters.truncate :] for name, values in encoding.items()}
        length = len(encoding["input_ids"])
        if length == 0:
            raise BadInput("TEXT is empty: there is nothing to continue")
        if length >= self._context:
            raise TooLong(f"TEXT is {length} tokens long, this model's context is {self._context} (parameter 'truncate' cuts)")
        check_places(parameters, length + self._new_tokens(parameters, length))
        return _Prompt(encoding=encoding, text=text, parameters=parameters, row=row)

    def _decode(self, prompt: _Prompt, sequences: list[list[int]]) -> Answer:
        tokenizer = self._generator.tokenizer
        ids = prompt.encoding["input_ids"]
        before = len(tokenizer.decode(ids, skip_special_tokens=True))
        texts, reasons, counts = [], [], []
        for sequence in sequences:
            tokens, ended = self._generator.read(sequence)
            # Decoded with the prompt and cut: a token alone can lose its leading space.
            text, stopped = cut(tokenizer.decode([*ids, *tokens], skip_special_tokens=True)[before:], prompt.parameters.stop)
            texts.append(prompt.text + text if prompt.parameters.return_full_text else text)
            reasons.append("stop" if ended or stopped else "length")
            counts.append(len(tokens))
        return answer_of(texts, reasons, prompt.length, counts)


class TextToText:
    """translation, summarization, text2text-generation: an encoder-decoder."""

    def __init__(self, settings: Settings) -> None:
        self._generator = _Generator(settings, "AutoModelForSeq2SeqLM")
        self._task = settings.task
        config = self._generator.model.config
        # Where positions are relative (T5), nothing but memory says when to stop.
        self._longest = int(getattr(config, "max_position_embeddings", None) or _LONGEST_OUTPUT)
        self._longest_input = int(getattr(config, "max_position_embeddings", None) or _LONGEST_INPUT)
        self._languages = Languages(self._generator.tokenizer)
        self._start: int | None = getattr(self._generator.model.generation_config, "decoder_start_token_id", None)
        self._tasks: dict[str, dict[str, Any]] = getattr(self._generator.model.config, "task_specific_params", None) or {}

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, prompts = attempt(rows, self._read)
        options, lengths = {}, {}
        for index, prompt in prompts.items():
            options[index], lengths[index] = self._options(prompt)
        for index, sequences in self._generator.generate(prompts, lengths, options).items():
            answers[index] = self._decode(prompts[index], sequences)
        return answers

    def _read(self, row: Row) -> _Prompt:
        given = dict(row.parameters)
        nested = given.pop("generate_parameters", None) or given.pop("generation_parameters", None) or {}
        if not isinstance(nested, dict):
            raise BadInput("parameter 'generate_parameters' must be an object")
        parameters = check(parse_parameters(TransformParameters, {**given, **nested}))
        text = row.text("TEXT")
        prefix = self._specific(parameters).get("prefix") or ""
        if "prefix" not in self._specific(parameters):
            self._languages.read_from(parameters.src_lang)
        encoding = self._generator.text.encode(prefix + text, truncate=parameters.truncation != "do_not_truncate")
        if not text.strip():
            raise BadInput("TEXT is empty")
        prompt = _Prompt(encoding=encoding, text=text, parameters=parameters, row=row)
        if prompt.length > self._longest_input:
            raise TooLong(f"TEXT is {prompt.length} tokens long, this model takes at most {self._longest_input}")
        options, length = self._options(prompt)
        if parameters.min_length is not None and parameters.min_length > length:
            raise BadInput(f"parameter 'min_length' is {parameters.min_length}, but the answer has at most {length} tokens")
        beams = max(width(parameters), int(options.get("num_beams") or self._generator.model.generation_config.num_beams or 1))
        if beams > 1:
            check_places(replace(parameters, num_beams=beams), prompt.length + length)
        return prompt

    def _specific(self, parameters: TransformParameters) -> dict[str, Any]:
        """What the folder's config says for this task (T5: a prefix, beams)."""
        pair = f"translation_{parameters.src_lang}_to_{parameters.tgt_lang}"
        if pair in self._tasks:
            return self._tasks[pair]
        return self._tasks.get(self._task, {})

    def _target(self, parameters: TransformParameters) -> int | None:
        """The token that the answer begins with: the language asked for, else the folder's."""
        if "prefix" in self._specific(parameters):
            return None
        if parameters.tgt_lang is not None:
            return self._languages.token(parameters.tgt_lang, "tgt_lang")
        defaults = self._generator.model.generation_config
        if defaults.forced_bos_token_id is not None or not self._languages:
            return None
        if self._languages.target is None and self._task == _TRANSLATION and self._start not in self._languages:
            raise BadInput("parameter 'tgt_lang' is missing: this model knows many languages, and none is its own")
        return self._languages.target

    def _options(self, prompt: _Prompt) -> tuple[dict[str, Any], int]:
        parameters = prompt.parameters
        assert isinstance(parameters, TransformParameters)
        defaults = self._generator.model.generation_config
        specific = {name: value for name, value in self._specific(parameters).items() if name != "prefix"}
        wanted = parameters.max_new_tokens or parameters.max_length or defaults.max_new_tokens
        length = min(self._longest, int(wanted or specific.pop("max_length", None) or defaults.max_length or NEW_TOKENS))
        specific.pop("max_length", None)
        options = specific | sampling(parameters) | {"max_new_tokens": length}
        if (target := self._target(parameters)) is not None:
            options["forced_bos_token_id"] = target
        for name in ("length_penalty", "no_repeat_ngram_size"):
            if getattr(parameters, name) is not None:
                options[name] = getattr(parameters, name)
        if parameters.min_length is not None:
            options["min_new_tokens"] = parameters.min_length
            options.pop("min_length", None)
        return options, length

    def _decode(self, prompt: _Prompt, sequences: list[list[int]]) -> Answer:
        texts, reasons, counts = [], [], []
        assert isinstance(prompt.parameters, TransformParameters)
        for sequence in sequences:
            tokens, ended = self._generator.read(sequence)
            words = [token for token in tokens if token not in self._languages]  # M2M100's are no special tokens
            cleanup = prompt.parameters.clean_up_tokenization_spaces
            options = {} if cleanup is None else {"clean_up_tokenization_spaces": cleanup}
            text = self._generator.tokenizer.decode(words, skip_special_tokens=True, **options)
            text, stopped = cut(text, prompt.parameters.stop)
            texts.append(text)
            reasons.append("stop" if ended or stopped else "length")
            counts.append(len(tokens))
        return answer_of(texts, reasons, prompt.length, counts)


def answer_of(texts: list[str], reasons: list[str], input_tokens: int, output_tokens: list[int]) -> Answer:
    return {
        "GENERATED_TEXT": as_bytes(texts),
        "FINISH_REASON": as_bytes(reasons),
        "INPUT_TOKENS": ints([input_tokens]),
        "OUTPUT_TOKENS": ints(output_tokens),
    }
