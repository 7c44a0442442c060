"""A profile for a folder: the questions in their order.

What enters: a candidate that is a folder. What leaves: its ``ModelProfile``, or a verdict raised. The order: is it
another kind of thing, is it there at all, what is it for, may it run, are its weights whole, is everything else there.
"""

from __future__ import annotations

from modelium.analyzers.architectures import mappings
from modelium.analyzers.fingerprint import fingerprint_folder
from modelium.analyzers.folder import Folder, list_folder
from modelium.analyzers.foreign import refuse_checkpoints, refuse_other_weights, refuse_setfit, refuse_triton_entry
from modelium.analyzers.formats.json_text import JsonObject, read_object
from modelium.analyzers.gguf import profile_gguf_folder
from modelium.analyzers.language import read_language_model, read_storing, with_quantization
from modelium.analyzers.model_card import ModelCard, read_card
from modelium.analyzers.model_config import ModelConfig, labels_for, longest_input, read_config
from modelium.analyzers.onnx_model import find_graph, profile_onnx_folder
from modelium.analyzers.onnx_weights import find_onnx_weights, refuse_other_task
from modelium.analyzers.peft_adapter import is_adapter, profile_adapter
from modelium.analyzers.ranking_words import ranks_by_words
from modelium.analyzers.remembered import Remembered
from modelium.analyzers.required_files import missing_files, read_clues, read_optional
from modelium.analyzers.sentence_modules import read_pooling
from modelium.analyzers.served_by_ray import INDEX, is_app, is_sklearn_config, profile_app, profile_pipeline, profile_table
from modelium.analyzers.static_embeddings import profile_static
from modelium.analyzers.tasks_of import TaskFinding, find_task
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.analyzers.weights import Weights, find_weights, join_missing
from modelium.values import (
    AdapterProfile,
    Candidate,
    LanguageModel,
    MissingPart,
    ModelOverride,
    ModelProfile,
    Pooling,
    PoolingMode,
    Task,
)

_QUANTIZATION_APART = "hf_quant_config.json"
_CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_SENTENCE_FILES = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")


def profile_folder(
    candidate: Candidate, override: ModelOverride, remembered: Remembered | None = None
) -> ModelProfile | AdapterProfile:
    """What the folder of ``candidate`` is."""
    folder = list_folder(candidate.path, candidate.root)
    if is_app(folder):
        return profile_app(candidate, override, folder)
    if INDEX in folder:
        return profile_pipeline(candidate, override, folder)
    if is_adapter(folder):
        return profile_adapter(candidate, folder)
    if (static := profile_static(candidate, override, folder)) is not None:
        return static
    if "config.json" not in folder:
        return _without_config(candidate, override, folder)
    source = read_object(folder, "config.json")
    if is_sklearn_config(source) and (table := profile_table(candidate, override, folder, source)) is not None:
        return table
    config = read_config(source)
    _refuse_other_libraries(config)
    refuse_setfit(folder, override, candidate.name)
    weights = find_weights(folder, read_storing(source, read_optional(folder, _QUANTIZATION_APART)), remembered)
    graph = find_onnx_weights(folder, override) if weights is None else None
    weights = weights if graph is None else graph.weights
    if weights is None:
        return _without_weights(candidate, override, folder)
    card = read_card(folder)
    finding = _decide_task(config, folder, card, override, candidate.name)
    if graph is not None and finding.task not in graph.tasks:
        refuse_other_task(finding.task, graph, override)
        return _without_weights(candidate, override, folder)
    row = finding.task.row
    pooling, width = (None, None) if not row.embeds_texts else _read_pooling(folder)
    of_sentences = finding.task is Task.TEXT_RANKING or ("modules.json" in folder and pooling is not None)
    gaps = [gap for gap in (weights.missing, missing_files(folder, finding, config.model_type)) if gap is not None]
    unfinished = join_missing(gaps)
    if unfinished is not None:
        raise unfinished
    is_text = not row.raw_medium
    chosen = () if graph is None else (graph.file,)
    has_limit = pooling is not None or finding.task is Task.TEXT_RANKING
    sentence = next((read_optional(folder, name) for name in _SENTENCE_FILES if name in folder), None) if has_limit else None
    tokenizer = read_optional(folder, "tokenizer_config.json") if is_text else {}
    language = _read_language(folder, source, weights, tokenizer) if row.generates else None
    return ModelProfile(
        name=candidate.name,
        path=candidate.path,
        task=finding.task,
        library="sentence-transformers" if of_sentences else finding.library,
        architecture=finding.architecture,
        model_type=config.model_type,
        weight_format=weights.format,
        parameters=weights.parameters,
        weight_bytes=weights.weight_bytes,
        loaded_parameters=weights.loaded_parameters,
        loaded_bytes=weights.loaded_bytes,
        weight_files=weights.files,
        dtype=weights.dtype,
        quantization=config.quantization or (language.quantization or None if language is not None else None),
        max_length=longest_input(config, tokenizer, sentence) if is_text else None,
        labels=labels_for(config) if row.has_labels else (),
        embedding_width=(width or config.width) if row.embeds else None,
        pooling=pooling,
        ranks_by_words=finding.task is Task.TEXT_RANKING and ranks_by_words(folder, finding, tokenizer),
        is_llm=finding.is_llm and row.continues,
        needs_custom_code=finding.custom_code,
        language=language,
        onnx_file=graph.file if graph is not None else "",
        task_source=finding.source if graph is None else f"{finding.source}, weights: {graph.file}",
        fingerprint=fingerprint_folder(folder, " ".join([f"{card.pipeline_tag} {card.library_name}", *chosen])),
    )


