"""Which task a folder is for, and why one thinks so.

What enters: config facts, the README's ``pipeline_tag``, names of files. What leaves: a ``TaskFinding``, or ``Rejected``
with the task that is not served.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelium.analyzers.architectures import Mappings
from modelium.analyzers.model_config import ModelConfig, labels_for
from modelium.analyzers.verdict import Rejected
from modelium.brain.runtimes import vllm_architectures as vllm
from modelium.values import Task
from modelium.values.tasks import TASKS

# transformers' mapping → task, in the order of asking.
_SERVED = tuple((family, task) for task, row in TASKS.items() for family in row.families)
_BARE = tuple((row.bare_family, task) for task, row in TASKS.items() if row.bare_family is not None)
_AUTO_CLASSES = {name: task for task, row in TASKS.items() for name in row.auto_classes}
_MASKED_HEADS = "ForPreTraining"
_FAMILY_WORDS = {"RNNT": "speech recognition by transducer", "TDT": "speech recognition by transducer", "": "a base model"}
CROSS_ENCODER_FILE = "config_sentence_transformers.json"
_FORECASTING = "time-series-forecasting"
# transformers lists them under speech. vLLM serves them from Mistral's own files alone.
_LISTENERS = {"VoxtralForConditionalGeneration", "VoxtralRealtimeForConditionalGeneration"}
_LISTED = "served are: " + ", ".join(task.value for task in Task)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinding:
    """``architecture`` is the class that will be loaded; ``is_llm``: a decoder that generates text, be it about images too."""

    task: Task
    architecture: str
    source: str
    custom_code: bool = False
    is_llm: bool = False
    library: str = "transformers"  # "vllm": an architecture that only vLLM has code for


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """Besides ``config.json``: the README's tag, and what the files are for."""

    pipeline_tag: str
    sentence_modules: bool
    cross_encoder: str  # where sentence-transformers says that it is one; "" for nowhere
    has_tokenizer: bool
    has_image_processor: bool
    has_feature_extractor: bool
    side_code: bool = False  # its tokenizer or processor is code from the folder


def find_task(config: ModelConfig, known: Mappings, clues: Clues) -> TaskFinding:
    """The task of a folder.

    0. sentence-transformers says that it is a CrossEncoder: no embedding model, and a ranker where it does not classify.
    1. ``modules.json`` makes it an embedding model, whatever head its weights were trained with.
    2. ``architectures``, through transformers' auto-mappings; the pipeline_tag may refine it within its family. A head of one
       label ranks, where sentence-transformers or the pipeline_tag says so, and a decoder where the pipeline_tag does.
    3. A class that transformers lacks: ``auto_map`` names the auto-class that code in the folder is for.
    4. A class that transformers lacks, but vLLM's registry has: a generator. It needs no code from the folder, where its
       configuration and its tokenizer need none.
    5. No ``architectures``: the pipeline_tag, where transformers has such a class for this model type.
    6. Nothing of it: the base model of this model type, if there is one.
    """
    if config.forecasts or clues.pipeline_tag == _FORECASTING:
        raise Rejected("it forecasts time series, which is not served", _LISTED)
    architecture = _named(config, known)
    if architecture in _LISTENERS:
        what = f"{architecture} listens and writes: vLLM reads it with Mistral's own tokenizer alone, which is not served"
        raise Rejected(what, "vLLM by itself does: --tokenizer_mode mistral --config_format mistral --load_format mistral")
    if clues.cross_encoder and architecture:  # 0
        if clues.cross_encoder == CROSS_ENCODER_FILE and "SEQUENCE_CLASSIFICATION" not in known.families.get(architecture, ()):
            # a decoder that ranks by its words for yes and no: as a bare folder it is a generator of text
            return TaskFinding(task=Task.TEXT_RANKING, architecture=architecture, source=f"{CROSS_ENCODER_FILE}: CrossEncoder")
        clues = replace(clues, sentence_modules=False)
    if architecture and known.knows(architecture, config.model_type) and not (config.own_layout and config.auto_map):
        if clues.sentence_modules:
            return _embedding(architecture, clues, custom_code=False)  # 1
        return _by_architecture(architecture, config, known, clues)  # 2
    if config.auto_map and not _is_vllms_own(architecture, config, known, clues):
        return _by_auto_map(architecture, config, clues)  # 3 (and 1)
    if architecture in vllm.TEXT | vllm.MULTIMODAL and not clues.sentence_modules:
        found = _by_vllm(architecture, config)  # 4
        by_type = config.model_type in known.tables["CAUSAL_LM"]  # under a class of another name
        return replace(found, library="transformers") if by_type else found
    if architecture:
        what = f"architecture {architecture} (model type {config.model_type or 'missing'})"
        raise Rejected(f"transformers does not know the {what}", "a newer transformers may; or check config.json")
    if clues.pipeline_tag and not clues.sentence_modules:
        return _by_tag(config, known, clues)  # 5
    base = known.tables[""].get(config.model_type)
    if base is None:
        said = f"model type {config.model_type!r} is not known to transformers" if config.model_type else "it has no model_type"
        raise Rejected(
            f"config.json does not say what the model is: no architectures, and {said}", "copy the model's own config.json"
        )
    if clues.sentence_modules:
        return _embedding(base, clues, custom_code=False)
    return _by_architecture(base, config, known, clues, source=f"model_type: {config.model_type}")  # 6


