"""Requests and folders that the python runtime must refuse, each by itself and in words; and what parameters change."""

from __future__ import annotations

import asyncio
import json
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
    with pytest.raises(InferenceFailed, match="row 1: unknown parameter"):
        wrong = np.array([[b""], [b'{"x": 1}']], dtype=np.object_)
        await triton.client.infer("classifier", {"TEXT": texts, "PARAMETERS": wrong}, timeout_s=240)
    await triton.unload("classifier")


async def test_embeddings_refuse_what_they_would_have_to_cut(triton: Triton) -> None:
    await triton.load("minilm")
    long = "word " * 400
    assert "402 tokens long, this model takes at most 256" in await refused(
        triton, "minilm", {"TEXT": long}, {"truncate": False}
    )
    assert "no prompt 'query'; this model has no prompts" in await refused(
        triton, "minilm", {"TEXT": "x"}, {"prompt_name": "query"}
    )
    left, right = [
        (await triton.ask("minilm", {"TEXT": "first " + long + "last"}, {"truncation_direction": side}))["EMBEDDING"]
        for side in ("left", "right")
    ]
    assert np.abs(left - right).max() > 1e-3
    batch = np.array([[f"text number {i} {'and more ' * (i % 7)}".encode()] for i in range(16)], dtype=np.object_)
    together = (await triton.client.infer("minilm", {"TEXT": batch}, timeout_s=240))["EMBEDDING"]
    alone = [(await triton.ask("minilm", {"TEXT": text}))["EMBEDDING"] for text in batch[:, 0]]
    assert np.abs(together - np.stack(alone)).max() < 1e-5
    await triton.unload("minilm")


