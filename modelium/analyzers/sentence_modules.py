"""sentence-transformers' ``modules.json``: how token embeddings become one vector.

What enters: a folder that has ``modules.json``. What leaves: its ``Pooling`` and width. A module that the python
runtime does not run (LSTM, SPLADE …) would change the vectors: such a folder is refused rather than answered
wrongly.
"""

from __future__ import annotations

from modelium.analyzers.folder import Folder
from modelium.analyzers.formats.json_text import JsonObject, integer, parse, read_object, text
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.values import MissingPart, Pooling, PoolingMode

_OLD_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MAX_MODULES_BYTES = 2**20
_HINT = "export it to ONNX, or serve it with a runtime of its own"


def read_pooling(folder: Folder) -> tuple[Pooling, int | None]:
    """Pooling and embedding width of a folder with ``modules.json``."""
    modules = parse(folder.read("modules.json", _MAX_MODULES_BYTES), "modules.json")
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise Rejected("modules.json is not a list of modules", "copy the model's own modules.json")
    pooling: JsonObject | None = None
    normalize = False
    width: int | None = None
    for module in modules:
        kind, where = text(module, "type").rsplit(".", 1)[-1], text(module, "path").strip("/")
        match kind:
            case "Transformer":
                if where and f"{where}/config.json" in folder:
                    hint = "load it once with sentence-transformers and save it again"
                    raise Rejected(f"the transformer lies in {where}/, an old sentence-transformers layout", hint)
            case "Pooling":
                pooling = _read_module(folder, f"{where}/config.json" if where else "config.json")
            case "Normalize":
                normalize = True
            case "Dense":  # its weights are small and of its own; the last one sets the width
                width = integer(_read_module(folder, f"{where}/config.json"), "out_features")
                if f"{where}/model.safetensors" not in folder:
                    _require(folder, f"{where}/pytorch_model.bin")
            case "Dropout":  # does nothing outside training
                continue
            case _:
                raise Rejected(f"modules.json has the module {kind or '?'}, which the python runtime does not run", _HINT)
    if pooling is None:
        return Pooling(mode=PoolingMode.MEAN, normalize=normalize), width
    width = width or integer(pooling, "embedding_dimension", "word_embedding_dimension")
    return Pooling(mode=_mode(pooling), normalize=normalize), width


def _require(folder: Folder, name: str) -> None:
    if name not in folder:
        part = MissingPart(file=name, present_bytes=0)
        raise NotYet(f"{name}: not there yet", part, hint_when_stale=f"copy {name} too: modules.json refers to it")


def _read_module(folder: Folder, name: str) -> JsonObject:
    _require(folder, name)
    return read_object(folder, name, _MAX_MODULES_BYTES)


def _mode(source: JsonObject) -> PoolingMode:
    """Since sentence-transformers 6 ``pooling_mode`` is a word or a list; before, one flag for each mode."""
    written = source.get("pooling_mode")
    if isinstance(written, str):
        modes = [written]
    elif isinstance(written, list):
        modes = [str(mode) for mode in written]
    else:
        modes = [word for flag, word in _OLD_FLAGS.items() if source.get(flag) is True] or ["mean"]
    if len(modes) != 1 or modes[0] not in {mode.value for mode in PoolingMode}:
        raise Rejected(f"its pooling ({' + '.join(modes) or 'none'}) is not one that the python runtime has", _HINT)
    return PoolingMode(modes[0])