def _is_vllms_own(architecture: str, config: ModelConfig, known: Mappings, clues: Clues) -> bool:
    """Does vLLM serve it without the code that lies beside it?"""
    readable = config.model_type in known.model_types | vllm.CONFIGS
    code = clues.side_code or clues.sentence_modules or "AutoTokenizer" in config.auto_map
    return architecture in vllm.TEXT | vllm.MULTIMODAL and readable and not code


def _named(config: ModelConfig, known: Mappings) -> str:
    """The class to load: of several the first that transformers knows; a TF or Flax class stands for its torch twin."""
    twins = [name.removeprefix("TF").removeprefix("Flax") for name in config.architectures]
    for name in [*config.architectures, *twins]:
        if name in known.families:
            return name
    return config.architectures[0] if config.architectures else ""


def _by_architecture(
    architecture: str, config: ModelConfig, known: Mappings, clues: Clues, source: str | None = None
) -> TaskFinding:
    families = known.families[architecture]
    why = source or f"architectures: {architecture}"
    for family, task in _SERVED:
        if family in families:
            refined, why = _refine(task, config, clues, why)
            if refined is Task.TEXT_GENERATION and config.takes_images:
                refined = Task.IMAGE_TEXT_TO_TEXT
            if refined is Task.TEXT_GENERATION and clues.pipeline_tag == Task.TEXT_RANKING.value:  # by its next word
                why = f"{why}, README pipeline_tag: {clues.pipeline_tag}"
                return TaskFinding(task=Task.TEXT_RANKING, architecture=architecture, source=why)
            # BERT and its kin have a causal head too; vLLM is no place for them.
            encoder = config.encoder_decoder or config.model_type in known.tables["MASKED_LM"]
            llm = family in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT") and not encoder
            return TaskFinding(task=refined, architecture=architecture, source=why, is_llm=llm)
    others = families - {"", "PRETRAINING", "IMAGE", "TEXT_ENCODING", "BACKBONE"}
    if others and architecture in vllm.TEXT | vllm.MULTIMODAL:  # Qwen's omni models speak too: vLLM serves what they write
        return _by_vllm(architecture, config)
    if others:
        raise _not_served(architecture, min(others))
    if architecture.endswith(_MASKED_HEADS) and config.model_type in known.tables["MASKED_LM"]:
        return TaskFinding(task=Task.FILL_MASK, architecture=known.tables["MASKED_LM"][config.model_type], source=why)
    if "IMAGE" in families or (clues.has_image_processor and not clues.has_tokenizer):
        return TaskFinding(task=Task.IMAGE_FEATURE_EXTRACTION, architecture=architecture, source=why)
    if clues.has_feature_extractor:
        raise Rejected(f"{architecture} gives features of sound, which is not served", _LISTED)
    if clues.has_image_processor and "TEXT_ENCODING" not in families:
        raise Rejected(f"{architecture} takes images and text together, which is not served", _LISTED)
    refined, why = _refine(Task.FEATURE_EXTRACTION, config, clues, why)
    return TaskFinding(task=refined, architecture=architecture, source=why)