async def test_pictures_that_are_none_are_refused(triton: Triton) -> None:
    await triton.load("vit")
    red = (triton.models / "files" / "red.png").read_bytes()
    good, *bad = await asyncio.gather(
        triton.ask("vit", {"IMAGE": red}),
        refused(triton, "vit", {"IMAGE": b"not a picture"}),
        refused(triton, "vit", {"IMAGE": red[: len(red) // 2]}),
        refused(triton, "vit", {"IMAGE": b""}),
    )
    assert good["LABEL"][0] == b"red"
    assert all("IMAGE cannot be read as a picture" in message for message in bad)
    await triton.unload("vit")


async def test_sound_of_any_rate_is_heard_and_noise_that_is_no_file_is_refused(triton: Triton, tmp_path: Path) -> None:
    await triton.load("audio-classifier")
    for rate in (8000, 22050, 44100, 48000):
        low, high = [(await triton.ask("audio-classifier", {"AUDIO": tone(hertz, rate)}))["LABEL"][0] for hertz in (400, 2400)]
        assert (low, high) == (b"low", b"high"), rate
    assert "AUDIO cannot be read" in await refused(triton, "audio-classifier", {"AUDIO": b"hum"})
    assert "AUDIO holds no sound" in await refused(triton, "audio-classifier", {"AUDIO": tone(400, 8000, 0)})
    await triton.unload("audio-classifier")


async def test_answers_are_found_in_every_part_of_a_long_context(triton: Triton) -> None:
    """The context is several windows long; which spot this tiny model likes best is not what is tested."""
    await triton.load("qa")
    context = "Ada was in London. Alan was in Cambridge. " * 80
    answer = await triton.ask("qa", {"QUESTION": "where was Ada?", "CONTEXT": context}, {"top_k": 100})
    count = int(answer["COUNT"][0])
    spans = list(zip(answer["START"][:count].tolist(), answer["END"][:count].tolist(), strict=True))
    assert [context[start:end].encode() for start, end in spans] == answer["ANSWER"][:count].tolist()
    quarters = {4 * start // len(context) for start, _ in spans}
    assert quarters == {0, 1, 2, 3}
    several = await triton.ask("qa", {"QUESTION": "where was Grace?", "CONTEXT": context[-200:]}, {"top_k": 3})
    assert several["COUNT"][0] == 3 and sorted(several["SCORE"], reverse=True) == several["SCORE"].tolist()
    assert "must not be empty" in await refused(triton, "qa", {"QUESTION": "", "CONTEXT": "x"})
    await triton.unload("qa")


async def test_text_is_generated_as_asked(triton: Triton) -> None:
    await triton.load("gpt2")

    async def write(text: str, **parameters: object) -> dict[str, Any]:
        return await triton.ask("gpt2", {"TEXT": text}, parameters)

    stopped = await write("The quick brown", stop=["jumps"], max_new_tokens=40)
    assert (stopped["GENERATED_TEXT"][0], stopped["FINISH_REASON"][0]) == (b" fox ", b"stop")
    cut_off = await write("The quick brown", max_new_tokens=3)
    assert (cut_off["FINISH_REASON"][0], cut_off["OUTPUT_TOKENS"][0]) == (b"length", 3)
    ended = await write("The quick brown", max_new_tokens=60)
    assert ended["FINISH_REASON"][0] == b"stop" and ended["GENERATED_TEXT"][0].endswith(b"runs away.")
    options = {"do_sample": True, "temperature": 5.0, "num_return_sequences": 2, "seed": 7, "max_new_tokens": 20}
    alone = await write("A model", **options)
    among, *_ = await asyncio.gather(*[write("A model", **options) if i == 0 else write("Once") for i in range(6)])
    assert alone["GENERATED_TEXT"].tolist() == among["GENERATED_TEXT"].tolist()
    assert len(set(alone["GENERATED_TEXT"].tolist())) == 2
    assert "context is 96" in await refused(triton, "gpt2", {"TEXT": "fox " * 100})
    assert "nothing to continue" in await refused(triton, "gpt2", {"TEXT": ""})
    assert "'do_sample'" in await refused(triton, "gpt2", {"TEXT": "x"}, {"num_return_sequences": 2})
    await triton.unload("gpt2")


async def test_parameters_that_mean_nothing_to_a_model_are_refused(triton: Triton) -> None:
    await triton.load("t5")
    assert "no languages to choose from" in await refused(triton, "t5", {"TEXT": "x"}, {"src_lang": "xx", "tgt_lang": "yy"})
    await triton.unload("t5")
    await triton.load("whisper")
    audio = {"AUDIO": {"file": "hello.wav"}}
    assert "does not know 'klingon'" in await refused(triton, "whisper", audio, {"language": "klingon"})
    assert "must be transcribe or translate" in await refused(triton, "whisper", audio, {"task": "sing"})
    spoken = await triton.ask("whisper", {"AUDIO": {"file": "long.wav"}}, {"language": "english"})
    assert spoken["TEXT"][0]
    await triton.unload("whisper")


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


async def load_failure(triton: Triton, path: Path) -> str:
    """Write the entry of a folder that analysis accepts and see why Triton can't load it."""
    profile = profile_of(path.name, path)
    triton.repository.write(profile, on_host(profile))
    with pytest.raises(LoadFailed) as error:
        await triton.client.load(path.name, timeout_s=240)
    return str(error.value)


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
        await triton.client.load("classifier-pickle", timeout_s=240)
    assert "weights_only" in str(error.value)
    assert not witness.exists()


async def test_weights_that_lack_what_the_config_says_are_refused(triton: Triton, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(triton.models / "fill-mask", tmp_path / "headless"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "lack tensors that BertForSequenceClassification needs: classifier.bias" in await load_failure(triton, folder)
    config |= {"architectures": ["BertForMaskedLM"], "intermediate_size": 100}
    wrong = Path(shutil.copytree(folder, tmp_path / "misshapen"))
    (wrong / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told = await load_failure(triton, wrong)
    assert "bert.encoder.layer.0.intermediate.dense.bias is 96 in the weights" in told and "but 100 by its config.json" in told


async def test_a_folder_that_vanished_is_named(triton: Triton, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(triton.models / "fill-mask", tmp_path / "vanished"))
    profile = profile_of("vanished", folder)
    triton.repository.write(profile, on_host(profile))
    shutil.rmtree(folder)
    client: TritonClient = triton.client
    with pytest.raises(LoadFailed, match="is not there; if Triton sees it elsewhere"):
        await client.load("vanished", timeout_s=240)


def tone(hertz: int, rate: int, seconds: float = 0.4) -> bytes:
    """A 16-bit wav file."""
    import io
    import wave

    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()
