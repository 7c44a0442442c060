"""A Ray Serve application: ``serve_app.py``, or a ``modelium.yaml`` in the folder that names another import path.

What enters: a folder. What leaves: its profile, or what is wrong with it, told without running it: its module is parsed, never
imported. Python files cannot prove that they are whole, so a folder that was written to a moment ago is not read yet.
"""

from __future__ import annotations

import ast
import difflib
import re

import yaml

from modelium.analyzers.fingerprint import fingerprint_folder
from modelium.analyzers.folder import Folder
from modelium.analyzers.required_files import is_fresh, is_settling
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.values import Candidate, JsonValue, ModelOverride, ModelProfile, ServeApp, Task, WeightFormat

APP_FILE = "serve_app.py"
CONFIG_FILE = "modelium.yaml"
_DEFAULT = "serve_app:app"
_KEYS = ("import_path", "args")
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_MAX_CODE_BYTES = 2**20  # parsed, it takes a hundred times as much
_MAX_CONFIG_BYTES = 64 * 1024
_OPENING = yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken
_DEEPEST = 100


def is_app(folder: Folder) -> bool:
    """Does the folder say that it is an application?"""
    return APP_FILE in folder or CONFIG_FILE in folder


def profile_app(candidate: Candidate, override: ModelOverride, folder: Folder) -> ModelProfile:
    """The application's profile, where the configuration allows to run it."""
    if is_settling(candidate.newest_mtime):
        raise NotYet("an application: waiting until nothing is written to its folder any more")
    app = _read(folder)
    if not override.allow_custom_code:
        hint = f"if you trust it, allow it in modelium.yaml: models: {{{candidate.name}: {{allow_custom_code: true}}}}"
        raise Rejected(f"it is a Ray Serve application ({app.import_path}), and serving it runs its code", hint)
    _check_module(candidate, folder, app.import_path)
    if override.task not in (None, Task.SERVE_APP):
        raise Rejected(
            f"an application answers what it likes, not {override.task}", f"remove models: {{{candidate.name}: {{task: …}}}}"
        )
    said = CONFIG_FILE if CONFIG_FILE in folder else APP_FILE
    return ModelProfile(
        name=candidate.name,
        path=candidate.path,
        task=Task.SERVE_APP,
        library="ray-serve",
        architecture=app.import_path,
        weight_format=WeightFormat.NONE,
        weight_bytes=sum(file.size for file in folder.files.values()),
        app=app,
        needs_custom_code=True,
        task_source=f"files: {said}",
        fingerprint=fingerprint_folder(folder, ""),
    )


def _read(folder: Folder) -> ServeApp:
    if CONFIG_FILE not in folder:
        return ServeApp(import_path=_DEFAULT)
    try:
        data = folder.read(CONFIG_FILE, _MAX_CONFIG_BYTES)
        _refuse_aliases(data)
        content = yaml.safe_load(data) or {}
    except (yaml.YAMLError, ValueError) as error:  # a number of more than 4,300 digits is a ValueError, as is what is not UTF-8
        raise Rejected(f"{CONFIG_FILE} is not YAML: {_one_line(error)}", f"mend the {CONFIG_FILE} in the folder") from None
    except RecursionError:
        raise Rejected(f"{CONFIG_FILE} is nested too deeply", f"mend the {CONFIG_FILE} in the folder") from None
    if not isinstance(content, dict):
        raise Rejected(f"{CONFIG_FILE} holds no mapping", f"it takes {' and '.join(_KEYS)}")
    for key in content:
        if key not in _KEYS:
            said = repr(key)[:80]
            near = difflib.get_close_matches(said.strip("'"), _KEYS, n=1)
            did = f"did you mean {near[0]!r}? " if near else ""
            raise Rejected(f"{CONFIG_FILE} has {said}", f"{did}In a model's folder it takes {' and '.join(_KEYS)}")
    path = content.get("import_path", _DEFAULT)
    if not isinstance(path, str) or not _IMPORT_PATH.fullmatch(path):
        raise Rejected(f"{CONFIG_FILE}: import_path is {repr(path)[:80]}", "write it as MODULE:ATTRIBUTE, like my_app:app")
    args = content.get("args", {})
    if not isinstance(args, dict):
        raise Rejected(f"{CONFIG_FILE}: args is no mapping", "it holds what the function that builds the application takes")
    return ServeApp(import_path=path, args={str(key): _plain(value) for key, value in args.items()})


def _refuse_aliases(data: bytes) -> None:
    """777 bytes of anchors and aliases, or of merged mappings, are a value of 2^40 parts: the file is small enough without.

    Deep nesting is refused here too: 20,000 brackets take the scanner a minute.
    """
    depth = 0
    for token in yaml.scan(data):
        depth += isinstance(token, _OPENING) - isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken)
        if depth > _DEEPEST:
            raise Rejected(f"{CONFIG_FILE} is nested too deeply", f"mend the {CONFIG_FILE} in the folder")
        if isinstance(token, yaml.AliasToken):
            line = token.start_mark.line + 1
            raise Rejected(
                f"{CONFIG_FILE} uses an alias (*{token.value[:40]}, line {line})", "write the value out in its place"
            )


def _plain(value: object) -> JsonValue:
    """What the function gets is written as JSON: dates, sets and the like are none."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case _:
            raise Rejected(f"{CONFIG_FILE}: args holds {repr(value)[:80]}, which JSON has not", "write it as a text in quotes")


def _check_module(candidate: Candidate, folder: Folder, import_path: str) -> None:
    """The module is there, is Python, and defines the attribute."""
    module, _, attribute = import_path.partition(":")
    place = module.replace(".", "/")
    name = next((each for each in (f"{place}.py", f"{place}/__init__.py") if each in folder), None)
    if name is None:
        raise NotYet(f"{place}.py: not there yet", hint_when_stale=f"copy {place}.py too, or correct import_path")
    try:
        tree = ast.parse(folder.read(name, _MAX_CODE_BYTES), filename=name)
    except (SyntaxError, ValueError, RecursionError) as error:
        why = f"{name} is not Python: {_one_line(error)}"
        if is_fresh(candidate.newest_mtime):
            raise NotYet(why, hint_when_stale=f"mend {name}") from None
        raise Rejected(why, f"mend {name}") from None
    defined = _defined(tree)
    if attribute not in defined and "*" not in defined:
        near = difflib.get_close_matches(attribute, defined, n=3, cutoff=0.3) or sorted(defined)[:6]
        there = f"it has {', '.join(near)}" if near else "it defines nothing"
        raise Rejected(
            f"{name} has no {attribute!r} at its top level; {there}",
            f"name the application in a {CONFIG_FILE} in the folder: import_path: {module}:NAME",
        )


def _defined(tree: ast.Module) -> set[str]:
    """Names that the module has once it was run; "*" where only running it would tell."""
    names: set[str] = set()
    for node in ast.walk(tree):  # also what an `if` or a `try` defines
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case _:
                pass
    return names


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
