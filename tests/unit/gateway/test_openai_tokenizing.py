"""Tokenizers are read beside the gateway: what one costs is paid by who asks for it, and the loop goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import psutil
import pytest

from modelium.gateway.deadline import Deadline
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.tokenizing import Tokenizing
from modelium.values import ModelProfile, Task

from .openai_models import write_folder
from .stand_in import profile_of


def model(path: Path, **changes: Any) -> ModelProfile:
    return profile_of(Task.FEATURE_EXTRACTION, path=write_folder(path), fingerprint="1", **changes)


def test_the_gateway_itself_reads_none() -> None:
    """The library lets no other thread run meanwhile: 10 s for 17 MiB on a busy machine."""
    said = run(
        [sys.executable, "-c", "import modelium.app, sys; print('tokenizers' in sys.modules)"], capture_output=True, check=True
    )
    assert said.stdout.strip() == b"False"


async def test_tokens_are_counted_and_read(tmp_path: Path) -> None:
    one, cut, two = model(tmp_path / "one"), model(tmp_path / "one", max_length=2), model(tmp_path / "two")
    tokenizing = Tokenizing()
    assert await tokenizing.count(one, ["hello world a", "b"], within_s=300) == 4
    assert await tokenizing.count(cut, ["hello world a", "b"], within_s=300) == 3
    assert await tokenizing.decode(two, [3, 4], param="input", deadline=Deadline(300)) == "hello world"
    assert len(_processes()) == 1, "one after the other they need one"
    _processes()[0].kill()
    assert await tokenizing.count(two, ["hello"], within_s=300) == 1
    for outside in (-1, 8, 2**32, 2**70):
        with pytest.raises(BadRequest, match="token ids from 0 to 7"):
            await tokenizing.decode(one, [3, outside], param="input", deadline=Deadline(300))
    await tokenizing.close()
    assert _processes() == []


async def test_the_frame_around_every_text_is_not_read_twice(tmp_path: Path) -> None:
    """The runtime writes it: a text's own ids mean that text, with the frame or without."""
    framed = profile_of(Task.FEATURE_EXTRACTION, path=write_folder(tmp_path / "framed", bos=True), fingerprint="1")
    tokenizing = Tokenizing()
    assert await tokenizing.decode(framed, [0, 3, 4], param="input", deadline=Deadline(300)) == "hello world"
    assert await tokenizing.decode(framed, [3, 4], param="input", deadline=Deadline(300)) == "hello world"
    assert await tokenizing.decode(framed, [0, 0, 3], param="input", deadline=Deadline(300)) == "<s> hello"
    await tokenizing.close()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 10**6, b"\xff", b" " * (64 * 2**20 + 1)])
async def test_what_is_no_tokenizer_counts_nothing(tmp_path: Path, content: bytes | None) -> None:
    profile, good = model(tmp_path / "m"), model(tmp_path / "good")
    file = tmp_path / "m" / "tokenizer.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    tokenizing = Tokenizing()
    assert await tokenizing.count(profile, ["hello"], within_s=300) == 0
    with pytest.raises(BadRequest, match="send text"):
        await tokenizing.decode(profile, [3], param="input", deadline=Deadline(300))
    assert await tokenizing.count(good, ["hello"], within_s=300) == 1
    await tokenizing.close()


async def test_one_that_takes_too_long_is_given_up_until_it_changes(tmp_path: Path) -> None:
    profile = model(tmp_path / "m")
    file = tmp_path / "m" / "tokenizer.json"
    usual = json.loads(file.read_bytes())
    vocabulary = usual["model"]["vocab"] | {f"word{number}": number + 8 for number in range(200_000)}
    file.write_text(json.dumps({**usual, "model": {**usual["model"], "vocab": vocabulary}}))
    hasty = Tokenizing(read_seconds=0.001)
    assert await hasty.count(profile, ["hello"], within_s=300) == 0
    assert _processes() == [], "it is ended"
    with pytest.raises(BadRequest, match="takes too much; send text"):
        await hasty.decode(profile, [3], param="input", deadline=Deadline(300))
    assert _processes() == [], "and none is started for it again"
    await hasty.close()
    patient = Tokenizing()
    assert await patient.count(profile, ["word199999 hello"], within_s=300) == 2
    assert await patient.count(profile, ["hello"], within_s=0) == 0
    await patient.close()


def _processes() -> list[psutil.Process]:
    found = psutil.Process().children()
    return [each for each in found if each.status() == psutil.STATUS_ZOMBIE or "token_process" in " ".join(each.cmdline())]
