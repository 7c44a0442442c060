"""A profile for a model of rows and columns: scikit-learn (skops or joblib), XGBoost, LightGBM.

What enters: a folder with such a file at its top. What leaves: a ``ModelProfile`` of task tabular-classification or
-regression. Beside the file may lie the ``config.json`` of Hugging Face's scikit-learn folders (key ``sklearn``).
"""

from __future__ import annotations

from collections.abc import Callable

from modelium.analyzers.fingerprint import fingerprint_folder
from modelium.analyzers.folder import File, Folder
from modelium.analyzers.formats.json_text import JsonObject, nested, text, texts
from modelium.analyzers.model_card import read_card
from modelium.analyzers.required_files import is_settling
from modelium.analyzers.served_by_ray.tables import TableFacts, read_joblib, read_lightgbm, read_skops, read_xgboost
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.values import Candidate, ModelOverride, ModelProfile, TabularModel, Task, WeightFormat

TASKS = tuple(task for task in Task if task.row.is_table)
_Reader = Callable[[File], TableFacts | None]
# Ending → library, format, reader. In this order: the safe ones first.
_KINDS: tuple[tuple[tuple[str, ...], str, WeightFormat, _Reader], ...] = (
    ((".skops",), "scikit-learn", WeightFormat.SKOPS, read_skops),
    ((".ubj", ".json"), "xgboost", WeightFormat.XGBOOST, read_xgboost),
    ((".txt",), "lightgbm", WeightFormat.LIGHTGBM, read_lightgbm),
    ((".joblib", ".pkl", ".pickle"), "scikit-learn", WeightFormat.JOBLIB, read_joblib),
)


def is_sklearn_config(source: JsonObject) -> bool:
    """Is this ``config.json`` that of Hugging Face's scikit-learn folders?"""
    return bool(nested(source, "sklearn"))


def profile_table(
    candidate: Candidate, override: ModelOverride, folder: Folder, config: JsonObject | None = None
) -> ModelProfile | None:
    """The profile of the first file that is such a model; None where there is none."""
    hub = nested(config or {}, "sklearn")
    named = text(nested(hub, "model"), "file")
    for endings, library, form, read in _KINDS:
        names = [named] if named in folder and named.endswith(endings) else folder.named(*endings)
        for name in names:
            facts = read(folder.files[name])
            if facts is not None:
                return _profile(candidate, override, folder, hub, folder.files[name], library, form, facts)
    if named:
        raise NotYet(f"{named}: not there yet", hint_when_stale=f"copy {named} too: config.json names it")
    return None


def _profile(
    candidate: Candidate,
    override: ModelOverride,
    folder: Folder,
    hub: JsonObject,
    file: File,
    library: str,
    form: WeightFormat,
    facts: TableFacts,
) -> ModelProfile:
    pickled = form is WeightFormat.JOBLIB
    if pickled and not override.allow_custom_code:
        hint = f"save it with skops.io.dump(), or, if you trust it: models: {{{candidate.name}: {{allow_custom_code: true}}}}"
        raise Rejected(f"{file.name} is a Python pickle: whoever reads it runs what is in it", hint)
    if pickled and is_settling(candidate.newest_mtime):
        raise NotYet(f"{file.name}: waiting until nothing is written to it any more")  # it cannot prove that it is whole
    task, source = _task(candidate, override, folder, hub, file, facts)
    columns = texts(hub, "columns") or facts.columns
    return ModelProfile(
        name=candidate.name,
        path=candidate.path,
        task=task,
        library=library,
        architecture=facts.estimator,
        weight_format=form,
        weight_bytes=file.size,
        weight_files=(file.name,),
        tabular=TabularModel(file=file.name, features=facts.features or len(columns) or None, columns=columns),
        needs_custom_code=pickled,
        task_source=source,
        fingerprint=fingerprint_folder(folder, ""),
    )


def _task(
    candidate: Candidate, override: ModelOverride, folder: Folder, hub: JsonObject, file: File, facts: TableFacts
) -> tuple[Task, str]:
    """What is said in this order: by hand, in config.json, in the README, by the file."""
    said = (
        (str(override.task or ""), f"models.{candidate.name}.task in modelium.yaml"),
        (text(hub, "task"), "config.json: sklearn.task"),
        (read_card(folder).pipeline_tag, "README pipeline_tag"),
    )
    for word, source in said:
        if found := next((task for task in TASKS if task.value == word), None):
            return found, source
    if override.task is not None:
        raise Rejected(f"{file.name} is a model of rows and columns, it does no {override.task}", _either(candidate))
    if facts.classifies is None:
        raise Rejected(f"{file.name} does not say whether it classifies or estimates numbers", _either(candidate))
    task = Task.TABULAR_CLASSIFICATION if facts.classifies else Task.TABULAR_REGRESSION
    return task, f"files: {file.name}"


def _either(candidate: Candidate) -> str:
    return f"say which with models: {{{candidate.name}: {{task: {TASKS[0].value}}}}}, or {TASKS[1].value}"
