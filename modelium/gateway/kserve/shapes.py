"""What Modelium itself answers to Triton's clients. All else is Triton's own, passed on as it is."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict


class NotReady(TypedDict):
    """Why a model is not ready."""

    error: str


class Indexed(TypedDict):
    """A model with its state, in Triton's words."""

    name: str
    version: NotRequired[str]
    state: NotRequired[str]
    reason: NotRequired[str]


class RepositoryAsked(TypedDict):
    """Of the index: ``ready`` leaves out what is not loaded. Of loads and unloads: Triton's parameters."""

    ready: NotRequired[bool]
    repository_name: NotRequired[str]
    parameters: NotRequired[dict[str, object]]
