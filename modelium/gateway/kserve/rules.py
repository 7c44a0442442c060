"""What KServe's v2 protocol means here, whichever transport it came by: a model's status or what was asked enters, the answer
or the refusal leaves. Pure.

All else is Triton's to answer. These are what Modelium has to answer itself: whether a model is ready, which models there are,
and what would change Triton or an entry behind the controller's back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from modelium.errors import InvalidBody, NoModelCalled, Refused, RequestError
from modelium.names import printable
from modelium.values import ModelStatus, State, Target

Ready = Literal["can_load", "loaded"]  # what `gateway.kserve_ready` may be

STATE_HEADER = "X-Modelium-State"
VERSION = "1"  # of every model in an entry that Modelium writes
_HARMLESS = frozenset({"unload_dependents"})  # no entry of Modelium's depends on another
_SHOWN = 100  # characters of what a stranger sent

TRACING_REFUSED = (
    "Triton's trace settings cannot be changed or read here, for they let a client write files on the server: GET /trace says "
    "which model was asked when; of a Triton of your own, ask its own port"
)
LOGGING_REFUSED = (
    "Triton's log settings cannot be changed or read here, for they let a client write files on the server: Modelium's log and "
    "tritonserver.log in triton.state_directory say what happened; of a Triton of your own, ask its own port"
)
SHARED_MEMORY_REFUSED = (
    "shared memory is off here, for it lets a client read and write memory of the server's machine: send the tensors in the "
    "request, or set gateway.shared_memory: true in modelium.yaml if all who may ask are trusted with that"
)


class UnknownToTriton(NoModelCalled):
    """The same, beginning as Triton's answer does: its clients' own examples look for these words."""

    words = "Request for unknown model: {} is not found"


class NothingToLoad(NoModelCalled):
    """The same of a load."""

    words = "failed to load {}, no model has that name"


@contextmanager
def in_tritons_words(said: type[NoModelCalled] = UnknownToTriton) -> Iterator[None]:
    """Raise ``said`` where nothing has the name that is asked for."""
    try:
        yield
    except NoModelCalled as error:
        raise said(error.called, error.hint) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """One model as a repository index shows it, in Triton's words."""

    name: str
    version: str
    state: str
    reason: str


def model_called(target: Target) -> str:
    """The model that Triton knows. Raises ``InvalidBody`` for an adapter, which Triton knows by a parameter alone."""
    if target.adapter:
        raise InvalidBody(
            f"{target.model}:{target.adapter} is a LoRA adapter: ask for {target.model!r}, with the adapter in the request's "
            f'own parameters (`"lora_name": "{target.adapter}"`)'
        )
    return target.model


def why_not_ready(status: ModelStatus, version: str, ready: Ready) -> str | None:
    """None where a model is ready, else why it is not.

    1. ``loaded`` is Triton's own meaning: it is loaded now.
    2. ``can_load``: an inference will be answered, after a load where one is needed. Who checks first, and then asks, gets his
       answer. A model that failed a moment ago, and will be tried again, is not ready until then.
    3. There is no other version than ``1``.
    """
    if version not in ("", VERSION):
        return f"{status.name!r} has version {VERSION} alone, not {version[:_SHOWN]}"
    if ready == "loaded":
        return None if status.state.serves else f"{status.name!r} is {status.state}: {status.reason}"
    if status.state is State.FAILED:
        waits = status.quarantined or (status.retry_in_s is not None and status.retry_in_s > 0)
        return f"{status.name!r} failed to load: {status.reason}" if waits else None
    return (
        None if status.state.is_listed and not status.state.is_broken else f"{status.name!r} is {status.state}: {status.reason}"
    )


def index_row(status: ModelStatus) -> IndexRow:
    """A model of any state in the words of Triton's index."""
    state = status.state
    if state.serves:
        return IndexRow(name=status.name, version=VERSION, state="READY", reason="")
    if state.is_moving:  # LOADING and UNLOADING are Triton's own words, too
        return IndexRow(name=status.name, version=VERSION, state=state.value, reason="")
    return IndexRow(name=status.name, version=VERSION, state="UNAVAILABLE", reason=f"{state}: {status.reason}")


def check_parameters(verb: Literal["load", "unload"], name: str, parameters: Iterable[str]) -> None:
    """Raises ``RequestError`` for parameters of a load or an unload that would change what Modelium serves."""
    for parameter in parameters:
        if parameter in _HARMLESS:
            continue
        shown = printable(parameter, longest=_SHOWN)
        if parameter == "config" or parameter.startswith("file:"):
            raise RequestError(
                f"failed to {verb} {name!r}: the parameter {shown!r} would replace its entry, which Modelium writes from the "
                f"model's folder: change that, or `models: {{{name}: …}}` in modelium.yaml"
            )
        raise RequestError(f"failed to {verb} {name!r}: there is no parameter {shown!r}")


def tracing_refused() -> Refused:
    """For everything about trace settings."""
    return Refused(TRACING_REFUSED)


def logging_refused() -> Refused:
    """For everything about log settings."""
    return Refused(LOGGING_REFUSED)


def check_shared_memory(allowed: bool) -> None:
    """Raises ``Refused`` unless ``gateway.shared_memory`` allows it."""
    if not allowed:
        raise Refused(SHARED_MEMORY_REFUSED)
