"""What the python runtime refuses, rows of single tasks and folders, in words, and what parameters change; without a server, as
in ``test_task_answers.py``. That a row's fault is its sender's alone by way of Triton: ``test_runtime_faults.py``.
"""

from __future__ import annotations

import io
import json
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import ensure_models
from tests.server.task_process import Question, TaskError, TaskProcess

pytestmark = pytest.mark.server

NAMES = ("minilm", "vit", "audio-classifier", "qa", "gpt2", "t5", "whisper", "fill-mask")


@pytest.fixture(scope="module")
def models() -> Path:
    """The directory of the models that are asked here."""
    return ensure_models(names=NAMES)


@pytest.fixture(scope="module")
def tasks(models: Path) -> Iterator[TaskProcess]:
    """One process for all tests of this module."""
    process = TaskProcess(models)
    yield process
    process.close()


def refused(tasks: TaskProcess, inputs: dict[str, object], kind: str = "BadInput", **parameters: object) -> str:
    """What the one who sent this row is told."""
    with pytest.raises(TaskError) as error:
        tasks.ask(inputs, **parameters)
    assert error.value.kind == kind
    return str(error.value)


@pytest.mark.parametrize("name", ["minilm", "gpt2"])
def test_nothing_is_imported_that_only_training_and_compiling_want(tasks: TaskProcess, name: str) -> None:
    """They would double the time of a load."""
    tasks.load(name)
    heavy = ("torch._inductor", "sklearn", "pandas", "scipy.optimize")
    assert tasks.imported("torch", "transformers.generation.utils", *heavy) == ["torch", "transformers.generation.utils"]


def test_embeddings_refuse_what_they_would_have_to_cut(tasks: TaskProcess) -> None:
    tasks.load("minilm")
    long = "word " * 400
    assert "402 tokens long, this model takes at most 256" in refused(tasks, {"TEXT": long}, "TooLong", truncate=False)
    assert "no prompt 'query'; this model has no prompts" in refused(tasks, {"TEXT": "x"}, prompt_name="query")
    left, right = [
        np.array(tasks.ask({"TEXT": "first " + long + "last"}, truncation_direction=side)["EMBEDDING"])
        for side in ("left", "right")
    ]
    assert np.abs(left - right).max() > 1e-3
    batch = [f"text number {i} {'and more ' * (i % 7)}" for i in range(16)]
    together = tasks.ask_rows([Question(inputs={"TEXT": text}, parameters={}) for text in batch])
    for text, answer in zip(batch, together, strict=True):
        assert not isinstance(answer, TaskError), answer
        assert np.abs(np.array(answer["EMBEDDING"]) - tasks.ask({"TEXT": text})["EMBEDDING"]).max() < 1e-5


