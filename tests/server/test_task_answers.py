"""What tasks of the python runtime answer, in the model runtime but without a server: values against the libraries' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelium.signatures import signature
from modelium.values import ModelOverride, Task, WeightFormat
from tests.models import ensure_models, reference
from tests.models.factory import MAKERS, TASK_MAKERS
from tests.server.answers import EMBEDDINGS, as_pipeline, differences
from tests.server.broken_weights import broken
from tests.server.task_process import Question, TaskError, TaskProcess, as_tensors

# The first one may have to make all models.
pytestmark = [pytest.mark.server, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def models() -> Path:
    """The directory of the models that are asked here."""
    return ensure_models(names=[*MAKERS, *TASK_MAKERS])


@pytest.fixture(scope="module")
def tasks(models: Path) -> Iterator[TaskProcess]:
    """One process for all tests of this module."""
    process = TaskProcess(models)
    yield process
    process.close()


@pytest.mark.parametrize("name", [*(name for name in MAKERS if not name.startswith("onnx")), "ranker-words", "ranker-qwen3"])
def test_answers_equal_the_references(tasks: TaskProcess, models: Path, name: str) -> None:
    """One after the other, and all at once: a row's answer doesn't depend on who shares its batch."""
    profile = tasks.load(name)
    said = reference(models, name)
    assert profile.task is Task(said["task"])
    tolerance = 1e-5 if profile.task in EMBEDDINGS else 1e-4
    questions = [Question.of(case, models) for case in said["cases"]]

    one_by_one = [tasks.ask_one(question) for question in questions]
    together = tasks.ask_rows(questions)

    declared = {tensor.name: tensor for tensor in signature(profile).outputs}
    for case, *answers in zip(said["cases"], one_by_one, together, strict=True):
        for answer in answers:
            assert not isinstance(answer, TaskError), answer
            tensors = as_tensors(answer)
            assert tensors.keys() == declared.keys()
            assert all(tensors[key].ndim == len(tensor.dims) for key, tensor in declared.items() if tensors[key].size)
            found = as_pipeline(profile.task, tensors, case["parameters"])
            assert differences(found, case["answer"], tolerance) == [], case["inputs"]


TRANSLATORS = {"nllb": ("eng_Latn", "fra_Latn"), "m2m": ("en", "fr"), "mbart": ("en_XX", "fr_XX")}


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_translation_is_of_its_own_languages(tasks: TaskProcess, models: Path, name: str) -> None:
    """One after the other and together; and a row without a source is read in the folder's language, whatever came before."""
    assert tasks.load(name).task is Task.TRANSLATION
    cases = reference(models, name)["cases"]
    for case in cases:
        assert tasks.ask(case["inputs"], **case["parameters"])["GENERATED_TEXT"] == [case["answer"]]
    questions = [Question(inputs=case["inputs"], parameters=case["parameters"]) for case in cases]
    rest = {key: value for key, value in cases[0]["parameters"].items() if key != "src_lang"}
    together = tasks.ask_rows([*questions, Question(inputs=cases[0]["inputs"], parameters=rest)])
    said = [answer["GENERATED_TEXT"][0] for answer in together if not isinstance(answer, TaskError)]
    assert said == [*(case["answer"] for case in cases), cases[0]["answer"]]


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_word_is_no_language(tasks: TaskProcess, name: str) -> None:
    """Whatever the vocabulary has; and the nearest codes are named."""
    tasks.load(name)
    known = dict(zip(("src_lang", "tgt_lang"), TRANSLATORS[name], strict=True))
    for parameter in known:
        for word in ("▁the", "</s>", "the", "xx_Xxxx", "x" * 5_000, ""):
            with pytest.raises(TaskError, match=f"parameter '{parameter}': .* is none of this model's") as caught:
                tasks.ask({"TEXT": "the house"}, **(known | {parameter: word}))
            assert caught.value.kind == "BadInput"
            assert len(str(caught.value)) < 400
    for word in ("eng", "EN", "english", "en-US"):
        with pytest.raises(TaskError, match=rf"near: .*\b{known['src_lang']}\b"):
            tasks.ask({"TEXT": "the house"}, **(known | {"src_lang": word}))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_translator_of_many_wants_its_target(tasks: TaskProcess, name: str) -> None:
    """An answer in whatever language comes first looks like an answer."""
    tasks.load(name)
    with pytest.raises(TaskError, match="'tgt_lang' is missing"):
        tasks.ask({"TEXT": "the house"})


