"""What models do: the one table of tasks. What a task takes, gives and is found by stands in its row, and nowhere else.

Dims exclude the batch dimension (row i of the outputs answers row i of the inputs). Where the number of results varies from
row to row, rows are padded to the longest and ``COUNT`` says how many are real. Every task that transformers computes also
takes ``PARAMETERS``: a JSON object per row with Hugging Face's parameter names (``top_k``, ``aggregation_strategy`` …).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from modelium.values.parameters import (
    BEAMS,
    CLASSIFICATION,
    CONTINUATION,
    COUNT,
    EMBEDDING,
    FLAG,
    NATURAL,
    NON_NEGATIVE,
    PIXELS,
    SEED,
    TEXT,
    TEXT_TO_TEXT,
    UNIT,
    WORDS,
    Kind,
    Rule,
    Rules,
    one_of,
)  # fmt: skip
from modelium.values.tensors import Tensor, given, taken


class Task(StrEnum):
    """What a model does, in Hugging Face's words for ``pipeline_tag``. ``TENSORS`` is a bare graph (ONNX), ``SERVE_APP`` a Ray
    Serve application of the user's, which takes and answers what it likes."""

    FEATURE_EXTRACTION = "feature-extraction"
    SENTENCE_SIMILARITY = "sentence-similarity"
    TEXT_CLASSIFICATION = "text-classification"
    TOKEN_CLASSIFICATION = "token-classification"
    FILL_MASK = "fill-mask"
    QUESTION_ANSWERING = "question-answering"
    ZERO_SHOT_CLASSIFICATION = "zero-shot-classification"
    TEXT_GENERATION = "text-generation"
    TRANSLATION = "translation"
    SUMMARIZATION = "summarization"
    TEXT2TEXT_GENERATION = "text2text-generation"
    IMAGE_TEXT_TO_TEXT = "image-text-to-text"
    IMAGE_CLASSIFICATION = "image-classification"
    OBJECT_DETECTION = "object-detection"
    IMAGE_FEATURE_EXTRACTION = "image-feature-extraction"
    AUTOMATIC_SPEECH_RECOGNITION = "automatic-speech-recognition"
    AUDIO_CLASSIFICATION = "audio-classification"
    TABULAR_CLASSIFICATION = "tabular-classification"
    TABULAR_REGRESSION = "tabular-regression"
    TEXT_RANKING = "text-ranking"
    TEXT_TO_IMAGE = "text-to-image"
    SERVE_APP = "serve-app"
    TENSORS = "tensors"

    @property
    def row(self) -> TaskRow:
        """All that is known of it."""
        return TASKS[self]


class Takes(Enum):
    """The shape of a request's ``inputs``. ``gateway/codecs/inputs.py`` has a reader for each."""

    TEXTS = auto()
    TEXTS_OR_PAIRS = auto()
    TEXTS_OR_COMPARISON = auto()  # texts, or one sentence and those that it is compared with
    TEXTS_WITH_LABELS = auto()
    TEXTS_WITH_IMAGES = auto()
    QUESTIONS = auto()
    RANKINGS = auto()
    PROMPT = auto()
    IMAGES = auto()
    SOUNDS = auto()
    TABLES = auto()
    TENSORS = auto()
    REQUESTS = auto()


class Gives(Enum):
    """The shape of an answer. ``gateway/codecs/answers.py`` has a writer for each."""

    EMBEDDINGS = auto()
    LABELS = auto()
    LISTED_LABELS = auto()  # a list even for one text, as Hugging Face answers it
    ENTITIES = auto()
    FILLED_MASKS = auto()
    SPANS = auto()
    CONTINUATIONS = auto()
    TEXTS = auto()
    BOXES = auto()
    TRANSCRIPTS = auto()
    RANKINGS = auto()
    PICTURE = auto()
    CELLS = auto()
    TENSORS = auto()
    RESPONSES = auto()


