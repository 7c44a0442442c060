"""A single file that is no model by itself: a path enters, ``Rejected`` leaves, with what it is and what to do.

The watch directories take ``.onnx`` and ``.gguf`` files alone; everything else comes here only when somebody asks about it.
"""

from __future__ import annotations

from pathlib import Path

from modelium.analyzers.folder import file_of
from modelium.analyzers.foreign import describe_ending
from modelium.analyzers.formats.safetensors_header import read_header
from modelium.analyzers.verdict import Rejected
from modelium.analyzers.weights import summarize
from modelium.file_names import is_archive
from modelium.sizes import human_bytes

_WHOLE = "drop the whole folder of the model (config.json, tokenizer and weights), or an .onnx or .gguf file"


def refuse_file(path: Path, root: Path) -> Rejected:
    """Why the file is no model."""
    file = file_of(path, root)
    name = path.name.lower()
    if is_archive(path.name):
        return Rejected(f"{path.name} is an archive, which is not looked into", "unpack it and drop the folder that is in it")
    if name.endswith(".safetensors"):
        tally = read_header(file)
        parameters, dtype = summarize(tally.elements)
        held = f"{parameters:,} parameters in {dtype}, {human_bytes(tally.data_bytes)}"
        why = f"{path.name} holds weights alone ({held}), and they don't say what the model is"
        return Rejected(why, "drop the folder that it is from: config.json, tokenizer and this file")
    known = describe_ending(path.name)
    if known is not None:
        what, hint = known
        return Rejected(f"{path.name}: {what}, which is not served by itself", hint)
    return Rejected(f"{path.name} is not a model", _WHOLE)
