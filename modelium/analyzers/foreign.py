"""What a folder is that is not a transformers or ONNX model: so that the user is told what was dropped, and what would
help.

What enters: a folder. What leaves: ``Rejected`` or ``NotYet``, or nothing where it is none of these.
"""

from __future__ import annotations

import re

from modelium.analyzers.folder import Folder
from modelium.analyzers.formats.json_text import read_object, text, texts
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.values import MissingPart, ModelOverride

# Endings of files at the top of the folder → what they are, what would help. The first that is there answers.
_ENDINGS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (".h5", ".keras", ".pb", ".tflite"),
        "TensorFlow weights",
        "load it with from_tf=True and save it as safetensors, or export it to ONNX",
    ),
    ((".msgpack",), "Flax weights", "load it with from_flax=True and save it as safetensors"),
    (("rust_model.ot",), "weights for rust-bert", "copy the model's safetensors file too"),
    ((".engine", ".plan", ".trt"), "a TensorRT engine", "drop the ONNX file that it was made from"),
    ((".mlmodel", ".mlpackage"), "a Core ML model", "drop the ONNX or safetensors file that it was made from"),
    (
        ("openvino_model.xml", "openvino_model.bin"),
        "an OpenVINO model",
        "drop the ONNX or safetensors file that it was made from",
    ),
    (
        (".ckpt", ".pth", ".pt", ".nemo"),
        "a training checkpoint",
        "save the model with save_pretrained() as safetensors, or export it to ONNX",
    ),
    ((".safetensors",), "safetensors weights under a name that transformers does not look for", "name it model.safetensors"),
    (
        (".bin",),
        "weights under a name that transformers does not look for",
        "save the model with save_pretrained() as safetensors",
    ),
)


_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})/[^/]+\.(?:safetensors|bin)")
_VERSION = re.compile(r"\d{1,9}/.+")  # of a Triton entry
_MAX_STATE_BYTES = 64 * 2**20
_SETFIT_FILES = ("model_head.pkl", "config_setfit.json")
_MAX_SETFIT_BYTES = 2**20


def describe_ending(name: str) -> tuple[str, str] | None:
    """What a file of this name is, and what would help; None where nothing is known of it."""
    if name.endswith(".safetensors"):  # by itself it may have any name
        return None
    return next(((what, hint) for endings, what, hint in _ENDINGS if name.endswith(endings)), None)


def refuse_checkpoints(folder: Folder) -> None:
    """A Trainer's output that holds checkpoints and no model of its own: which of them to take."""
    numbers = sorted({int(found[1]) for name in folder.names() if (found := _CHECKPOINT.fullmatch(name))})
    if not numbers:
        return
    best = _best_checkpoint(folder, numbers)
    chosen = f"checkpoint-{best if best is not None else numbers[-1]}"
    because = "the best by its trainer_state.json" if best is not None else "the last"
    count = f"{len(numbers)} checkpoints" if len(numbers) > 1 else "a checkpoint"
    why = f"the output of a training: {count} and no model beside; take {chosen}, {because}"
    hint = f"move {chosen}/ to a place of its own (mv {chosen} ../NAME), or let the training call trainer.save_model()"
    raise NotYet(why, MissingPart(file="config.json", present_bytes=0), hint_when_stale=hint)


def _best_checkpoint(folder: Folder, numbers: list[int]) -> int | None:
    """The number that a state names, if that checkpoint is still there: the training's own (save_state()), or the last."""
    for state in ("trainer_state.json", f"checkpoint-{numbers[-1]}/trainer_state.json"):
        if state not in folder:
            continue
        try:
            named = text(read_object(folder, state, _MAX_STATE_BYTES), "best_model_checkpoint")
        except (NotYet, Rejected):
            continue
        number = named.replace("\\", "/").rstrip("/").rpartition("/")[2].removeprefix("checkpoint-")
        if number.isascii() and number.isdigit() and len(number) < 13 and int(number) in numbers:
            return int(number)
    return None


def refuse_triton_entry(folder: Folder, graph: str | None = None) -> None:
    """A model-repository entry: Triton's own form, which names its model only where it was made. A ``graph`` beside a stray
    config.pbtxt, outside of its versions, is a model of its own."""
    if "config.pbtxt" not in folder or (graph is not None and not _VERSION.fullmatch(graph)):
        return
    versions = sorted(name for name in folder.names() if _VERSION.fullmatch(name))
    shown = f" and {versions[0]}" if versions else ""
    raise Rejected(
        f"an entry of a Triton model repository (config.pbtxt{shown}), which is not served from here",
        "drop the model that it was made from; or copy the entry into Triton's model repository (triton.model_repository), "
        "where Modelium leaves it alone, and load it through Triton itself",
    )


def refuse_setfit(folder: Folder, override: ModelOverride, name: str) -> None:
    """A SetFit classifier: its body is an embedder, its classes lie in a pickle of scikit-learn's or torch's objects."""
    found = next((file for file in _SETFIT_FILES if file in folder), None)
    if found is None or (override.task is not None and override.task.row.embeds_texts):
        return
    labels: tuple[str, ...] = ()
    if "config_setfit.json" in folder:
        labels = texts(read_object(folder, "config_setfit.json", _MAX_SETFIT_BYTES), "labels")
    classes = f" for {len(labels)} classes ({', '.join(labels)[:80]})" if labels else ""
    raise Rejected(
        f"a SetFit classifier{classes}: its head (model_head.pkl) is a pickle, which runs code when it is read",
        "export it to ONNX (setfit.exporters.onnx.export_onnx) and drop that; or, to serve its embeddings alone, say so in "
        f"modelium.yaml: models: {{{name}: {{task: sentence-similarity}}}}",
    )


def refuse_other_weights(folder: Folder) -> None:
    """Weights of a kind that no runtime here reads. Says nothing where there are none at all."""
    for endings, what, hint in _ENDINGS:
        found = folder.named(*endings)
        if found:
            raise Rejected(f"{found[0]}: {what}, which is not served", hint)