class Encoded(Enum):
    """What a text encoder exported as a graph has to give, for a task to be made from it."""

    TOKEN_VECTORS = auto()
    LOGITS = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """``families``: transformers' mappings (``MODEL_FOR_…_MAPPING``) of the classes that do it, ``auto_classes`` their
    auto-classes in ``auto_map``, ``bare_family`` the mapping of models without a head of which a README may say it.
    ``refines``: the task of which it is a more precise word, which a README or, with ``model_types``, the model's type may say.
    ``batch``: rows in one pass, by the size of an input. ``only_ray``: no other runtime does it. ``nested``: Hugging Face nests
    its sampling parameters, the runtime takes them flat."""

    takes: Takes
    gives: Gives
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    parameters: Rules = field(default_factory=dict)
    batch: int = 32
    has_labels: bool = False
    encoded: Encoded | None = None
    families: tuple[str, ...] = ()
    auto_classes: tuple[str, ...] = ()
    bare_family: str | None = None
    refines: Task | None = None
    model_types: tuple[str, ...] = ()
    text_key: str = ""  # under which a generated text is answered
    nested: bool = False
    only_ray: bool = False

    @property
    def raw_medium(self) -> str:
        """What may be sent as bare bytes: ``image``, ``audio``; "" for nothing."""
        return {Takes.IMAGES: "image", Takes.SOUNDS: "audio"}.get(self.takes, "")

    @property
    def takes_images(self) -> bool:
        """Pictures go in, alone or with a text."""
        return self.takes in (Takes.IMAGES, Takes.TEXTS_WITH_IMAGES)

    @property
    def needs_tokenizer(self) -> bool:
        """Words go in or come out."""
        return not self.raw_medium or self.gives is Gives.TRANSCRIPTS

    @property
    def is_table(self) -> bool:
        """Rows of numbers and words go in."""
        return self.takes is Takes.TABLES

    @property
    def continues(self) -> bool:
        """A prompt is continued: what vLLM, chats and streams are about."""
        return self.gives is Gives.CONTINUATIONS

    @property
    def generates(self) -> bool:
        """Text is written, token after token."""
        return self.gives in (Gives.CONTINUATIONS, Gives.TEXTS)

    @property
    def embeds(self) -> bool:
        """It gives one vector an input."""
        return self.gives is Gives.EMBEDDINGS

    @property
    def embeds_texts(self) -> bool:
        """It gives one vector a text."""
        return self.embeds and not self.takes_images


_COUNT = given("COUNT", "INT32", 1)
_EMBEDDING = (given("EMBEDDING", "FP32"),)  # of the model's width, where that is known
_LABELS = (given("LABEL", "BYTES"), given("SCORE", "FP32"))
_GENERATED = (
    given("GENERATED_TEXT", "BYTES"),  # num_return_sequences
    given("FINISH_REASON", "BYTES"),  # "stop" or "length", one a sequence
    given("INPUT_TOKENS", "INT32", 1),
    given("OUTPUT_TOKENS", "INT32"),
)
# A row of a table: numbers in the model's own order, or a JSON object by column name (or list). One of the two.
_CELLS = (Tensor(name="FEATURES", datatype="FP64", dims=(-1,), optional=True), taken("ROW", optional=True))

