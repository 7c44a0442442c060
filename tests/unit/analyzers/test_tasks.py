"""From architectures, model cards and files to tasks, and what else a profile says of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelium.analyzers.architectures import mappings
from modelium.values import ModelOverride, Pooling, PoolingMode, Task
from tests.unit.analyzers.folders import BERT, TOKENIZER, drop, incomplete, lay, profile, safetensors, unsupported

IMAGE = {"preprocessor_config.json": json.dumps({"image_processor_type": "ViTImageProcessor", "image_mean": [0.5]})}
SOUND = {"preprocessor_config.json": json.dumps({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000})}


def _card(tag: str) -> dict[str, str]:
    return {"README.md": f"---\nlicense: mit\npipeline_tag: {tag}\ntags:\n- x\n---\n# A model\npipeline_tag: not-this\n"}


def _config(architecture: str, model_type: str, **more: object) -> dict[str, object]:
    return {"architectures": [architecture], "model_type": model_type, **more}


@pytest.mark.parametrize(
    ("architecture", "model_type", "files", "task"),
    [
        ("BertModel", "bert", {}, Task.FEATURE_EXTRACTION),
        ("BertModel", "bert", _card("sentence-similarity"), Task.SENTENCE_SIMILARITY),
        ("BertModel", "bert", _card("text-classification"), Task.FEATURE_EXTRACTION),  # a base model has no such head
        ("MPNetModel", "mpnet", {}, Task.FEATURE_EXTRACTION),
        ("BertForSequenceClassification", "bert", {}, Task.TEXT_CLASSIFICATION),
        ("BartForSequenceClassification", "bart", _card("zero-shot-classification"), Task.ZERO_SHOT_CLASSIFICATION),
        ("DistilBertForTokenClassification", "distilbert", {}, Task.TOKEN_CLASSIFICATION),
        ("RobertaForQuestionAnswering", "roberta", {}, Task.QUESTION_ANSWERING),
        ("BertForMaskedLM", "bert", {}, Task.FILL_MASK),
        ("XLMWithLMHeadModel", "xlm", {}, Task.FILL_MASK),
        ("BertForPreTraining", "bert", {}, Task.FILL_MASK),
        ("LlamaForCausalLM", "llama", {}, Task.TEXT_GENERATION),
        ("GPT2LMHeadModel", "gpt2", {}, Task.TEXT_GENERATION),
        ("Gemma3ForConditionalGeneration", "gemma3", IMAGE, Task.IMAGE_TEXT_TO_TEXT),
        ("LlavaForConditionalGeneration", "llava", IMAGE, Task.IMAGE_TEXT_TO_TEXT),
        ("Qwen2VLForConditionalGeneration", "qwen2_vl", IMAGE, Task.IMAGE_TEXT_TO_TEXT),
        ("T5ForConditionalGeneration", "t5", {}, Task.TEXT2TEXT_GENERATION),
        ("T5ForConditionalGeneration", "t5", _card("translation"), Task.TRANSLATION),
        ("BartForConditionalGeneration", "bart", _card("summarization"), Task.SUMMARIZATION),
        ("MarianMTModel", "marian", {}, Task.TRANSLATION),
        ("ViTForImageClassification", "vit", IMAGE, Task.IMAGE_CLASSIFICATION),
        ("DetrForObjectDetection", "detr", IMAGE, Task.OBJECT_DETECTION),
        ("YolosForObjectDetection", "yolos", IMAGE, Task.OBJECT_DETECTION),
        ("ViTModel", "vit", IMAGE, Task.IMAGE_FEATURE_EXTRACTION),
        ("Dinov2Model", "dinov2", IMAGE, Task.IMAGE_FEATURE_EXTRACTION),
        ("Wav2Vec2ForCTC", "wav2vec2", SOUND, Task.AUTOMATIC_SPEECH_RECOGNITION),
        ("WhisperForConditionalGeneration", "whisper", SOUND, Task.AUTOMATIC_SPEECH_RECOGNITION),
        ("HubertForSequenceClassification", "hubert", SOUND, Task.AUDIO_CLASSIFICATION),
        ("ASTForAudioClassification", "audio-spectrogram-transformer", SOUND, Task.AUDIO_CLASSIFICATION),
        ("TFBertForMaskedLM", "bert", {}, Task.FILL_MASK),
    ],
)
def test_the_task_comes_from_the_architecture(
    tmp_path: Path, architecture: str, model_type: str, files: dict[str, str | bytes], task: Task
) -> None:
    found = profile(drop(tmp_path / "m", _config(architecture, model_type), files))
    assert found.task is task
    assert architecture.removeprefix("TF")[:4] in found.architecture and found.task_source
    assert found.is_llm is (task in (Task.TEXT_GENERATION, Task.IMAGE_TEXT_TO_TEXT))


@pytest.mark.parametrize(
    ("config", "tag", "task", "architecture"),
    [
        ({"model_type": "bert"}, "text-classification", Task.TEXT_CLASSIFICATION, "BertForSequenceClassification"),
        ({"model_type": "gpt2"}, "text-generation", Task.TEXT_GENERATION, "GPT2LMHeadModel"),
        ({"model_type": "bert"}, "", Task.FEATURE_EXTRACTION, "BertModel"),
    ],
)
def test_without_architectures_the_card_and_then_the_files_tell(
    tmp_path: Path, config: dict[str, object], tag: str, task: Task, architecture: str
) -> None:
    found = profile(drop(tmp_path / "m", config, _card(tag) if tag else {}))
    assert (found.task, found.architecture) == (task, architecture)


def test_a_summarizer_is_known_by_what_it_was_trained_for(tmp_path: Path) -> None:
    config = _config("BartForConditionalGeneration", "bart", task_specific_params={"summarization": {}})
    assert profile(drop(tmp_path / "m", config)).task is Task.SUMMARIZATION
    config = _config("T5ForConditionalGeneration", "t5", task_specific_params={"summarization": {}, "translation_en_to_de": {}})
    assert profile(drop(tmp_path / "t5", config)).task is Task.TEXT2TEXT_GENERATION


@pytest.mark.parametrize(
    ("config", "files", "word"),
    [
        (_config("CLIPModel", "clip"), IMAGE, "zero-shot-image-classification"),
        (_config("SegformerForSemanticSegmentation", "segformer"), IMAGE, "semantic-segmentation"),
        (_config("Wav2Vec2Model", "wav2vec2"), SOUND, "sound"),
        (_config("VitsModel", "vits"), {}, "text-to-waveform"),
        (_config("NoSuchModel", "bert"), {}, "does not know"),
        (_config("BertModel", "newer_than_transformers"), {}, "does not know"),
        ({"model_type": "bert"}, _card("text-to-video"), "text-to-video"),
        ({"vocab_size": 3}, {}, "model_type"),
    ],
)
def test_what_is_not_served_is_refused_by_its_name(
    tmp_path: Path, config: dict[str, object], files: dict[str, str | bytes], word: str
) -> None:
    found = unsupported(drop(tmp_path / "m", config, files))
    assert word in found.why and found.hint


def test_a_generator_that_only_vllm_has_code_for_is_one(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    found = profile(drop(tmp_path / "m", _config("InternLM3ForCausalLM", "internlm3", **sizes)))
    assert (found.task, found.library, found.is_llm) == (Task.TEXT_GENERATION, "vllm", True)
    assert found.language is not None and "vLLM" in found.task_source
    vision = _config("DeepseekVLV2ForCausalLM", "deepseek_vl_v2", language_config=sizes, vision_config={})
    found = profile(drop(tmp_path / "vl", vision, IMAGE))
    assert found.task is Task.IMAGE_TEXT_TO_TEXT and found.language is not None and found.language.layers == 2
    thinker = {"text_config": {"model_type": "qwen2_5_omni_text"}, "vision_config": {}, "audio_config": {}}
    omni = _config("Qwen2_5OmniForConditionalGeneration", "qwen2_5_omni", thinker_config=thinker)
    found = profile(drop(tmp_path / "omni", omni, IMAGE))
    assert found.task is Task.IMAGE_TEXT_TO_TEXT and found.language is not None
    assert found.language.modalities == ("image", "video", "audio") and found.language.kv_heads == 4


def test_an_override_of_the_task_wins(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", _config("BertForSequenceClassification", "bert"))
    found = profile(folder, ModelOverride(task=Task.ZERO_SHOT_CLASSIFICATION))
    assert found.task is Task.ZERO_SHOT_CLASSIFICATION and "modelium.yaml" in found.task_source
    assert "ONNX" in unsupported(folder, override=ModelOverride(task=Task.TENSORS)).why
    assert "Ray Serve" in unsupported(folder, override=ModelOverride(task=Task.SERVE_APP)).why


def test_an_override_of_the_task_keeps_what_only_vllm_has_code_for(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "vocab_size": 10})
    plain = profile(folder)
    assert plain.library == "vllm"
    assert profile(folder, ModelOverride(task=Task.TEXT_GENERATION)).library == "vllm"


# -- custom code -------------------------------------------------------------------------------------------------------

CUSTOM = _config(
    "MyModel", "mine", auto_map={"AutoConfig": "code.MyConfig", "AutoModelForSequenceClassification": "code.MyModel"}
)


def test_custom_code_is_refused_naming_the_key_and_runs_nothing(tmp_path: Path) -> None:
    bomb = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    folder = drop(tmp_path / "m", CUSTOM, {"code.py": bomb})
    assert "models: {m: {allow_custom_code: true}}" in unsupported(folder).hint
    found = profile(folder, ModelOverride(allow_custom_code=True))
    assert found.needs_custom_code and (found.task, found.architecture) == (Task.TEXT_CLASSIFICATION, "MyModel")
    assert not (tmp_path / "ran").exists()


def test_code_that_is_not_in_the_folder_is_missing_or_refused(tmp_path: Path) -> None:
    allowed = ModelOverride(allow_custom_code=True)
    folder = drop(tmp_path / "m", CUSTOM)
    assert "code.py" in unsupported(folder, age_s=3600, override=allowed).hint
    elsewhere = drop(tmp_path / "n", {**CUSTOM, "auto_map": {"AutoModel": "org/repo--code.MyModel"}})
    assert "org/repo" in unsupported(elsewhere, override=allowed).why


def test_code_beside_an_architecture_that_transformers_has_is_not_needed(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", {**BERT, "auto_map": {"AutoModel": "code.BertModel"}})
    assert not profile(folder).needs_custom_code


PHI_MOE = {
    **_config("PhiMoEForCausalLM", "phimoe"),
    "auto_map": {"AutoConfig": "code.PhiMoEConfig", "AutoModelForCausalLM": "code.PhiMoEForCausalLM"},
}


def test_code_beside_an_architecture_that_vllm_has_is_not_needed(tmp_path: Path) -> None:
    found = profile(drop(tmp_path / "m", PHI_MOE))
    assert (found.task, found.architecture, found.is_llm) == (Task.TEXT_GENERATION, "PhiMoEForCausalLM", True)
    assert not found.needs_custom_code and found.library == "transformers"  # under a name of its own
    kimi = {**PHI_MOE, "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2"}
    assert profile(drop(tmp_path / "kimi", kimi)).library == "vllm"


def test_code_is_needed_where_the_tokenizer_or_the_configuration_is_code(tmp_path: Path) -> None:
    own = {"tokenizer_config.json": json.dumps({"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}})}
    assert "code from its folder" in unsupported(drop(tmp_path / "tokenizer", PHI_MOE, own)).why
    unread = {**PHI_MOE, "architectures": ["Phi4MMForCausalLM"], "model_type": "phi4mm"}
    assert "code from its folder" in unsupported(drop(tmp_path / "config", unread)).why


def test_an_architecture_of_a_known_name_with_a_layout_of_its_own_needs_its_code(tmp_path: Path) -> None:
    jina = {
        **_config("XLMRobertaForSequenceClassification", "xlm-roberta"),
        "auto_map": {"AutoModelForSequenceClassification": "code.XLMRobertaForSequenceClassification"},
        "id2label": {"0": "LABEL_0"},
        "use_flash_attn": True,
    }
    files = {"README.md": "---\npipeline_tag: text-ranking\n---\n", "code.py": ""}
    folder = drop(tmp_path / "m", jina, files)
    assert "code from its folder" in unsupported(folder).why
    assert profile(folder, ModelOverride(allow_custom_code=True)).task is Task.TEXT_RANKING


@pytest.mark.parametrize(
    ("config", "tag"),
    [
        ({**_config("T5ForConditionalGeneration", "t5"), "chronos_config": {"context_length": 512}}, ""),
        (_config("PatchTSTForPrediction", "patchtst"), ""),
        (_config("MadeUp", "made_up"), "time-series-forecasting"),
    ],
)
def test_what_forecasts_is_refused_as_that(tmp_path: Path, config: dict[str, object], tag: str) -> None:
    found = unsupported(drop(tmp_path / "m", config, {"README.md": f"---\npipeline_tag: {tag}\n---\n"}))
    assert found.why == "it forecasts time series, which is not served"


def test_what_vllm_reads_with_another_tokenizer_alone_is_refused_as_that(tmp_path: Path) -> None:
    found = unsupported(drop(tmp_path / "m", _config("VoxtralForConditionalGeneration", "voxtral")))
    assert "listens and writes" in found.why and "--tokenizer_mode mistral" in found.hint


# -- embeddings --------------------------------------------------------------------------------------------------------


def _modules(*kinds: str, pooling: dict[str, object] | None = None) -> dict[str, str]:
    modules = [
        {"idx": n, "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    return {"modules.json": json.dumps(modules), "1_Pooling/config.json": json.dumps(pooling or {})}


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"word_embedding_dimension": 48, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, PoolingMode.CLS),
        ({"embedding_dimension": 48, "pooling_mode": "max"}, PoolingMode.MAX),
        ({"pooling_mode": ["lasttoken"]}, PoolingMode.LAST_TOKEN),
        ({"pooling_mode_mean_tokens": True}, PoolingMode.MEAN),
    ],
)
def test_pooling_is_read_in_both_spellings(tmp_path: Path, pooling: dict[str, object], mode: PoolingMode) -> None:
    found = profile(drop(tmp_path / "m", files=_modules("Transformer", "Pooling", "Normalize", pooling=pooling)))
    assert found.pooling == Pooling(mode=mode, normalize=True) and found.library == "sentence-transformers"
    assert found.embedding_width == (48 if len(pooling) > 1 else 32)


def test_without_modules_the_pooling_is_the_mean(tmp_path: Path) -> None:
    found = profile(drop(tmp_path / "m"))
    assert (found.pooling, found.library) == (Pooling(mode=PoolingMode.MEAN, normalize=False), "transformers")


def test_modules_make_an_embedding_model_of_any_head(tmp_path: Path) -> None:
    files = _modules("Transformer", "Pooling", pooling={"pooling_mode_lasttoken": True})
    found = profile(drop(tmp_path / "m", _config("Qwen3ForCausalLM", "qwen3", hidden_size=64), files))
    assert (found.task, found.is_llm, found.embedding_width) == (Task.SENTENCE_SIMILARITY, False, 64)


@pytest.mark.parametrize("pooling", [{"pooling_mode": "weightedmean"}, {"pooling_mode": ["mean", "cls"]}, {"pooling_mode": []}])
def test_pooling_that_the_runtime_lacks_is_refused(tmp_path: Path, pooling: dict[str, object]) -> None:
    assert "pooling" in unsupported(drop(tmp_path / "m", files=_modules("Transformer", "Pooling", pooling=pooling))).why


def test_a_module_that_the_runtime_lacks_is_refused(tmp_path: Path) -> None:
    assert "LSTM" in unsupported(drop(tmp_path / "m", files=_modules("Transformer", "Pooling", "LSTM"))).why
    assert "list of modules" in unsupported(drop(tmp_path / "n", files={"modules.json": "{}"})).why


def test_a_pooling_config_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    folder = drop(tmp_path / "m", files=_modules("Transformer", "Pooling"))
    (folder / "1_Pooling" / "config.json").unlink()
    assert incomplete(folder).missing[0].file == "1_Pooling/config.json"
    unsupported(folder, age_s=3600)


# -- lengths, labels, sides --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "files", "length"),
    [
        (BERT, {}, 512),
        (BERT, {"tokenizer_config.json": json.dumps({"model_max_length": 128})}, 128),
        (BERT, {"tokenizer_config.json": json.dumps({"model_max_length": 1e30})}, 512),
        (_config("RobertaModel", "roberta", max_position_embeddings=514, pad_token_id=1), {}, 512),
        (_config("T5EncoderModel", "t5", n_positions=512), {}, None),
        (_config("GPT2LMHeadModel", "gpt2", n_positions=1024), {}, 1024),
        (_config("Gemma3ForConditionalGeneration", "gemma3", text_config={"max_position_embeddings": 4096}), IMAGE, 4096),
        (BERT, {**_modules("Transformer", "Pooling"), "sentence_bert_config.json": '{"max_seq_length": 256}'}, 256),
        (BERT, {**_modules("Transformer", "Pooling"), "sentence_bert_config.json": '{"max_seq_length": null}'}, 512),
        (_config("ViTModel", "vit", max_position_embeddings=7), IMAGE, None),
    ],
)
def test_the_longest_input(
    tmp_path: Path, config: dict[str, object], files: dict[str, str | bytes], length: int | None
) -> None:
    assert profile(drop(tmp_path / "m", config, files)).max_length == length


def test_labels_are_in_id_order_and_default_to_two(tmp_path: Path) -> None:
    labelled = _config("BertForSequenceClassification", "bert", id2label={"10": "k", "2": "c", "0": "a"})
    assert profile(drop(tmp_path / "m", labelled)).labels == ("a", "c", "k")
    assert profile(drop(tmp_path / "n", _config("BertForSequenceClassification", "bert"))).labels == ("LABEL_0", "LABEL_1")
    assert profile(drop(tmp_path / "o")).labels == ()


def test_hierarchical_image_models_have_the_width_of_their_last_stage(tmp_path: Path) -> None:
    swin = drop(tmp_path / "m", _config("SwinModel", "swin", embed_dim=96, depths=[2, 2, 6, 2]), IMAGE)
    assert profile(swin).embedding_width == 768
    assert profile(drop(tmp_path / "n", _config("ResNetModel", "resnet", hidden_sizes=[64, 512]), IMAGE)).embedding_width == 512


def test_images_need_a_preprocessor_and_no_tokenizer(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "config.json": json.dumps(_config("ViTForImageClassification", "vit")),
        "model.safetensors": safetensors(),
    }
    assert incomplete(lay(tmp_path / "m", files)).missing[0].file == "preprocessor_config.json"
    profile(lay(tmp_path / "m", {"processor_config.json": json.dumps({"image_processor": {}})}))


def test_speech_needs_both(tmp_path: Path) -> None:
    config = json.dumps(_config("Wav2Vec2ForCTC", "wav2vec2"))
    found = incomplete(lay(tmp_path / "m", {"config.json": config, "model.safetensors": safetensors()}))
    assert {part.file for part in found.missing} == {"preprocessor_config.json", "tokenizer.json"}


def test_byte_and_character_models_have_no_vocabulary(tmp_path: Path) -> None:
    for name, config, tokenizer in (
        ("canine", _config("CanineForSequenceClassification", "canine"), "{}"),
        ("byt5", _config("T5ForConditionalGeneration", "t5"), '{"tokenizer_class": "ByT5Tokenizer"}'),
    ):
        folder = drop(tmp_path / name, config, {"tokenizer_config.json": tokenizer})
        (folder / "tokenizer.json").unlink()
        profile(folder)


def test_a_large_tokenizer_that_is_cut_short_is_noticed(tmp_path: Path) -> None:
    large = json.dumps({"model": {"vocab": {f"token{n}": n for n in range(20_000)}}})
    incomplete(drop(tmp_path / "m", files={"tokenizer.json": large[:300_000] + "}"}))
    profile(drop(tmp_path / "n", files={"tokenizer.json": large}))
    assert TOKENIZER.endswith("}")


# -- the tables --------------------------------------------------------------------------------------------------------


def test_the_tables_are_parsed_without_importing_transformers() -> None:
    tables = mappings().tables
    assert tables[""]["bert"] == "BertModel" and tables["CAUSAL_LM"]["llama"] == "LlamaForCausalLM"
    assert len(tables) > 40 and len(mappings().model_types) > 500
    assert mappings().knows("FunnelBaseModel", "funnel")  # one of two classes for one model type
    assert not mappings().knows("BertModel", "no-such-type")