BREAKABLE = [name for name in MAKERS if not name.startswith("onnx") and name not in ("minilm", "classifier-pickle")]


@pytest.mark.parametrize("name", [*BREAKABLE, "mbart"])
def test_weights_of_nan_are_no_answer(tasks: TaskProcess, models: Path, tmp_path: Path, name: str) -> None:
    """Also where the answer has no number in it: a class, a word, a place is chosen from numbers."""
    tasks.load(name, path=broken(models / name, tmp_path / name, float("nan")))
    question = Question.of(reference(models, name)["cases"][0], models)
    with pytest.raises(TaskError, match=r"NaN|no numbers") as caught:
        tasks.ask_one(question)
    assert caught.value.kind == "BadOutput"


@pytest.mark.parametrize("name", ["multi-label", "ranker"])
def test_infinity_is_no_certainty(tasks: TaskProcess, models: Path, tmp_path: Path, name: str) -> None:
    """A sigmoid makes a 1 of it."""
    tasks.load(name, path=broken(models / name, tmp_path / name, float("inf"), only="classifier.bias"))
    with pytest.raises(TaskError, match="infinity") as caught:
        tasks.ask_one(Question.of(reference(models, name)["cases"][0], models))
    assert caught.value.kind == "BadOutput"


def test_a_tokenizer_of_pythons_has_places_too(tasks: TaskProcess, models: Path) -> None:
    """Entities, scores and words are transformers'; it leaves out where they stand."""
    tasks.load("ner-slow")
    for case in reference(models, "ner-slow")["cases"]:
        answer, strategy = tasks.ask(case["inputs"], **case["parameters"]), case["parameters"]["aggregation_strategy"]
        said = [one.get("entity_group", one.get("entity")) for one in case["answer"]]
        assert (answer["ENTITY"], answer["WORD"]) == (said, [one["word"] for one in case["answer"]])
        assert answer["SCORE"] == pytest.approx([one["score"] for one in case["answer"]], abs=1e-4)
        text = case["inputs"]["TEXT"]
        spans = [text[start:end] for start, end in zip(answer["START"], answer["END"], strict=True)]
        if strategy == "none":
            assert spans == [word.removesuffix("@@") for word in answer["WORD"]]
            assert answer["INDEX"] == [one["index"] for one in case["answer"]]


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_words_of_pieces_are_whole_entities(tasks: TaskProcess, strategy: str) -> None:
    """transformers refuses all strategies but simple where a tokenizer does not say what is a word."""
    tasks.load("ner-slow")
    text = "  ở New  York có Nguyễn Văn An ."
    answer = tasks.ask({"TEXT": text}, aggregation_strategy=strategy)
    spans = [text[start:end] for start, end in zip(answer["START"], answer["END"], strict=True)]
    assert list(zip(answer["ENTITY"], spans, strict=True)) == [("LOC", "New  York"), ("PER", "Nguyễn Văn An")]
    with pytest.raises(TaskError, match="makes no windows"):
        tasks.ask({"TEXT": text}, aggregation_strategy=strategy, stride=4)