# The rows stand in the order in which transformers' mappings are asked: BART is in MASKED_LM as well, XLM in CAUSAL_LM.
TASKS: Mapping[Task, TaskRow] = {
    Task.AUTOMATIC_SPEECH_RECOGNITION: TaskRow(
        takes=Takes.SOUNDS,
        gives=Gives.TRANSCRIPTS,
        inputs=(taken("AUDIO"),),
        outputs=(
            given("TEXT", "BYTES", 1),
            given("CHUNK_TEXT", "BYTES"),  # with return_timestamps: the parts of the text, and their seconds
            given("CHUNK_START", "FP64"),
            given("CHUNK_END", "FP64"),  # -1 where the model gave none
            given("CHUNKS", "INT32", 1),  # how many
            given("DURATION", "FP64", 1),  # of the recording, in seconds
            given("LANGUAGE", "BYTES", 1),  # the code of what was heard; "" where the model does not tell
        ),
        parameters={
            "language": TEXT,
            "task": one_of("transcribe", "translate"),
            "return_timestamps": FLAG,
            "max_new_tokens": COUNT,
            "num_beams": BEAMS,
            "temperature": UNIT,
            "seed": SEED,
            "prompt": TEXT,
        },
        batch=4,
        families=("CTC", "SPEECH_SEQ_2_SEQ"),
        auto_classes=("AutoModelForCTC", "AutoModelForSpeechSeq2Seq"),
        nested=True,
    ),
    Task.AUDIO_CLASSIFICATION: TaskRow(
        takes=Takes.SOUNDS,
        gives=Gives.LABELS,
        inputs=(taken("AUDIO"),),
        outputs=_LABELS,
        parameters=CLASSIFICATION,
        batch=8,
        has_labels=True,
        families=("AUDIO_CLASSIFICATION",),
        auto_classes=("AutoModelForAudioClassification",),
    ),
    Task.IMAGE_CLASSIFICATION: TaskRow(
        takes=Takes.IMAGES,
        gives=Gives.LABELS,
        inputs=(taken("IMAGE"),),
        outputs=_LABELS,
        parameters=CLASSIFICATION,
        batch=8,
        has_labels=True,
        families=("IMAGE_CLASSIFICATION",),
        auto_classes=("AutoModelForImageClassification",),
    ),
    Task.OBJECT_DETECTION: TaskRow(
        takes=Takes.IMAGES,
        gives=Gives.BOXES,
        inputs=(taken("IMAGE"),),
        outputs=(given("LABEL", "BYTES"), given("SCORE", "FP32"), given("BOX", "INT32", -1, 4), _COUNT),  # xmin ymin xmax ymax
        parameters={"threshold": UNIT},
        batch=4,
        has_labels=True,
        families=("OBJECT_DETECTION",),
        auto_classes=("AutoModelForObjectDetection",),
    ),
    Task.TEXT_CLASSIFICATION: TaskRow(
        takes=Takes.TEXTS_OR_PAIRS,
        gives=Gives.LISTED_LABELS,
        inputs=(taken("TEXT"), taken("TEXT_PAIR", optional=True)),
        outputs=_LABELS,
        parameters=CLASSIFICATION,
        has_labels=True,
        encoded=Encoded.LOGITS,
        families=("SEQUENCE_CLASSIFICATION",),
        auto_classes=("AutoModelForSequenceClassification",),
    ),
    Task.ZERO_SHOT_CLASSIFICATION: TaskRow(
        takes=Takes.TEXTS_WITH_LABELS,
        gives=Gives.LABELS,
        inputs=(taken("TEXT"), taken("CANDIDATE_LABELS", -1)),
        outputs=_LABELS,
        parameters={"multi_label": FLAG, "hypothesis_template": TEXT},
        batch=4,
        has_labels=True,
        encoded=Encoded.LOGITS,
        refines=Task.TEXT_CLASSIFICATION,
    ),
    Task.TEXT_RANKING: TaskRow(
        takes=Takes.RANKINGS,
        gives=Gives.RANKINGS,
        inputs=(taken("QUERY"), taken("DOCUMENTS", -1)),
        outputs=(given("SCORE", "FP32"), _COUNT),  # one a document, in their order
        parameters={"top_k": COUNT},
        batch=4,
        encoded=Encoded.LOGITS,
    ),
    Task.TOKEN_CLASSIFICATION: TaskRow(
        takes=Takes.TEXTS,
        gives=Gives.ENTITIES,
        inputs=(taken("TEXT"),),
        outputs=(
            given("ENTITY", "BYTES"),
            given("SCORE", "FP32"),
            given("WORD", "BYTES"),
            given("INDEX", "INT32"),  # token index; -1 when entities are aggregated
            given("START", "INT32"),  # character offsets; -1 where none can be told (tokenizers that are Python's)
            given("END", "INT32"),
            _COUNT,
        ),
        parameters={
            "aggregation_strategy": one_of("none", "simple", "first", "average", "max"),
            "ignore_labels": WORDS,
            "stride": NATURAL,
        },
        has_labels=True,
        families=("TOKEN_CLASSIFICATION",),
        auto_classes=("AutoModelForTokenClassification",),
    ),
    Task.QUESTION_ANSWERING: TaskRow(
        takes=Takes.QUESTIONS,
        gives=Gives.SPANS,
        inputs=(taken("QUESTION"), taken("CONTEXT")),
        outputs=(given("ANSWER", "BYTES"), given("SCORE", "FP32"), given("START", "INT32"), given("END", "INT32"), _COUNT),
        parameters={
            "top_k": COUNT,
            "doc_stride": COUNT,
            "max_answer_len": COUNT,
            "max_seq_len": COUNT,
            "handle_impossible_answer": FLAG,
            "align_to_words": FLAG,
        },
        batch=8,
        families=("QUESTION_ANSWERING",),
        auto_classes=("AutoModelForQuestionAnswering",),
    ),
    Task.IMAGE_TEXT_TO_TEXT: TaskRow(
        takes=Takes.TEXTS_WITH_IMAGES,
        gives=Gives.CONTINUATIONS,
        inputs=(taken("TEXT"), taken("IMAGE", -1, optional=True)),  # any number of images
        outputs=_GENERATED,
        parameters=CONTINUATION,
        batch=4,
        families=("IMAGE_TEXT_TO_TEXT",),
        auto_classes=("AutoModelForImageTextToText", "AutoModelForVision2Seq"),
    ),
    Task.TEXT2TEXT_GENERATION: TaskRow(
        takes=Takes.TEXTS,
        gives=Gives.TEXTS,
        inputs=(taken("TEXT"),),
        outputs=_GENERATED,
        parameters=TEXT_TO_TEXT,
        batch=8,
        families=("SEQ_TO_SEQ_CAUSAL_LM",),
        auto_classes=("AutoModelForSeq2SeqLM",),
        text_key="generated_text",
        nested=True,
    ),
    Task.TRANSLATION: TaskRow(
        takes=Takes.TEXTS,
        gives=Gives.TEXTS,
        inputs=(taken("TEXT"),),
        outputs=_GENERATED,
        parameters=TEXT_TO_TEXT,
        batch=8,
        refines=Task.TEXT2TEXT_GENERATION,
        model_types=("marian", "fsmt", "m2m_100", "nllb-moe"),
        text_key="translation_text",
        nested=True,
    ),
    Task.SUMMARIZATION: TaskRow(
        takes=Takes.TEXTS,
        gives=Gives.TEXTS,
        inputs=(taken("TEXT"),),
        outputs=_GENERATED,
        parameters=TEXT_TO_TEXT,
        batch=4,
        refines=Task.TEXT2TEXT_GENERATION,
        model_types=("pegasus", "pegasus_x", "bigbird_pegasus"),
        text_key="summary_text",
        nested=True,
    ),
    Task.FILL_MASK: TaskRow(
        takes=Takes.TEXTS,
        gives=Gives.FILLED_MASKS,
        inputs=(taken("TEXT"),),
        outputs=(
            given("SCORE", "FP32"),
            given("TOKEN", "INT64"),
            given("TOKEN_STR", "BYTES"),
            given("SEQUENCE", "BYTES"),
            given("MASK", "INT32"),  # which mask of the text this result fills, from 0
            _COUNT,
        ),
        parameters={"top_k": COUNT, "targets": WORDS},
        families=("MASKED_LM",),
        auto_classes=("AutoModelForMaskedLM",),
    ),
    Task.TEXT_GENERATION: TaskRow(
        takes=Takes.TEXTS,
        gives=Gives.CONTINUATIONS,
        inputs=(taken("TEXT"),),
        outputs=_GENERATED,
        parameters=CONTINUATION,
        batch=8,
        families=("CAUSAL_LM",),
        auto_classes=("AutoModelForCausalLM",),
    ),
    Task.FEATURE_EXTRACTION: TaskRow(
        takes=Takes.TEXTS_OR_COMPARISON,
        gives=Gives.EMBEDDINGS,
        inputs=(taken("TEXT"),),
        outputs=_EMBEDDING,
        parameters=EMBEDDING,
        encoded=Encoded.TOKEN_VECTORS,
        auto_classes=("AutoModel",),
        bare_family="",
    ),
    Task.SENTENCE_SIMILARITY: TaskRow(
        takes=Takes.TEXTS_OR_COMPARISON,
        gives=Gives.EMBEDDINGS,
        inputs=(taken("TEXT"),),
        outputs=_EMBEDDING,
        parameters=EMBEDDING,
        encoded=Encoded.TOKEN_VECTORS,
        refines=Task.FEATURE_EXTRACTION,
    ),
    Task.IMAGE_FEATURE_EXTRACTION: TaskRow(
        takes=Takes.IMAGES,
        gives=Gives.EMBEDDINGS,
        inputs=(taken("IMAGE"),),
        outputs=_EMBEDDING,
        parameters={"normalize": FLAG},
        batch=8,
        bare_family="IMAGE",
    ),
    Task.TABULAR_CLASSIFICATION: TaskRow(
        takes=Takes.TABLES,
        gives=Gives.CELLS,
        inputs=_CELLS,
        # CLASS and SCORE have one place a class; without probabilities the predicted class alone, and NaN.
        outputs=(given("LABEL", "BYTES", 1), given("CLASS", "BYTES"), given("SCORE", "FP64"), _COUNT),
        parameters={"top_k": COUNT},
        batch=1024,
        only_ray=True,
    ),
    Task.TABULAR_REGRESSION: TaskRow(
        takes=Takes.TABLES,
        gives=Gives.CELLS,
        inputs=_CELLS,
        outputs=(given("VALUE", "FP64"),),  # one a target
        batch=1024,
        only_ray=True,
    ),
    Task.TEXT_TO_IMAGE: TaskRow(
        takes=Takes.PROMPT,
        gives=Gives.PICTURE,
        inputs=(taken("PROMPT"),),
        outputs=(given("IMAGE", "BYTES"),),  # PNG, one an image
        parameters={
            "negative_prompt": TEXT,
            "height": PIXELS,
            "width": PIXELS,
            "num_inference_steps": Rule(kind=Kind.WHOLE, low=1, high=1000),
            "guidance_scale": NON_NEGATIVE,
            "seed": SEED,
        },
        batch=1,
        only_ray=True,
    ),
    Task.SERVE_APP: TaskRow(takes=Takes.REQUESTS, gives=Gives.RESPONSES, only_ray=True),
    Task.TENSORS: TaskRow(takes=Takes.TENSORS, gives=Gives.TENSORS, batch=16),
}
