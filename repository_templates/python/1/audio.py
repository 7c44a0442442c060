"""Sound: speech to text, and labels.

What enters: rows with AUDIO (an encoded recording: wav, flac, ogg, mp3). What leaves: TEXT with its
parts and their seconds, how long the recording lasts and which language it is in, or LABEL and SCORE.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .batching import group, run_same_shapes
from .contract import Answer, BadInput, Row, Settings, as_bytes, attempt, ints, parse_parameters, shown, within
from .finite import FiniteScores, finite
from .loading import load_model, load_processor, move
from .recordings import LONGEST_S, read_audio
from .scores import ClassifyParameters, check, rank

_ROWS_PER_BATCH = 16
_WINDOW_S = 30.0  # of a long recording; each window overlaps its neighbours by a sixth on either side
_OVERLAP_S = 5.0
_LONGEST_WHOLE_S = 120.0  # of what is heard in one piece: attention grows with its square
_COLDEST = 0.01  # as where texts are sampled: less makes infinities of scores
_MOST_BEAMS = 16  # each keeps what the decoder attends to: half a gigabyte, of a large Whisper


class AudioClassification:
    """A recording → its labels."""

    def __init__(self, settings: Settings) -> None:
        self._model = load_model(settings, "AutoModelForAudioClassification")
        self._extractor = load_processor(settings, "AutoFeatureExtractor")

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        logits = run_same_shapes([inputs for inputs, _ in good.values()], _ROWS_PER_BATCH, self._forward)
        for (index, (_, parameters)), one in zip(good.items(), logits, strict=True):
            answers[index] = rank(one.numpy(), self._model.config, parameters, default_top_k=5)
        return answers

    def _read(self, row: Row) -> tuple[dict[str, torch.Tensor], ClassifyParameters]:
        parameters = check(parse_parameters(ClassifyParameters, row.parameters))
        rate = self._extractor.sampling_rate
        samples = read_audio(row.data("AUDIO"), rate, _LONGEST_WHOLE_S)
        return dict(self._extractor(samples, sampling_rate=rate, return_tensors="pt")), parameters

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self._model(**move(batch, self._model)).logits.float().cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscribeParameters:
    language: str | None = None
    task: str | None = None
    max_new_tokens: int | None = None
    num_beams: int | None = None
    temperature: float | None = None
    seed: int | None = None
    prompt: str | None = None
    return_timestamps: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """A recording as the model takes it."""

    inputs: dict[str, torch.Tensor]
    parameters: TranscribeParameters
    long: bool  # longer than Whisper's window
    seconds: float


class SpeechRecognition:
    """Speech → text, by the kind of model that the folder holds."""

    def __init__(self, settings: Settings) -> None:
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

        config = AutoConfig.from_pretrained(settings.model_path, local_files_only=True, trust_remote_code=settings.custom_code)
        named = (config.architectures or [""])[0]
        ctc = named.endswith("ForCTC") or (not named and config.model_type in MODEL_FOR_CTC_MAPPING_NAMES)
        self._recogniser = _ByFrames(settings) if ctc else _ByGeneration(settings)

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        return self._recogniser.answer(rows)


class _ByFrames:
    """CTC (wav2vec2, HuBERT …): a letter for each frame. Long recordings in overlapping windows, joined by frames."""

    def __init__(self, settings: Settings) -> None:
        self._model = load_model(settings, "AutoModelForCTC")
        self._extractor = load_processor(settings, "AutoFeatureExtractor")
        self._tokenizer = load_processor(settings, "AutoTokenizer")
        self._rate: int = self._extractor.sampling_rate
        self._samples_per_frame: int = getattr(self._model.config, "inputs_to_logits_ratio", 1)

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        windows = [inputs for parts, _ in good.values() for inputs, _, _ in parts]
        tokens = iter(run_same_shapes(windows, _ROWS_PER_BATCH, self._forward))
        for index, (parts, seconds) in good.items():
            ids: list[int] = []
            for _, left, right in parts:
                found = next(tokens).tolist()
                ids += found[left : len(found) - right]
            answers[index] = _answer(self._tokenizer.decode(ids, skip_special_tokens=False), seconds)
        return answers

    def _read(self, row: Row) -> tuple[list[tuple[dict[str, torch.Tensor], int, int]], float]:
        """Windows with the number of frames to drop on either side; and how long all of it lasts."""
        parameters = parse_parameters(TranscribeParameters, row.parameters)
        for name in ("language", "task", "max_new_tokens", "num_beams", "temperature", "seed", "prompt"):
            if getattr(parameters, name) is not None:
                raise BadInput(f"parameter {name!r} means nothing to a CTC model")
        if parameters.return_timestamps:
            raise BadInput(
                "parameter 'return_timestamps': of this kind of model, the runtime tells no times; Whisper tells them"
            )
        samples = read_audio(row.data("AUDIO"), self._rate, LONGEST_S)
        frame = self._samples_per_frame
        window, overlap = (int(seconds * self._rate) // frame * frame for seconds in (_WINDOW_S, _OVERLAP_S))
        seconds = len(samples) / self._rate
        if len(samples) <= window:
            return [(self._extract(samples), 0, 0)], seconds
        parts = []
        for start in range(0, len(samples), window - 2 * overlap):
            chunk = samples[start : start + window]
            last = start + window >= len(samples)
            parts.append((self._extract(chunk), 0 if start == 0 else overlap // frame, 0 if last else overlap // frame))
            if last:
                break
        return parts, seconds

    def _extract(self, samples: np.ndarray) -> dict[str, torch.Tensor]:
        inputs = self._extractor(samples, sampling_rate=self._rate, return_tensors="pt", return_attention_mask=True)
        return dict(inputs)

    def _forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = self._model(**move(batch, self._model)).logits
        finite(logits.amax(dim=-1).float().cpu().numpy())
        return logits.argmax(dim=-1).cpu()


class _ByGeneration:
    """Encoder-decoders (Whisper …). Whisper itself reads recordings over 30 s window by window."""

    def __init__(self, settings: Settings) -> None:
        self._model = load_model(settings, "AutoModelForSpeechSeq2Seq")
        self._extractor = load_processor(settings, "AutoFeatureExtractor")
        self._tokenizer = load_processor(settings, "AutoTokenizer")
        self._rate: int = self._extractor.sampling_rate
        self._whisper = self._model.config.model_type == "whisper"
        # Four tokens come before the text: the start, language, task, and that there are no timestamps.
        self._most_tokens = max(1, int(getattr(self._model.config, "max_target_positions", None) or 1024) - 4)
        self._multilingual = bool(getattr(self._model.generation_config, "is_multilingual", False))
        self._languages: dict[str, int] = getattr(self._model.generation_config, "lang_to_id", None) or {}

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        # What is sampled with a seed is sampled alone: it must not depend on who shares the batch.
        keys = {i: (one.parameters, one.long, i if one.parameters.seed is not None else -1) for i, one in good.items()}
        for (parameters, long, _), members in group(keys).items():

            def forward(
                batch: dict[str, torch.Tensor], parameters: TranscribeParameters = parameters, long: bool = long
            ) -> list[tuple[torch.Tensor, str]]:
                return self._generate(move(batch, self._model), parameters, long)

            rows_at_once = 1 if long else max(1, _ROWS_PER_BATCH // (parameters.num_beams or 1))
            found = run_same_shapes([good[i].inputs for i in members], rows_at_once, forward)
            for index, (tokens, language) in zip(members, found, strict=True):
                seconds = good[index].seconds
                if parameters.return_timestamps:
                    answers[index] = self._decode_with_times(tokens, seconds, language)
                else:
                    answers[index] = _answer(self._tokenizer.decode(tokens, skip_special_tokens=True), seconds, language)
        return answers

    def _generate(
        self, batch: dict[str, torch.Tensor], parameters: TranscribeParameters, long: bool
    ) -> list[tuple[torch.Tensor, str]]:
        """The tokens of each row, and the code of its language ("" where nobody knows)."""
        options = self._options(parameters, long)
        languages = [self._code(parameters.language)] * len(next(iter(batch.values())))
        if self._multilingual and self._languages and parameters.language is None:
            names = {place: name for name, place in self._languages.items()}
            found = self._model.detect_language(batch["input_features"]).tolist()  # as ``generate`` would
            languages = [names[place].strip("<|>") for place in found]
            options["language"] = languages
        if parameters.seed is not None:
            torch.manual_seed(parameters.seed)
        return list(zip(self._model.generate(**batch, **options).cpu(), languages, strict=True))

    def _decode_with_times(self, tokens: torch.Tensor, seconds: float, language: str) -> Answer:
        """As transformers' pipeline reads them."""
        precision = self._extractor.chunk_length / self._model.config.max_source_positions
        text, found = self._tokenizer._decode_asr(
            [{"tokens": tokens[None].numpy()}], return_timestamps=True, return_language=False, time_precision=precision
        )
        chunks = [(chunk["text"], *chunk["timestamp"]) for chunk in found["chunks"]]
        return _answer(text, seconds, language, chunks)

    def _read(self, row: Row) -> _Heard:
        parameters = within(
            parse_parameters(TranscribeParameters, row.parameters),
            max_new_tokens=(1, self._most_tokens),
            num_beams=(1, _MOST_BEAMS),
            temperature=(0, 1),
            seed=(0, 2**63 - 1),
        )
        if not self._multilingual:
            if (parameters.language or "").lower() in ("", "en", "english") and parameters.task in (None, "transcribe"):
                parameters = replace(parameters, language=None, task=None)  # what it does anyway
            for name in ("language", "task"):
                if getattr(parameters, name) is not None:
                    raise BadInput(f"parameter {name!r}: this model knows one language and only transcribes")
        if parameters.return_timestamps and not self._whisper:
            raise BadInput(
                "parameter 'return_timestamps': of this kind of model, the runtime tells no times; Whisper tells them"
            )
        if parameters.return_timestamps and getattr(self._model.generation_config, "no_timestamps_token_id", None) is None:
            raise BadInput("parameter 'return_timestamps': the generation_config.json of this Whisper has no timestamps")
        if parameters.task not in (None, "transcribe", "translate"):
            raise BadInput(f"parameter 'task' must be transcribe or translate, found {parameters.task!r}")
        if parameters.language is not None and not self._knows(parameters.language):
            raise BadInput(
                f"parameter 'language': this model does not know {shown(parameters.language)!r}; it knows "
                f"{_few(sorted(code.strip('<|>') for code in self._languages), parameters.language)}"
            )
        if parameters.prompt:
            if not self._whisper:
                raise BadInput("parameter 'prompt' means nothing to this kind of model; Whisper reads one")
            self._prompt_ids(parameters)
        samples = read_audio(row.data("AUDIO"), self._rate, LONGEST_S if self._whisper else _LONGEST_WHOLE_S)
        long = self._whisper and len(samples) > self._extractor.n_samples
        options = {"truncation": False, "padding": "longest"} if long else {}
        inputs = self._extractor(samples, sampling_rate=self._rate, return_tensors="pt", return_attention_mask=True, **options)
        return _Heard(inputs=dict(inputs), parameters=parameters, long=long, seconds=len(samples) / self._rate)

    def _knows(self, language: str) -> bool:
        return f"<|{self._code(language)}|>" in self._languages or language in self._languages

    def _code(self, language: str | None) -> str:
        """A Whisper that knows one language knows English."""
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        if language is None:
            return "en" if self._whisper and not self._multilingual else ""
        return TO_LANGUAGE_CODE.get(language.lower(), language.lower()).strip("<|>")

    def _options(self, parameters: TranscribeParameters, long: bool) -> dict[str, Any]:
        names = ("language", "task", "max_new_tokens", "num_beams")
        options: dict[str, Any] = {n: getattr(parameters, n) for n in names if getattr(parameters, n) is not None}
        options["logits_processor"] = [FiniteScores()]
        if long or parameters.return_timestamps:
            options["return_timestamps"] = True
        if parameters.temperature:
            options |= {"do_sample": True, "temperature": max(_COLDEST, parameters.temperature)}
        if parameters.prompt:
            options["prompt_ids"] = self._prompt_ids(parameters)
        return options

    def _prompt_ids(self, parameters: TranscribeParameters) -> torch.Tensor:
        """The prompt's last tokens: as many as Whisper reads, and as leave room for what is to be written."""
        try:
            ids = self._tokenizer.get_prompt_ids(parameters.prompt).tolist()
        except ValueError as error:  # a special token stands in it
            raise BadInput(f"parameter 'prompt': {str(error)[:200]}") from None
        config = self._model.config
        most = min(config.max_target_positions // 2 - 1, self._most_tokens - (parameters.max_new_tokens or 0))
        kept = ids[1:][-(most - 1) :] if most > 1 else []
        return torch.tensor([ids[0], *kept], device=self._model.device)


def _few(languages: list[str], wanted: str) -> str:
    near = difflib.get_close_matches(wanted[:100].lower(), languages, n=5) if len(languages) > 10 else languages
    return f"{', '.join(near or languages[:5])}{'' if len(languages) <= 10 else f' … ({len(languages)} languages)'}"


def _answer(
    text: str, seconds: float, language: str = "", chunks: Sequence[tuple[str, float | None, float | None]] = ()
) -> Answer:
    """A time that the model did not tell is -1."""
    starts, ends = ([-1.0 if chunk[place] is None else chunk[place] for chunk in chunks] for place in (1, 2))
    return {
        "TEXT": as_bytes([text]),
        "CHUNK_TEXT": as_bytes([chunk[0] for chunk in chunks]),
        "CHUNK_START": np.asarray(starts, dtype=np.float64),
        "CHUNK_END": np.asarray(ends, dtype=np.float64),
        "CHUNKS": ints([len(chunks)]),
        "DURATION": np.asarray([seconds], dtype=np.float64),
        "LANGUAGE": as_bytes([language]),
    }
