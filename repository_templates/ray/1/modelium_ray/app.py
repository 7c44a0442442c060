"""The user's application: an import path enters, an application of Ray Serve leaves. This is where the user's code runs."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from typing import Any

from .settings import Settings


def load_application(settings: Settings) -> Any:
    """Import it as ``serve run`` does: an application, a deployment, or a function that builds one from ``args``."""
    sys.path.insert(0, settings.given["model_path"])
    path = settings.given["import_path"]
    module, _, attribute = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return _built(found, path, json.loads(settings.given.get("args") or "{}"))


def _built(found: Any, path: str, args: dict[str, Any]) -> Any:
    from ray.serve import Application, Deployment

    if isinstance(found, Application):
        if args:
            raise RuntimeError(f"{path} is an application already, and takes no args")
        return found
    if isinstance(found, Deployment):
        return found.bind(**args)
    if inspect.isfunction(found):
        takes = inspect.signature(found).parameters
        made = found(_typed(next(iter(takes.values())), args)) if takes else found()
        if isinstance(made, Application):
            return made
    raise RuntimeError(f"{path} is no application of Ray Serve, and builds none: it is a {type(found).__name__}")


def _typed(parameter: inspect.Parameter, args: dict[str, Any]) -> Any:
    """Serve's typed builders: a pydantic model as the annotation of the only parameter."""
    kind = parameter.annotation
    return kind.model_validate(args) if hasattr(kind, "model_validate") else args
