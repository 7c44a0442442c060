"""What a folder is that is not a transformers or ONNX model: so that the user is told what was dropped, and what would
help.

What enters: a folder without weights that can be served. What leaves: ``Refused``, or None where nothing is recognised.
"""

from __future__ import annotations

from modelium.analyzers.folder import Folder
from modelium.analyzers.verdict import Refused

_RENAME = "name it model.safetensors"
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
    ((".safetensors",), "safetensors weights under a name that transformers does not look for", _RENAME),
    (
        (".bin",),
        "weights under a name that transformers does not look for",
        "save the model with save_pretrained() as safetensors",
    ),
)


def refuse_other_weights(folder: Folder) -> None:
    """Weights of a kind that no runtime here reads. Says nothing where there are none at all."""
    for endings, what, hint in _ENDINGS:
        found = folder.named(*endings)
        if found:
            raise Refused(f"{found[0]}: {what}, which is not served", hint)
