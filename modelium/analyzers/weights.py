"""Which files hold a folder's weights, whether they are whole, and their exact sizes.

What enters: a ``Folder``. What leaves: ``Weights``, with every part that is missing, so that all of it can be shown at
once. The order is transformers' own: one safetensors file, safetensors shards, one torch file, torch shards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from modelium.analyzers.folder import Folder
from modelium.analyzers.formats.json_text import MAX_CONFIG_BYTES, JsonObject, nested, parse_index
from modelium.analyzers.formats.safetensors_header import read_header
from modelium.analyzers.formats.tensor_tally import TensorTally
from modelium.analyzers.formats.torch_zip import read_torch_file
from modelium.analyzers.remembered import Remembered
from modelium.analyzers.stored import INDEX_DTYPES, Account, Storing
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.values import MissingPart, WeightFormat

_SHARD = re.compile(r"(model|pytorch_model)-(\d{5,6})-of-(\d{5,6})\.(safetensors|bin)")
MAX_SHARDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """``files`` in the order of reading. When ``missing`` is not empty, the numbers cover only the parts that are there."""

    format: WeightFormat
    files: tuple[str, ...]
    parameters: int = 0
    loaded_parameters: int = 0
    routed_parameters: int = 0
    tower_parameters: int = 0
    weight_bytes: int = 0
    loaded_bytes: int = 0
    dtype: str = "float32"
    missing: NotYet | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    """What a file's tensors mean, and what is known of files already."""

    storing: Storing
    remembered: Remembered


