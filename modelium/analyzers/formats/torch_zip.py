"""``pytorch_model.bin``: a zip whose directory comes last, or torch's older plain format.

What enters: a file. What leaves: its ``TensorTally``, or ``NotYet`` / ``Rejected``. The zip's directory stands at the
very end, so finding it proves the copy; the older format states the length of each storage. Never unpickled: see
``torch_pickle``.
"""

from __future__ import annotations

import zipfile

from modelium.analyzers.folder import File, refuse_lfs_pointer, refuse_preallocated
from modelium.analyzers.formats.tensor_tally import Stored, TensorTally
from modelium.analyzers.formats.torch_pickle import PickleEnds, PickleFacts, StoredTensor, read_pickle
from modelium.analyzers.verdict import Rejected, not_whole

_MAX_PICKLE_BYTES = 64 * 2**20
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickle of 0x1950a86a20f9469cfc6c
_HINT = "copy the file again from its source"


def read_torch_file(file: File) -> TensorTally:
    """Sizes and names of the tensors in a torch file."""
    with file.open() as stream:
        head = stream.read(1024)
    refuse_lfs_pointer(file, head)
    if len(head) < len(_LEGACY_MAGIC):
        raise not_whole(file.name, file.size)
    refuse_preallocated(file, head)
    if head.startswith(_ZIP_MAGIC):
        return _read_zip(file)
    if head.startswith(_LEGACY_MAGIC):
        return _read_legacy(file)
    raise Rejected(f"{file.name} is not a torch file", "convert the weights to safetensors")


def _read_zip(file: File) -> TensorTally:
    if not zipfile.is_zipfile(file.path):  # the directory at the end is not there: the rest is on its way
        raise not_whole(file.name, file.size)
    try:
        archive = zipfile.ZipFile(file.path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise Rejected(f"{file.name}: its directory is damaged", _HINT) from None
    with archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Rejected(f"{file.name} is a zip but not a torch file (no data.pkl)", "convert the weights to safetensors")
        prefix = pickles[0].removesuffix("data.pkl")
        if prefix + "constants.pkl" in entries:
            raise Rejected(f"{file.name} is a TorchScript program, not weights", "export it to ONNX, or save its state_dict")
        info = entries[pickles[0]]
        if info.file_size > _MAX_PICKLE_BYTES or info.compress_type != zipfile.ZIP_STORED:
            raise Rejected(f"{file.name}: its data.pkl is too large or compressed", _HINT)
        try:
            facts = read_pickle(archive.read(info), 0, file.name)
        except (PickleEnds, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
            raise Rejected(f"{file.name}: its data.pkl is damaged", _HINT) from None
    for storage in facts.storages.values():
        record = entries.get(f"{prefix}data/{storage.key}")
        if record is None or record.file_size < storage.count * storage.item_bytes:
            raise Rejected(f"{file.name}: storage {storage.key[:40]} is missing or too short", _HINT)
    return _tally(facts, file.name)


def _read_legacy(file: File) -> TensorTally:
    size = 2**20
    while True:  # the pickles come first and say how long they are only by ending
        with file.open() as stream:
            head = stream.read(size)
        try:
            at = len(_LEGACY_MAGIC)
            for _ in range(2):  # protocol number, sizes of the machine's types
                at = read_pickle(head, at, file.name).end
            facts = read_pickle(head, at, file.name)
            at = read_pickle(head, facts.end, file.name).end  # order of the storages, of no interest
            break
        except PickleEnds:
            if len(head) < size or size >= _MAX_PICKLE_BYTES:
                raise not_whole(file.name, file.size) from None
            size *= 8
    expected = at + sum(8 + storage.count * storage.item_bytes for storage in facts.storages.values())
    if file.size < expected:
        raise not_whole(file.name, file.size, expected)
    return _tally(facts, file.name)


def _tally(facts: PickleFacts, name: str) -> TensorTally:
    if not isinstance(facts.value, dict):
        raise Rejected(f"{name} does not hold named tensors", "save the model's state_dict, best as safetensors")
    tensors = {key: value for key, value in facts.value.items() if isinstance(value, StoredTensor)}
    if not tensors:
        raise Rejected(f"{name} does not hold named tensors", "save the model's state_dict, best as safetensors")
    stored: dict[str, Stored] = {}
    seen: set[StoredTensor] = set()
    for key, tensor in tensors.items():  # tied weights are stored once: count them once
        count = tensor.count if tensor not in seen else 0
        stored[key] = Stored(tensor.storage.dtype, count, count * tensor.storage.item_bytes)
        seen.add(tensor)
    used = {tensor.storage for tensor in tensors.values()}
    return TensorTally(tensors=stored, data_bytes=sum(storage.count * storage.item_bytes for storage in used))