@pytest.mark.parametrize("name", ["st-prompts", "st-default-prompt", "static-prompt"])
def test_prompts_are_sentence_transformers_own(tasks: TaskProcess, models: Path, name: str) -> None:
    """By name, literally, by default, none; alone and among others; with vectors that leave the prompt's tokens out."""
    tasks.load(name)
    cases = reference(models, name)["cases"]
    together = tasks.ask_rows([Question.of(case, models) for case in cases])
    for case, answer in zip(cases, together, strict=True):
        assert not isinstance(answer, TaskError), answer
        assert answer["EMBEDDING"] == pytest.approx(case["answer"], abs=1e-5), case["parameters"]
        alone = tasks.ask(case["inputs"], **case["parameters"])
        assert alone["EMBEDDING"] == pytest.approx(case["answer"], abs=1e-5), case["parameters"]
    with pytest.raises(TaskError, match=r"no prompt .third.; this model has .*other, query"):
        tasks.ask({"TEXT": "x"}, prompt_name="third")
    with pytest.raises(TaskError, match="must be left or right"):
        tasks.ask({"TEXT": "x"}, truncation_direction="up")


def test_a_table_cuts_as_it_is_asked(tasks: TaskProcess, models: Path) -> None:
    """model2vec cuts a text; where it does, the parameters of other embedders mean the same."""
    most = tasks.load("static-model2vec").max_length
    assert most is not None
    right, left = "yes " * most, "fox " * most
    expected = {text: tasks.ask({"TEXT": text})["EMBEDDING"] for text in (right, left)}
    assert expected[right] != expected[left]
    assert tasks.ask({"TEXT": right + left})["EMBEDDING"] == expected[right]
    assert tasks.ask({"TEXT": right + left}, truncation_direction="left")["EMBEDDING"] == expected[left]
    with pytest.raises(TaskError, match=f"{2 * most} tokens long, this model takes at most {most}"):
        tasks.ask({"TEXT": right + left}, truncate=False)


def test_whisper_says_when(tasks: TaskProcess, models: Path) -> None:
    """As transformers' pipeline: in two languages, below 30 seconds and above, alone and among others."""
    tasks.load("whisper-stamps")
    cases = reference(models, "whisper-stamps")["cases"]
    together = tasks.ask_rows([Question.of(case, models) for case in cases])
    assert any(len(case["answer"]["chunks"]) > 1 for case in cases)
    for case, among_others in zip(cases, together, strict=True):
        alone = tasks.ask_one(Question.of(case, models))
        for answer in (alone, among_others):
            assert not isinstance(answer, TaskError), answer
            assert answer["TEXT"] == [case["answer"]["text"]]
            times = zip(answer["CHUNK_TEXT"], answer["CHUNK_START"], answer["CHUNK_END"], strict=True)
            found = [{"text": text, "timestamp": [None if t < 0 else t for t in (a, b)]} for text, a, b in times]
            assert found == [{"text": one["text"], "timestamp": one["timestamp"]} for one in case["answer"]["chunks"]]
            assert answer["CHUNKS"] == [len(found)]
    recording = Question.of(cases[0], models).inputs
    plain = tasks.ask_one(Question(inputs=recording, parameters={"language": "english"}))
    assert plain["CHUNKS"] == [0]
    assert (plain["DURATION"], plain["LANGUAGE"]) == ([0.4], ["en"])


def test_whisper_tells_the_language_that_it_hears(tasks: TaskProcess, models: Path) -> None:
    """Of each recording in a batch, and writes what it would have written without looking."""
    tasks.load("whisper-stamps")
    recordings = [Question.of(case, models).inputs for case in reference(models, "whisper-stamps")["cases"][::2]]
    told = tasks.ask_rows([Question(inputs=one, parameters={"return_timestamps": True}) for one in recordings])
    for recording, answer in zip(recordings, told, strict=True):
        assert not isinstance(answer, TaskError), answer
        (language,) = answer["LANGUAGE"]
        assert language in ("en", "fr")
        said = tasks.ask(recording, return_timestamps=True, language=language)
        assert (said["TEXT"], said["LANGUAGE"]) == (answer["TEXT"], [language])


