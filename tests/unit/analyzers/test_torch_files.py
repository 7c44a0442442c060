"""``pytorch_model.bin``: counted without unpickling, in both formats; truncation, forged pickles, random bytes."""

from __future__ import annotations

import contextlib
import io
import itertools
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelium.analyzers.formats.torch_pickle import PickleEnds, read_pickle
from modelium.analyzers.verdict import Rejected
from modelium.values import Incomplete, ModelProfile, WeightFormat
from tests.unit.analyzers.folders import BERT, TOKENIZER, incomplete, lay, look, profile, torch_legacy, torch_zip, unsupported

_numbers = itertools.count()
_random = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _lay(folder: Path, weights: bytes) -> Path:
    return lay(folder, {"config.json": _CONFIG, "tokenizer.json": TOKENIZER, "pytorch_model.bin": weights})


_CONFIG = str(BERT).replace("'", '"')


def test_a_torch_zip_is_counted_tied_weights_once(tmp_path: Path) -> None:
    found = profile(_lay(tmp_path / "m", torch_zip()))
    assert found.weight_format is WeightFormat.PICKLE and found.pickled
    assert (found.parameters, found.weight_bytes, found.dtype) == (32, 152, "float32")


def test_the_old_torch_format_is_counted_and_its_length_proven(tmp_path: Path) -> None:
    whole = torch_legacy()
    found = profile(_lay(tmp_path / "m", whole))
    assert (found.parameters, found.weight_bytes) == (32, 152)
    part = incomplete(_lay(tmp_path / "cut", whole[:-30])).missing[0]
    assert (part.present_bytes, part.expected_bytes) == (len(whole) - 30, len(whole))


@pytest.mark.parametrize("whole", [torch_zip(), torch_legacy()], ids=["zip", "legacy"])
def test_no_truncation_is_ever_a_profile(tmp_path: Path, whole: bytes) -> None:
    folder = _lay(tmp_path / "m", whole)
    assert isinstance(look(folder), ModelProfile)
    for length in range(0, len(whole), 7):
        (folder / "pytorch_model.bin").write_bytes(whole[:length])
        assert isinstance(look(folder), Incomplete), length


def test_a_pickle_that_would_call_something_is_refused_by_name(tmp_path: Path) -> None:
    found = unsupported(_lay(tmp_path / "m", torch_zip(evil=True)))
    assert "posix.system" in found.why and "safetensors" in found.hint


def _zip_of(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        (b"this is no torch file, whatever its name says", "not a torch file"),
        (_zip_of(hello=b"world"), "no data.pkl"),
        (_zip_of(**{"a__data.pkl": b"\x80\x02K\x01.", "a__constants.pkl": b""}), "TorchScript"),
        (_zip_of(**{"a__data.pkl": b"\x80\x02K\x01."}), "named tensors"),
        (_zip_of(**{"a__data.pkl": b"\x80\x02}."}), "named tensors"),
        (_zip_of(**{"a__data.pkl": b"\x80\x02("}), "damaged"),
        (_zip_of(**{"a__data.pkl": b"\x80\x02\x82\x01."}), "opcode"),
    ],
)
def test_other_zips_and_damaged_pickles_are_refused(tmp_path: Path, weights: bytes, word: str) -> None:
    assert word in unsupported(_lay(tmp_path / "m", weights)).why


def test_a_zip_that_lacks_a_storage_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(torch_zip())) as archive:
        weights = _zip_of(**{"archive__data.pkl": archive.read("archive/data.pkl")})
    assert "storage 0" in unsupported(_lay(tmp_path / "m", weights)).why


@_random
@given(st.binary(max_size=200))
def test_random_pickles_end_or_are_refused_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(PickleEnds, Rejected):
        read_pickle(b"\x80\x02" + data, 0, "pytorch_model.bin")


@_random
@given(st.data())
def test_a_damaged_byte_never_raises(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([torch_zip(), torch_legacy()])))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    result = look(_lay(tmp_path / f"m{next(_numbers)}", bytes(whole)))
    assert isinstance(result, ModelProfile) or "please report" not in getattr(result, "hint", "")