def _refine(task: Task, config: ModelConfig, clues: Clues, source: str) -> tuple[Task, str]:
    if task is Task.TEXT_CLASSIFICATION and len(labels_for(config)) == 1:
        if clues.cross_encoder:
            return Task.TEXT_RANKING, f"{clues.cross_encoder}: CrossEncoder"
        if clues.pipeline_tag == Task.TEXT_RANKING.value:
            return Task.TEXT_RANKING, f"{source}, README pipeline_tag: {clues.pipeline_tag}"
    finer = _finer(task)
    if clues.pipeline_tag in finer:
        return Task(clues.pipeline_tag), f"{source}, README pipeline_tag: {clues.pipeline_tag}"
    for choice in finer:
        if config.model_type in choice.row.model_types:
            return choice, f"{source}, model_type: {config.model_type}"
    if task is Task.TEXT2TEXT_GENERATION:
        trained = {choice for choice in finer if any(name.startswith(choice) for name in config.task_names)}
        if len(trained) == 1:
            only = trained.pop()
            return only, f"{source}, task_specific_params: {only.value}"
    return task, source


def _finer(task: Task) -> tuple[Task, ...]:
    """What a pipeline_tag may make of an architecture's task: more precise within the family, never another family."""
    return tuple(choice for choice, row in TASKS.items() if row.refines is task)


def _by_auto_map(architecture: str, config: ModelConfig, clues: Clues) -> TaskFinding:
    if clues.sentence_modules:
        return _embedding(architecture or _class_of(config.auto_map.get("AutoModel", "")), clues, custom_code=True)
    offered = [name for name in _AUTO_CLASSES if name in config.auto_map]
    named = [name for name in offered if _class_of(config.auto_map[name]) == architecture]
    for auto_class in named or offered:
        refined, why = _refine(_AUTO_CLASSES[auto_class], config, clues, f"auto_map: {auto_class}")
        shown = _class_of(config.auto_map[auto_class])
        if refined is Task.TEXT_GENERATION and config.takes_images:
            refined = Task.IMAGE_TEXT_TO_TEXT
        if refined is Task.FEATURE_EXTRACTION and clues.pipeline_tag == Task.IMAGE_TEXT_TO_TEXT.value and config.takes_images:
            refined, why = Task.IMAGE_TEXT_TO_TEXT, f"{why}, README pipeline_tag: {clues.pipeline_tag}"
        if refined is Task.FEATURE_EXTRACTION and clues.pipeline_tag == Task.TEXT_RANKING.value:
            refined, why = Task.TEXT_RANKING, f"{why}, README pipeline_tag: {clues.pipeline_tag}"
        llm = refined.row.continues
        return TaskFinding(task=refined, architecture=shown, source=why, custom_code=True, is_llm=llm)
    raise Rejected(f"auto_map in config.json offers no class that is served: {', '.join(config.auto_map)[:200]}", _LISTED)


def _by_vllm(architecture: str, config: ModelConfig) -> TaskFinding:
    task = Task.IMAGE_TEXT_TO_TEXT if architecture in vllm.MULTIMODAL and config.takes_images else Task.TEXT_GENERATION
    source = f"architectures: {architecture}, which vLLM {vllm.VLLM_VERSION} has"
    return TaskFinding(task=task, architecture=architecture, source=source, is_llm=True, library="vllm")


def _by_tag(config: ModelConfig, known: Mappings, clues: Clues) -> TaskFinding:
    source = f"README pipeline_tag: {clues.pipeline_tag}"
    for family, task in (*_SERVED, *_BARE):
        found = known.tables[family].get(config.model_type)
        if clues.pipeline_tag in (task, *_finer(task)) and found is not None:
            llm = task.row.continues and not config.encoder_decoder
            return TaskFinding(task=Task(clues.pipeline_tag), architecture=found, source=source, is_llm=llm)
    what = f"model type {config.model_type!r}" if config.model_type else "a config.json without model_type"
    raise Rejected(f"the README says {clues.pipeline_tag!r}, which is not served for {what}", _LISTED)


def _embedding(architecture: str, clues: Clues, *, custom_code: bool) -> TaskFinding:
    features = clues.pipeline_tag == Task.FEATURE_EXTRACTION.value
    task = Task.FEATURE_EXTRACTION if features else Task.SENTENCE_SIMILARITY
    said = f", README pipeline_tag: {clues.pipeline_tag}" if clues.pipeline_tag == task.value else ""
    return TaskFinding(task=task, architecture=architecture, source=f"modules.json{said}", custom_code=custom_code)


def _not_served(architecture: str, family: str) -> Rejected:
    words = _FAMILY_WORDS.get(family, family.lower().replace("_", "-"))
    return Rejected(f"{architecture} is for {words}, which is not served", _LISTED)


def _class_of(reference: str) -> str:
    """``org/repo--modeling_x.XForCausalLM`` → ``XForCausalLM``."""
    return reference.rsplit(".", 1)[-1]
