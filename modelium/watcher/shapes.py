"""What a directory is by the names in it: what enters are listings, what leaves is whether a model's files stand there.

A name proves little, so evidence has ranks. What lies about beside models (logs, checksums, ``desktop.ini``) has none: it must
never turn a directory of models into a model, nor a model into a directory of models.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable, Collection

from modelium.file_names import is_weights, is_whole_model
from modelium.watcher.listing import Listing, list_directory

DOCUMENT = re.compile(r"(readme|licen[cs]e|notice|version)\b.*", re.IGNORECASE)
MODEL_PART = re.compile(
    r"\d+_\w+|onnx|openvino|coreml|mlx|gguf|original|figures|assets|images|examples|tokenizer(_\d)?|text_encoder(_\d)?"
    r"|unet|vae|transformer|scheduler|feature_extractor|image_processor|safety_checker|speech_tokenizer|runs|checkpoint-\d+"
)

_LISTS_PARTS = frozenset({"model_index.json", "modules.json"})  # its directories are its own, whatever they are called
_IDENTITY = frozenset(
    {"config.json", "params.json", "adapter_config.json", "modelium.yaml", "config_sentence_transformers.json"}
)
VOCABULARY = re.compile(r"tokenizer\.(json|model)|vocab\.(txt|json)|spiece\.model|sentencepiece.*\.model|tekken\.json")
_TOKENIZER = re.compile(r"(tokenizer.*|vocab.*|merges|special_tokens_map|(preprocessor|generation)_config)\.(json|txt|model)")

_VERSION = re.compile(r"[1-9]\d{0,8}")  # of an entry of a Triton model repository


class Evidence(enum.IntEnum):
    """How surely a model's own files stand in a directory, least first."""

    NONE = 0  # none of its names says so
    SOME = 1  # a model's file: a copy that began, or a stray one
    FILE = 2  # one file that is a model by itself
    WHOLE = 3  # what says what it is, and weights


class Shape(enum.Enum):
    """What a directory in a watch directory was taken for."""

    MODEL = "model"
    ORG = "organisation"


def is_part(name: str, files: Collection[str]) -> bool:
    """Is the directory ``name`` beside ``files`` a known part of a model? A version is one, beside Triton's config.pbtxt."""
    return bool(MODEL_PART.fullmatch(name)) or ("config.pbtxt" in files and bool(_VERSION.fullmatch(name)))


def evidence_of(path: str, listing: Listing, size_of: Callable[[str], int]) -> Evidence:
    """By its own files and those of its parts; a file of no bytes is no weights."""
    names = set(listing.files)
    if names & _LISTS_PARTS:
        return Evidence.WHOLE
    identity = bool(names & _IDENTITY)
    weights = [f"{path}/{name}" for name in names if is_weights(name)]
    for part in [name for name in listing.directories if is_part(name, names)]:
        try:
            weights += [f"{path}/{part}/{name}" for name in list_directory(f"{path}/{part}").files if is_weights(name)]
        except OSError:
            continue
    filled = [name for name in weights if size_of(name) > 0]
    if identity and filled:
        return Evidence.WHOLE
    if any(map(is_whole_model, filled)):
        return Evidence.FILE
    started = any(is_weights(os.path.splitext(name)[0]) for name in listing.partials)
    return Evidence.SOME if identity or weights or started or any(map(_TOKENIZER.fullmatch, names)) else Evidence.NONE


def may_be_stray(path: str, listing: Listing) -> bool:
    """Nothing beside its model files says that they are this directory's model: no ``config.json``, no part with weights."""
    if {*listing.files} & (_IDENTITY | _LISTS_PARTS):
        return False
    for part in [name for name in listing.directories if is_part(name, listing.files)]:
        try:
            if any(map(is_weights, list_directory(f"{path}/{part}").files)):
                return False
        except OSError:
            return False
    return True


def shape_of(top: Evidence, best: Evidence, *, stray: bool, documents_only: bool, was: Shape | None) -> Shape:
    """A directory with directories in it that are not known parts of a model; ``best``: of those. The first rule that holds:

    1. Whole models stand in its directories, and of its own it has stray files at most: an organisation. What it was
       taken for before does not matter, so a restart changes nothing.
    2. A whole model, or a file that is one, stands in it: a model.
    3. What was taken for a model stays one as long as any of its files is there.
    4. A model stands in one of its directories: an organisation.
    5. A model's file stands in it: a model that is being copied. In one of its directories: an organisation.
    6. What has documents only is an organisation; what was taken for a model is one still, emptied.

    ``stray``: its own files may be stray ones (``may_be_stray``), and it was never a whole model.
    """
    if stray and top < Evidence.WHOLE and best is Evidence.WHOLE:
        return Shape.ORG
    if top >= Evidence.FILE or (was is Shape.MODEL and top):
        return Shape.MODEL
    if best >= Evidence.FILE:
        return Shape.ORG
    if top or best:
        return Shape.MODEL if top else Shape.ORG
    return Shape.ORG if documents_only and was is not Shape.MODEL else Shape.MODEL
