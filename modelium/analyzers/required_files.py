"""Tokenizer and preprocessor: the files besides weights without which a task cannot be served.

What enters: a folder and its task. What leaves: what is missing, as one ``NotYet`` (None: all there). Also what those
files say about the kind of input.
"""

from __future__ import annotations

import time

from modelium.analyzers.folder import File, Folder, refuse_lfs_pointer
from modelium.analyzers.formats.json_text import JsonObject, nested, prove_whole, read_object, text
from modelium.analyzers.model_card import ModelCard
from modelium.analyzers.model_config import ModelConfig
from modelium.analyzers.tasks_of import CROSS_ENCODER_FILE, Clues, TaskFinding
from modelium.analyzers.verdict import NotYet, not_whole
from modelium.analyzers.weights import join_missing
from modelium.values import MissingPart

FRESH_S = 600.0  # a folder that nobody has written to for so long is not being copied any more
QUIET_S = 2.0
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
    "source.spm",
    "vocab-src.json",
    "bpe.codes",
    "tekken.json",
    "prophetnet.tokenizer",
    "vocab.bpe",
)
# Bytes or characters are their tokens: these have no vocabulary file.
_VOCABULARY_FREE = {"ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer", "PerceiverTokenizerFast"}
_VOCABULARY_FREE_TYPES = {"canine", "perceiver"}
_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")
_MAX_SIDE_BYTES = 16 * 2**20


def is_fresh(newest_mtime: float) -> bool:
    """Whether the folder was written to lately, so that more may still come."""
    return time.time() - newest_mtime < FRESH_S


def is_settling(newest_mtime: float) -> bool:
    """Whether the folder was written to a moment ago: what cannot prove that it is whole has to be quiet for so long."""
    return time.time() - newest_mtime < QUIET_S


def read_optional(folder: Folder, name: str) -> JsonObject:
    """A side file's object; empty where the file is not there."""
    return read_object(folder, name, _MAX_SIDE_BYTES) if name in folder else {}


def read_clues(folder: Folder, card: ModelCard, config: ModelConfig) -> Clues:
    """What the files say about the kind of input."""
    image = sound = False
    for name in _PREPROCESSORS:
        content = read_optional(folder, name)
        image |= "image_processor" in content or "image_processor_type" in content or "image_mean" in content
        sound |= "feature_extractor" in content or ("feature_extractor_type" in content and "sampling_rate" in content)
    return Clues(
        pipeline_tag=card.pipeline_tag,
        sentence_modules="modules.json" in folder,
        cross_encoder=_names_cross_encoder(folder, card, config),
        has_tokenizer=_vocabulary(folder) is not None,
        has_image_processor=image,
        has_feature_extractor=sound,
        side_code=any(nested(read_optional(folder, name), "auto_map") for name in ("tokenizer_config.json", *_PREPROCESSORS)),
    )


def _names_cross_encoder(folder: Folder, card: ModelCard, config: ModelConfig) -> str:
    """Where sentence-transformers says that the folder is a CrossEncoder; "" for nowhere.

    Since 5 in its own file, since 4 by a key of ``config.json``, before by another one. A head that classifies, of a
    model of sentence-transformers that has no modules, is nothing else either.
    """
    if text(read_optional(folder, CROSS_ENCODER_FILE), "model_type") == "CrossEncoder":
        return CROSS_ENCODER_FILE
    if config.cross_encoder_key:
        return f"config.json {config.cross_encoder_key}"
    by_card = card.library_name == "sentence-transformers" and "modules.json" not in folder
    return "README library_name" if by_card else ""


def missing_files(folder: Folder, finding: TaskFinding, model_type: str) -> NotYet | None:
    """What the task needs besides weights and is not there, or not whole."""
    gaps: list[NotYet] = []
    row = finding.task.row
    needs_preprocessor = bool(row.raw_medium) or (row.takes_images and not finding.custom_code)
    if needs_preprocessor and not any(name in folder for name in _PREPROCESSORS):
        gaps.append(_absent("preprocessor_config.json", "it says how the input is prepared"))
    if row.needs_tokenizer and not _is_vocabulary_free(folder, model_type):
        gaps += _tokenizer_gaps(folder)
    if "modules.json" not in folder and "config_sentence_transformers.json" in folder and "1_Pooling/config.json" in folder:
        gaps.append(_absent("modules.json", "it says how the vectors are made"))
    if finding.custom_code:
        gaps += [_absent(name, "auto_map in config.json refers to it") for name in _code_files(folder) if name not in folder]
    return join_missing(gaps)


def _tokenizer_gaps(folder: Folder) -> list[NotYet]:
    file = _vocabulary(folder)
    if file is None:
        return [_absent("tokenizer.json", "the model needs its tokenizer")]
    if not file.size:
        return [not_whole(file.name, 0)]
    if file.name.endswith(".json"):
        try:
            prove_whole(file, thorough=file.size < 64 * 1024 or is_fresh(file.mtime_ns / 1e9))
        except NotYet as short:
            return [short]
    else:
        with file.open() as stream:
            refuse_lfs_pointer(file, stream.read(1024))
    pair = ("source.spm", "target.spm")
    if any(name in folder for name in pair):
        return [_absent(name, "the model needs both its vocabularies") for name in pair if name not in folder]
    return []


def _vocabulary(folder: Folder) -> File | None:
    for name in _VOCABULARIES:
        if name in folder:
            return folder.files[name]
    tiktoken = folder.named(".tiktoken")
    return folder.files[tiktoken[0]] if tiktoken else None


def _is_vocabulary_free(folder: Folder, model_type: str) -> bool:
    declared = text(read_optional(folder, "tokenizer_config.json"), "tokenizer_class")
    return model_type in _VOCABULARY_FREE_TYPES or declared in _VOCABULARY_FREE


def _code_files(folder: Folder) -> list[str]:
    """The modules in the folder that ``auto_map`` refers to; ``org/repo--module.Class`` lies in another one."""
    references = [value for value in _auto_map(folder).values() if isinstance(value, str) and "--" not in value]
    return sorted({reference.rsplit(".", 1)[0].replace(".", "/") + ".py" for reference in references if "." in reference})


def _auto_map(folder: Folder) -> JsonObject:
    found = read_optional(folder, "config.json").get("auto_map")
    return found if isinstance(found, dict) else {}


def _absent(name: str, why: str) -> NotYet:
    part = MissingPart(file=name, present_bytes=0)
    return NotYet(f"{name}: not there yet", part, hint_when_stale=f"copy {name} into the folder: {why}")