def _read_language(folder: Folder, source: JsonObject, weights: Weights, tokenizer: JsonObject) -> LanguageModel | None:
    return read_language_model(
        with_quantization(source, read_optional(folder, _QUANTIZATION_APART)),
        parameters=weights.loaded_parameters,
        routed=weights.routed_parameters,
        in_towers=weights.tower_parameters,
        dtype=weights.dtype,
        tokenizer=tokenizer,
        generation=read_optional(folder, "generation_config.json"),
        has_chat_template=any(name in folder for name in _CHAT_TEMPLATES),
    )


def _without_config(candidate: Candidate, override: ModelOverride, folder: Folder) -> ModelProfile:
    graph = find_graph(folder)
    if graph is not None:
        refuse_triton_entry(folder, graph)
        return profile_onnx_folder(candidate, override, folder, graph, fingerprint_folder(folder, ""))
    weights = find_weights(folder)
    if weights is None:
        if (gguf := profile_gguf_folder(candidate, override, folder)) is not None:
            return gguf
        if (table := profile_table(candidate, override, folder)) is not None:
            return table
        refuse_triton_entry(folder)
        refuse_other_weights(folder)
        refuse_checkpoints(folder)
    parts = [MissingPart(file="config.json", present_bytes=0)]
    if weights is not None and weights.missing is not None:
        parts += weights.missing.missing
    parts += [MissingPart(file=file.name, present_bytes=file.size) for file in folder.in_flight.values() if file.size]
    why = "nothing that is a model yet: expected config.json or an .onnx file"
    raise NotYet(why, *parts, hint_when_stale="drop a Hugging Face model folder (config.json and weights) or an .onnx file")


def _without_weights(candidate: Candidate, override: ModelOverride, folder: Folder) -> ModelProfile:
    graph = find_graph(folder)
    if graph is not None:
        refuse_triton_entry(folder, graph)
        return profile_onnx_folder(candidate, override, folder, graph, fingerprint_folder(folder, ""))
    if (gguf := profile_gguf_folder(candidate, override, folder)) is not None:
        return gguf
    refuse_other_weights(folder)
    refuse_checkpoints(folder)
    parts = [MissingPart(file="model.safetensors", present_bytes=sum(file.size for file in folder.in_flight.values()))]
    why = "no weights yet: expected model.safetensors or its shards, pytorch_model.bin, or an ONNX file"
    several = any(name.endswith(".onnx") for name in folder.names())
    hint = "it has several ONNX graphs: drop the one to serve by itself" if several else "copy the model's weights too"
    raise NotYet(why, *parts, hint_when_stale=hint)


def _refuse_other_libraries(config: ModelConfig) -> None:
    if config.timm:
        raise Rejected("this is a timm model, which transformers does not load by itself", "export it to ONNX and drop that")
    if config.mlx:
        raise Rejected("these weights are quantized for MLX (Apple)", "drop the original folder of this model")


def _decide_task(config: ModelConfig, folder: Folder, card: ModelCard, override: ModelOverride, name: str) -> TaskFinding:
    finding = find_task(config, mappings(), read_clues(folder, card, config))
    if finding.custom_code and not override.allow_custom_code:
        code = next(iter(config.auto_map.values()))
        hint = f"if you trust it, allow it in modelium.yaml: models: {{{name}: {{allow_custom_code: true}}}}"
        raise Rejected(f"it needs code from its folder ({code}) to run", hint)
    if finding.custom_code and (elsewhere := [value for value in config.auto_map.values() if "--" in value]):
        repository = elsewhere[0].split("--")[0]
        hint = f"copy the .py files of {repository} into the folder and take '{repository}--' out of auto_map in config.json"
        raise Rejected(f"its code lies in another repository ({repository}), and nothing is downloaded", hint)
    if override.task is None:
        return finding
    if override.task is Task.TENSORS:
        raise Rejected("the task 'tensors' is for ONNX files", f"choose another one in models: {{{name}: {{task: …}}}}")
    if override.task is Task.SERVE_APP:
        raise Rejected(
            "the task 'serve-app' is for folders with an application of Ray Serve", "put a serve_app.py into the folder"
        )
    return TaskFinding(
        task=override.task,
        architecture=finding.architecture,
        library=finding.library,
        source=f"models.{name}.task in modelium.yaml",
        custom_code=finding.custom_code,
        is_llm=finding.is_llm,
    )


def _read_pooling(folder: Folder) -> tuple[Pooling, int | None]:
    """Without modules.json: what sentence-transformers does with a plain folder."""
    if "modules.json" in folder:
        return read_pooling(folder)
    return Pooling(mode=PoolingMode.MEAN, normalize=False), None
