"""Requests and folders that the python runtime must refuse, each by itself and in words, as the clients of Triton are told;
what single tasks refuse, and folders whose weights lack something, is asked without a server (``test_task_requests.py``)."""

from __future__ import annotations

import asyncio
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from modelium.errors import InferenceFailed, LoadFailed, NotFinite
from modelium.triton.client import TritonClient
from tests.models import reference
from tests.server.answers import as_pipeline, differences
from tests.server.broken_weights import broken
from tests.server.conftest import Triton, on_host, profile_of
from tests.server.loading import load

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]


async def refused(
    triton: Triton, name: str, inputs: Mapping[str, object], parameters: Mapping[str, object] | None = None
) -> str:
    """What the one who sent this row is told."""
    with pytest.raises(InferenceFailed) as error:
        await triton.ask(name, inputs, parameters)
    return str(error.value)


async def test_a_bad_row_is_its_senders_error_and_the_others_are_answered(triton: Triton) -> None:
    profile = await triton.load("classifier")
    case = reference(triton.models, "classifier")["cases"][0]
    bad: list[Any] = [
        ({"TEXT": "x"}, {"tok_k": 1}, "did you mean 'top_k'"),
        ({"TEXT": "x"}, {"colour": 1}, "this task knows function_to_apply, top_k"),
        ({"TEXT": "x"}, {"top_k": "many"}, "'top_k' must be int"),
        ({"TEXT": "x"}, {"top_k": 0}, "at least 1"),
        ({"TEXT": "x"}, {"function_to_apply": "relu"}, "softmax, sigmoid or none"),
        ({"TEXT": b"\xff\xfe"}, None, "not UTF-8"),
        ({"TEXT": "x", "PARAMETERS": "{oops"}, None, "PARAMETERS is not JSON"),
        ({"TEXT": "x", "PARAMETERS": "[1]"}, None, "must be a JSON object"),
    ]
    good = [triton.ask("classifier", case["inputs"]) for _ in range(8)]
    told = [refused(triton, "classifier", inputs, parameters) for inputs, parameters, _ in bad]
    answers = await asyncio.gather(*good)
    for (_, _, part), message in zip(bad, await asyncio.gather(*told), strict=True):
        assert part in message
    for answer in answers:
        assert differences(as_pipeline(profile.task, answer, {}), case["answer"], 1e-4) == []


async def test_rows_of_one_request_are_computed_together_and_padded(triton: Triton) -> None:
    await triton.load("classifier")
    texts = np.array([[b"the film was great"], [b"this meal was dull"]], dtype=np.object_)
    parameters = np.array([[b'{"top_k": 1}'], [b""]], dtype=np.object_)
    answer = await triton.client.infer("classifier", {"TEXT": texts, "PARAMETERS": parameters}, timeout_s=240)
    assert answer["LABEL"].tolist() == [[b"POSITIVE", b""], [b"NEGATIVE", b"POSITIVE"]]
    assert answer["SCORE"].shape == (2, 2) and answer["SCORE"][0, 1] == 0
    wrong = np.array([[b""], [b'{"x": 1}']], dtype=np.object_)
    with pytest.raises(InferenceFailed, match="row 1: unknown parameter"):
        await triton.client.infer("classifier", {"TEXT": texts, "PARAMETERS": wrong}, timeout_s=240)
    await triton.unload("classifier")


async def test_numbers_that_are_none_are_an_error_at_every_door(triton: Triton, tmp_path: Path) -> None:
    """The gateway's clients get a 502 for it; who asks Triton itself is told the same."""
    await triton.load("nan", path=broken(triton.models / "classifier", tmp_path / "nan", float("nan")))
    with pytest.raises(NotFinite, match="NaN"):
        await triton.ask("nan", {"TEXT": "the film was great"})
    body = {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{triton.server.http_url}/v2/models/nan/infer", json=body) as said,
    ):
        assert said.status == 400  # Triton's own for the code UNKNOWN
        assert "NaN" in (await said.json(content_type=None))["error"]
    with pytest.raises(InferenceFailed, match="unknown parameter"):
        await triton.ask("nan", {"TEXT": "x"}, {"colour": 1})
    await triton.unload("nan")


class Evil:
    """A pickle that would run a command when it is read."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.witness), "w")


async def test_a_pickle_with_code_in_it_is_not_run(triton: Triton, tmp_path: Path) -> None:
    import zipfile

    folder = Path(shutil.copytree(triton.models / "classifier-pickle", tmp_path / "evil"))
    weights, witness = folder / "pytorch_model.bin", tmp_path / "witness"
    with zipfile.ZipFile(weights) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(weights, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, pickle.dumps({"classifier.weight": Evil(witness)}) if name.endswith("data.pkl") else data)
    triton.repository.write(profile := profile_of("classifier-pickle", triton.models / "classifier-pickle"), on_host(profile))
    entry = Path(triton.server.log_path).parents[1] / "repository" / "classifier-pickle" / "config.pbtxt"
    text = entry.read_text(encoding="utf-8")
    entry.write_text(text.replace(str(triton.models / "classifier-pickle"), str(folder)), encoding="utf-8")
    with pytest.raises(LoadFailed) as error:  # analysis would refuse such a pickle already: here the entry is bent by hand
        await load(triton.client, "classifier-pickle", timeout_s=240)
    assert "weights_only" in str(error.value)
    assert not witness.exists()


async def test_a_folder_that_vanished_is_named(triton: Triton, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(triton.models / "fill-mask", tmp_path / "vanished"))
    profile = profile_of("vanished", folder)
    triton.repository.write(profile, on_host(profile))
    shutil.rmtree(folder)
    client: TritonClient = triton.client
    with pytest.raises(LoadFailed, match="is not there; if Triton sees it elsewhere"):
        await load(client, "vanished", timeout_s=240)