def test_pictures_that_are_none_are_refused(tasks: TaskProcess, models: Path) -> None:
    tasks.load("vit")
    red = (models / "files" / "red.png").read_bytes()
    pictures = (red, b"not a picture", red[: len(red) // 2], b"")
    good, *bad = tasks.ask_rows([Question(inputs={"IMAGE": picture}, parameters={}) for picture in pictures])
    assert not isinstance(good, TaskError) and good["LABEL"][0] == "red"
    assert all(isinstance(one, TaskError) and "IMAGE cannot be read as a picture" in str(one) for one in bad), bad


def test_sound_of_any_rate_is_heard_and_noise_that_is_no_file_is_refused(tasks: TaskProcess) -> None:
    tasks.load("audio-classifier")
    for rate in (8000, 22050, 44100, 48000):
        low, high = [tasks.ask({"AUDIO": tone(hertz, rate)})["LABEL"][0] for hertz in (400, 2400)]
        assert (low, high) == ("low", "high"), rate
    assert "AUDIO cannot be read" in refused(tasks, {"AUDIO": b"hum"})
    assert "AUDIO holds no sound" in refused(tasks, {"AUDIO": tone(400, 8000, 0)})


def test_answers_are_found_in_every_part_of_a_long_context(tasks: TaskProcess) -> None:
    """The context is several windows long; which spot this tiny model likes best is not what is tested."""
    tasks.load("qa")
    context = "Ada was in London. Alan was in Cambridge. " * 80
    answer = tasks.ask({"QUESTION": "where was Ada?", "CONTEXT": context}, top_k=100)
    count = answer["COUNT"][0]
    spans = list(zip(answer["START"][:count], answer["END"][:count], strict=True))
    assert [context[start:end] for start, end in spans] == answer["ANSWER"][:count]
    quarters = {4 * start // len(context) for start, _ in spans}
    assert quarters == {0, 1, 2, 3}
    several = tasks.ask({"QUESTION": "where was Grace?", "CONTEXT": context[-200:]}, top_k=3)
    assert several["COUNT"] == [3] and sorted(several["SCORE"], reverse=True) == several["SCORE"]
    assert "must not be empty" in refused(tasks, {"QUESTION": "", "CONTEXT": "x"})


def test_text_is_generated_as_asked(tasks: TaskProcess) -> None:
    tasks.load("gpt2")

    def write(text: str, **parameters: object) -> dict[str, Any]:
        return tasks.ask({"TEXT": text}, **parameters)

    stopped = write("The quick brown", stop=["jumps"], max_new_tokens=40)
    assert (stopped["GENERATED_TEXT"][0], stopped["FINISH_REASON"][0]) == (" fox ", "stop")
    cut_off = write("The quick brown", max_new_tokens=3)
    assert (cut_off["FINISH_REASON"][0], cut_off["OUTPUT_TOKENS"][0]) == ("length", 3)
    ended = write("The quick brown", max_new_tokens=60)
    assert ended["FINISH_REASON"][0] == "stop" and ended["GENERATED_TEXT"][0].endswith("runs away.")
    options: dict[str, object] = {
        "do_sample": True,
        "temperature": 5.0,
        "num_return_sequences": 2,
        "seed": 7,
        "max_new_tokens": 20,
    }
    alone = write("A model", **options)
    others = [Question(inputs={"TEXT": "Once"}, parameters={}) for _ in range(5)]
    among, *_ = tasks.ask_rows([Question(inputs={"TEXT": "A model"}, parameters=options), *others])
    assert not isinstance(among, TaskError), among
    assert alone["GENERATED_TEXT"] == among["GENERATED_TEXT"]
    assert len(set(alone["GENERATED_TEXT"])) == 2
    assert "context is 96" in refused(tasks, {"TEXT": "fox " * 100}, "TooLong")
    assert "nothing to continue" in refused(tasks, {"TEXT": ""})
    assert "'do_sample'" in refused(tasks, {"TEXT": "x"}, num_return_sequences=2)


def test_parameters_that_mean_nothing_to_a_model_are_refused(tasks: TaskProcess, models: Path) -> None:
    tasks.load("t5")
    assert "no languages to choose from" in refused(tasks, {"TEXT": "x"}, src_lang="xx", tgt_lang="yy")
    tasks.load("whisper")
    hello, long = [(models / "files" / name).read_bytes() for name in ("hello.wav", "long.wav")]
    assert "does not know 'klingon'" in refused(tasks, {"AUDIO": hello}, language="klingon")
    assert "must be transcribe or translate" in refused(tasks, {"AUDIO": hello}, task="sing")
    assert tasks.ask({"AUDIO": long}, language="english")["TEXT"][0]


def load_failure(tasks: TaskProcess, path: Path) -> str:
    """Why a folder that analysis accepts can't be loaded."""
    with pytest.raises(TaskError) as error:
        tasks.load(path.name, path=path)
    return str(error.value)


def test_weights_that_lack_what_the_config_says_are_refused(tasks: TaskProcess, models: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models / "fill-mask", tmp_path / "headless"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "lack tensors that BertForSequenceClassification needs: classifier.bias" in load_failure(tasks, folder)
    config |= {"architectures": ["BertForMaskedLM"], "intermediate_size": 100}
    wrong = Path(shutil.copytree(folder, tmp_path / "misshapen"))
    (wrong / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told = load_failure(tasks, wrong)
    assert "bert.encoder.layer.0.intermediate.dense.bias is 96 in the weights" in told and "but 100 by its config.json" in told


def tone(hertz: int, rate: int, seconds: float = 0.4) -> bytes:
    """A 16-bit wav file."""
    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()