def test_whisper_takes_a_prompt_a_temperature_and_a_seed(tasks: TaskProcess, models: Path) -> None:
    tasks.load("whisper-stamps")
    recording = Question.of(reference(models, "whisper-stamps")["cases"][0], models).inputs
    asked = {"language": "en", "return_timestamps": True}
    plain = tasks.ask(recording, **asked)["TEXT"]
    for prompt in ("x", "words " * 200):  # no more of it is read than Whisper can
        assert tasks.ask(recording, prompt=prompt, **asked)["TEXT"]
    assert tasks.ask(recording, temperature=0, **asked)["TEXT"] == plain
    rows = [Question(inputs=recording, parameters={**asked, "temperature": 1.0, "seed": seed}) for seed in (1, 2, 1, 3, 4)]
    drawn = [answer["TEXT"] for answer in tasks.ask_rows(rows) if not isinstance(answer, TaskError)]
    assert len(drawn) == 5 and drawn[0] == drawn[2] == tasks.ask(recording, temperature=1.0, seed=1, **asked)["TEXT"]
    with pytest.raises(TaskError, match=r"disallowed special token: <\|en\|>") as caught:
        tasks.ask(recording, prompt="a <|en|> b", **asked)
    assert caught.value.kind == "BadInput"


def test_bounds_hold_for_a_whisper_that_says_when(tasks: TaskProcess, models: Path) -> None:
    """And what it cannot do is said."""
    tasks.load("whisper-stamps")
    inputs = Question.of(reference(models, "whisper-stamps")["cases"][0], models).inputs
    for parameters, words in (
        ({"return_timestamps": "word"}, "'return_timestamps' must be bool"),
        ({"return_timestamps": True, "language": "klingon"}, "does not know 'klingon'; it knows en, fr"),
        ({"return_timestamps": True, "max_new_tokens": 10_000}, "'max_new_tokens' must be at most 60"),
        ({"return_timestamps": True, "num_beams": 17}, "'num_beams' must be at most 16"),
        ({"return_timestamps": True, "task": "sing"}, "must be transcribe or translate"),
        ({"temperature": 1.5}, "'temperature' must be at most 1"),
    ):
        with pytest.raises(TaskError, match=words) as caught:
            tasks.ask(inputs, **parameters)
        assert caught.value.kind == "BadInput"
    tasks.load("wav2vec2")
    with pytest.raises(TaskError, match="Whisper tells them"):
        tasks.ask(inputs, return_timestamps=True)
    with pytest.raises(TaskError, match="'prompt' means nothing to a CTC model"):
        tasks.ask(inputs, prompt="x")
    assert (tasks.ask(inputs)["DURATION"], tasks.ask(inputs)["LANGUAGE"]) == ([0.4], [""])


@pytest.mark.parametrize("name", ["onnx-sentences", "onnx-classifier"])
def test_a_folder_of_a_graph_answers_as_the_model_it_was_exported_from(tasks: TaskProcess, models: Path, name: str) -> None:
    """With its tokenizer, its pooling and its labels; one after the other and together."""
    profile = tasks.load(name)
    said = reference(models, name)
    assert (profile.task, profile.weight_format, profile.onnx_file) == (said["task"], WeightFormat.ONNX, "onnx/model.onnx")
    together = tasks.ask_rows([Question.of(case, models) for case in said["cases"]])
    for case, answer in zip(said["cases"], together, strict=True):
        for found in (answer, tasks.ask(case["inputs"])):
            assert not isinstance(found, TaskError), found
            if "EMBEDDING" in found:
                assert found["EMBEDDING"] == pytest.approx(case["answer"], abs=1e-5)
            else:
                assert found["LABEL"] == [one["label"] for one in case["answer"]]
                assert found["SCORE"] == pytest.approx([one["score"] for one in case["answer"]], abs=1e-4)


def test_a_quantized_variant_is_chosen_by_its_name(tasks: TaskProcess, models: Path) -> None:
    chosen = ModelOverride(onnx_file="onnx/model_quantized.onnx")
    assert tasks.load("onnx-sentences", chosen).onnx_file == "onnx/model_quantized.onnx"
    for case in reference(models, "onnx-sentences")["cases"]:
        found, exact = np.array(tasks.ask(case["inputs"])["EMBEDDING"]), np.array(case["answer"])
        assert found @ exact > 0.98
        assert np.abs(found - exact).max() > 1e-5  # it is the other file
