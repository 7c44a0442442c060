"""What a file is by the end of its name: a name enters, whether it is weights or an archive leaves.

One table for all who look at names: a folder is taken for a model's by the same endings whoever asks.
"""

from __future__ import annotations

import re

BARE_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".npz")
"""They don't say what the model is."""

WHOLE_MODELS = (
    ".onnx", ".gguf", ".pt2", ".joblib", ".skops", ".ubj", ".pkl", ".pickle", ".nemo", ".keras", ".tflite",
)  # fmt: skip
"""One file that is a model by itself."""

SERVED_ALONE = (".onnx", ".gguf")
"""Of those, what may lie in a watch directory without a folder."""

_WEIGHTS = BARE_WEIGHTS + WHOLE_MODELS
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".tzst")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_TRAINERS = re.compile(r"(training_args|optimizer|scheduler|rng_state.*|scaler)\.(bin|pt|pth)")


def is_weights(name: str) -> bool:
    """What a trainer leaves beside them is none.

    >>> [is_weights(name) for name in ("model.SAFETENSORS", "model.ubj", "optimizer.pt", "config.json")]
    [True, True, False, False]
    """
    return name.lower().endswith(_WEIGHTS) and _TRAINERS.fullmatch(name) is None


def is_whole_model(name: str) -> bool:
    """Is a file of that name a model by itself?"""
    return name.lower().endswith(WHOLE_MODELS)


def is_archive(name: str) -> bool:
    """Of files; a compressed file is one where it is a model's.

    >>> [is_archive(name) for name in ("m.zip", "m.tar.zst", "model.gguf.gz", "serve.log.gz")]
    [True, True, True, False]
    """
    inside = name.lower()
    for ending in _COMPRESSED:
        if inside.endswith(ending):
            inside = inside.removesuffix(ending)
            return inside.endswith((*_ARCHIVES, *_WEIGHTS))
    return inside.endswith(_ARCHIVES)
