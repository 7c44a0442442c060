"""What a folder is: the analyzers' words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from modelium.values.language import Adapter, JsonValue, LanguageModel
from modelium.values.tasks import Task
from modelium.values.tensors import Tensor


class WeightFormat(StrEnum):
    """How the weights lie on disk. ``PICKLE`` is a torch zip or legacy pickle: read with ``weights_only=True``. ``JOBLIB`` is a
    pickle that no reader can make harmless. ``NONE``: an application that brings no weights, or its own kind."""

    SAFETENSORS = "safetensors"
    PICKLE = "pickle"
    ONNX = "onnx"
    GGUF = "gguf"
    SKOPS = "skops"
    JOBLIB = "joblib"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    NONE = "none"


class PoolingMode(StrEnum):
    """How token embeddings become one sentence embedding (sentence-transformers' words)."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"
    LAST_TOKEN = "lasttoken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Pooling of a sentence-transformers folder (``modules.json``): the mode, and whether vectors are L2-normalised."""

    mode: PoolingMode
    normalize: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """The signature of an ONNX file, from its protobuf alone. ``dims`` of the tensors *include* the first dimension.

    ``dynamic_batch``: the first dimension of every input and output is symbolic. ``external_data``: side files that hold
    tensors, relative to the ONNX file. ``file``: the ONNX file, relative to the model's path ("" when it is the path).
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    dynamic_batch: bool
    opset: int
    external_data: tuple[str, ...] = ()
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TabularModel:
    """A model of rows and columns: its file relative to the model's path, and the columns that it wants (empty: not said)."""

    file: str
    features: int | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeApp:
    """A Ray Serve application: ``import_path`` is ``module:attribute`` below the folder; ``args`` go to it if it is a function
    that builds the application."""

    import_path: str
    args: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What a folder is, read from headers and JSON only.

    ``parameters`` (as the authors count them) and ``weight_bytes`` (as stored) are exact: from the tensors' headers, never from
    file sizes. Of them ``loaded_parameters`` and ``loaded_bytes`` are loaded, less where a tied head is stored all the same, or
    layers that predict further tokens, or the part of a model that speaks; 0: all of them. ``labels`` are in id
    order. ``max_length`` is in tokens (text), None where the model has no such limit. ``weight_files`` are those that a load
    reads, relative to the folder that ``path`` is, or is in. ``fingerprint`` identifies the revision: it changes when any file
    that matters changes.
    """

    name: str
    path: Path
    task: Task
    # transformers · sentence-transformers · onnx · vllm (an architecture that only vLLM has code for) · what only Ray serves:
    # scikit-learn, xgboost, lightgbm, diffusers, ray-serve
    library: str
    architecture: str  # "BertModel"; for ONNX the producer or "onnx"
    model_type: str = ""
    weight_format: WeightFormat = WeightFormat.SAFETENSORS
    parameters: int = 0
    weight_bytes: int = 0
    loaded_parameters: int = 0
    loaded_bytes: int = 0
    weight_files: tuple[str, ...] = ()
    dtype: str = "float32"
    quantization: str | None = None
    max_length: int | None = None
    labels: tuple[str, ...] = ()
    embedding_width: int | None = None
    pooling: Pooling | None = None
    ranks_by_words: bool = False  # a decoder whose next word is the score, in a way that its files say
    is_llm: bool = False  # a decoder that generates text: vLLM's ground
    needs_custom_code: bool = False
    onnx: OnnxGraph | None = None
    onnx_file: str = ""  # a transformers folder's weights as a graph, relative to its path: the python runtime runs it
    language: LanguageModel | None = None  # of every generator of text, whichever runtime will serve it
    tabular: TabularModel | None = None
    app: ServeApp | None = None
    task_source: str = ""  # why this task: "architectures: BertModel", "README pipeline_tag" …
    fingerprint: str = ""

    @property
    def label_count(self) -> int:
        """How many classes it tells apart."""
        return len(self.labels)

    @property
    def pickled(self) -> bool:
        """Are its weights a pickle, which could run code?"""
        return self.weight_format is WeightFormat.PICKLE


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPart:
    """A file that is not whole yet. ``expected_bytes`` is None where only its presence is known to be required."""

    file: str
    present_bytes: int
    expected_bytes: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incomplete:
    """A copy under way: what is missing, as a sentence for the user and as parts for a progress bar."""

    name: str
    path: Path
    why: str
    missing: tuple[MissingPart, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """A folder that cannot be served, and what would change that."""

    name: str
    path: Path
    why: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterProfile:
    """A folder that is no model of its own but a LoRA adapter for one."""

    name: str
    path: Path
    adapter: Adapter
    fingerprint: str = ""


Analysis = ModelProfile | AdapterProfile | Incomplete | Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something in ``incoming/`` that may be a model: the watcher's output, the analyzers' input.

    ``name`` is the served name (``[A-Za-z0-9._-]+``); ``label`` is what the user sees (``org/name``). ``signature`` is a
    cheap digest of the file names, sizes and mtimes: equal signatures mean that nothing has to be read again.
    ``conflict`` is set on the later of two candidates with one name. ``newest_mtime`` is wall-clock seconds.
    ``note``: why another revision than the newest is meant. ``reading_bytes``: about as much has to be read to know what it is.
    """

    name: str
    label: str
    path: Path
    root: Path  # the watch directory it came from; links that leave it are refused
    signature: str
    newest_mtime: float
    conflict: str | None = None
    note: str = ""
    reading_bytes: int = 0