def find_weights(folder: Folder, storing: Storing | None = None, remembered: Remembered | None = None) -> Weights | None:
    """The weights of ``folder``; None where there are none that transformers would read."""
    how = _How(storing=storing or Storing(), remembered=remembered or Remembered())
    for kind, single, index in (
        (WeightFormat.SAFETENSORS, "model.safetensors", "model.safetensors.index.json"),
        (WeightFormat.PICKLE, "pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if single in folder:
            return _read_files(folder, kind, (single,), how)
        if index in folder:
            return _read_shards(folder, kind, index, how)
        if shards := _numbered_shards(folder, kind):
            listed = NotYet(
                f"{index}: not there yet", MissingPart(file=index, present_bytes=0), hint_when_stale=_no_index(index)
            )
            return _read_files(folder, kind, shards, how, listed)
        if single in folder.in_flight:
            present = folder.in_flight[single].size
            late = NotYet(
                f"{single} is being downloaded", MissingPart(file=single, present_bytes=present), hint_when_stale=_STOPPED
            )
            return Weights(format=kind, files=(single,), missing=late)
    return None


_STOPPED = "the download has stopped: start it again"


def summarize(elements: Mapping[str, int]) -> tuple[int, str]:
    """Parameters, and the dtype that most of them have. Integer indices and masks are buffers, not parameters."""
    counted = {dtype: count for dtype, count in elements.items() if dtype not in INDEX_DTYPES}
    floats = {dtype: count for dtype, count in counted.items() if "float" in dtype}
    # A 4-bit model packs eight weights into an int32: there the packed type is what most of the memory has.
    pool = counted if sum(counted.values()) > 4 * sum(floats.values()) else floats
    dtype = max(pool, key=lambda word: (pool[word], word), default="float32")
    return sum(counted.values()), dtype


def _read_shards(folder: Folder, kind: WeightFormat, index: str, how: _How) -> Weights:
    content = parse_index(folder.read(index, MAX_CONFIG_BYTES), index)
    placed = _shard_of_each(nested(content, "weight_map"))
    if not placed:
        raise Rejected(f"{index} names no shards", "copy the model again from its source")
    shards = tuple(sorted(set(placed.values())))
    if len(shards) > MAX_SHARDS:
        raise Rejected(f"{index} names {len(shards):,} shards; at most {MAX_SHARDS:,} are read", "is it the right file?")
    for shard in shards:
        if shard.startswith("/") or ".." in shard.split("/"):
            raise Rejected(f"{index} points outside the folder: {shard[:120]!r}", "copy the model again from its source")
    total = nested(content, "metadata").get("total_size")
    expected_total = total if isinstance(total, int) and total > 0 else None
    return _read_files(folder, kind, shards, how, index=index, expected_total=expected_total, placed=placed)


def _check_places(placed: Mapping[str, str], tallies: Mapping[str, TensorTally]) -> None:
    """That each tensor is where the index says, of the shards that are there."""
    counts = Counter(placed.values())
    if all(
        counts[shard] == len(tally.tensors) and set(map(placed.get, tally.tensors)) == {shard}
        for shard, tally in tallies.items()
    ):
        return
    for tensor, shard in placed.items():
        if shard in tallies and tensor not in tallies[shard].tensors:
            raise Rejected(
                f"{shard} lacks {tensor[:120]!r}, which the index says it holds", "the shards are of different versions"
            )


def _shard_of_each(entries: JsonObject) -> Mapping[str, str]:
    """Nearly always all of them are names: then nothing is copied."""
    if set(map(type, entries.values())) <= {str}:
        return cast("Mapping[str, str]", entries)
    return {name: shard for name, shard in entries.items() if isinstance(shard, str)}


def _read_files(
    folder: Folder,
    kind: WeightFormat,
    names: tuple[str, ...],
    how: _How,
    late: NotYet | None = None,
    *,
    index: str = "",
    expected_total: int | None = None,
    placed: Mapping[str, str] | None = None,
) -> Weights:
    read = read_header if kind is WeightFormat.SAFETENSORS else read_torch_file
    how.remembered.begin(folder.get(index) if index else None, how.storing)
    accounts: dict[str, Account] = {}
    tallies: dict[str, TensorTally] = {}  # of what is read now
    unfinished = [late] if late is not None else []
    absent: list[str] = []
    for name in names:
        file = folder.get(name)
        if file is None:
            absent.append(name)
            continue
        if (seen := how.remembered.find(file)) is not None:
            accounts[name] = seen
            continue
        try:
            tallies[name] = read(file)
        except NotYet as short:
            unfinished.append(short)
            continue
        accounts[name] = Account(data_bytes=tallies[name].data_bytes)
        accounts[name].count(tallies[name].tensors, how.storing)
    known = sum(account.data_bytes for account in accounts.values())
    known += sum(missing.expected_bytes or 0 for verdict in unfinished for missing in verdict.missing)
    share = (expected_total - known) // len(absent) if absent and expected_total and expected_total > known else None
    for name in absent:
        copying = folder.in_flight.get(name)
        part = MissingPart(file=name, present_bytes=copying.size if copying else 0, expected_bytes=share)
        unfinished.append(NotYet(f"{name}: not there yet", part))
    if placed:
        _check_places(placed, tallies)
    account = Account()
    for name, each in accounts.items():
        account.add(each)
        if name in tallies:
            how.remembered.keep(folder.files[name], each)
    return Weights(
        format=kind,
        files=names,
        parameters=account.parameters,
        loaded_parameters=account.loaded,
        routed_parameters=account.routed,
        tower_parameters=account.in_towers,
        weight_bytes=account.data_bytes,
        loaded_bytes=account.loaded_bytes,
        dtype=summarize(account.elements)[1],
        missing=join_missing(unfinished),
    )


def join_missing(unfinished: list[NotYet]) -> NotYet | None:
    """One verdict for all that is missing; it may go stale only when every one of them may."""
    if not unfinished:
        return None
    hints = [verdict.hint_when_stale for verdict in unfinished]
    shown = [verdict.why for verdict in unfinished[:4]] + ([f"and {len(unfinished) - 4} more"] if len(unfinished) > 4 else [])
    parts = [part for verdict in unfinished for part in verdict.missing]
    return NotYet("; ".join(shown), *parts, hint_when_stale=hints[0] if all(hint is not None for hint in hints) else None)


def _numbered_shards(folder: Folder, kind: WeightFormat) -> tuple[str, ...]:
    """All names of a numbered set of which at least one is there (its index may come last)."""
    ending = "safetensors" if kind is WeightFormat.SAFETENSORS else "bin"
    for name in folder.names():
        match = _SHARD.fullmatch(name)
        if match and match[4] == ending and 0 < int(match[3]) <= MAX_SHARDS:
            width = len(match[2])
            return tuple(f"{match[1]}-{number:0{width}d}-of-{match[3]}.{ending}" for number in range(1, int(match[3]) + 1))
    return ()


def _no_index(index: str) -> str:
    return f"copy {index} too: it says which shard holds which tensor"
