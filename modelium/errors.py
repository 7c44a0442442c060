"""One tree of errors. Each carries the sentence for the user: what happened and what to do.

``type`` is the stable word that clients may branch on. What an error is in HTTP, the gateway knows (``gateway.http.statuses``).
"""

from __future__ import annotations


class ModeliumError(Exception):
    """Root of everything Modelium raises on purpose."""

    type = "internal_error"


class ConfigError(ModeliumError):
    """modelium.yaml cannot be used: the place and the nearest right word are in the message."""

    type = "config_error"


class IllegalTransition(ModeliumError):
    """A state change that the table does not have: a defect of ours, never of the user."""


class EntryError(ModeliumError):
    """A model-repository entry could not be written."""

    type = "entry_error"


class RuntimeMissing(ModeliumError):
    """The model runtime (``.runtime``) or the embedded server cannot be used on this machine."""

    type = "runtime_missing"


# -- what Triton said ----------------------------------------------------------------------------------------------


class TritonError(ModeliumError):
    """Triton refused or could not do something."""

    type = "triton_error"


class TritonUnavailable(TritonError):
    """Triton cannot be reached (down, restarting, connection refused)."""

    type = "triton_unavailable"


class LoadFailed(TritonError):
    """Triton could not load a model; the message is the cause, without Triton's wrapping."""

    type = "load_failed"


class NotFinite(TritonError):
    """The model answered with numbers that are none (NaN, infinity): its weights or its precision are to blame."""

    type = "not_finite"


class ProcessLost(LoadFailed):
    """The process of a model ended, or was taken for dead, while the model was loaded."""


class MachineTrouble(LoadFailed):
    """A load failed for want of something of this machine (shared memory, disk, memory, files): not the model's fault."""


class OutOfMemory(MachineTrouble):
    """A load failed for want of memory. ``asked_bytes``: what it asked for at once, 0 where that is not said.

    The machine's trouble at first; a model that meets it again and again, or asks for more than there is, has it of itself.
    """

    def __init__(self, message: str, asked_bytes: int = 0) -> None:
        super().__init__(message)
        self.asked_bytes = asked_bytes


class GivenUp(MachineTrouble):
    """Triton gave up a process that was well, since it was silent for a second while it started: the machine was too busy."""


class FolderChanged(LoadFailed):
    """A model's folder was written to since it was looked at: what would be loaded is not what was decided upon."""


class InferenceFailed(TritonError):
    """The model answered with an error for this very request."""

    type = "inference_failed"


class ContextExceeded(InferenceFailed):
    """What was sent is longer than the model's context."""


class ModelGone(TritonError):
    """Triton does not serve the model now (not loaded, or its stub process died): the request may be tried again."""

    type = "model_gone"


class NotExecuted(ModelGone):
    """The model, or Triton, was gone before it had anything of the request: it may be sent again, whatever it does."""


class RayUnavailable(ModeliumError):
    """Ray cannot be reached, or not be started. ``remedy``: what helps, where that is known."""

    type = "ray_unavailable"

    def __init__(self, what: str, *, remedy: str = "") -> None:
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


# -- what a request can run into -----------------------------------------------------------------------------------


class RequestError(ModeliumError):
    """A request that cannot be answered as it stands. ``param``: the field that is to blame, where it is one."""

    type = "bad_request"
    param: str | None = None


class Unauthorized(RequestError):
    """An API key is needed, and none that is known was sent."""

    type = "unauthorized"


class UnknownHost(RequestError):
    """The ``Host`` is none of this server's: perhaps a page whose name was re-bound to our address."""

    type = "unknown_host"


class OtherSite(RequestError):
    """A web page of another site made a browser send this."""

    type = "other_site"


class Refused(RequestError):
    """It is not for clients to do; the message says why, and what to do instead."""

    type = "refused"


class UnsupportedMediaType(RequestError):
    """The body is not of a kind that is read here."""

    type = "unsupported_media_type"


class UnknownModel(RequestError):
    """No model of that name; the message names the nearest ones."""

    type = "unknown_model"


class NoModelCalled(UnknownModel):
    """Nothing at all has the name ``called``, of which a hundred characters are quoted; ``hint``: what to do."""

    words = "no model is called {}"

    def __init__(self, called: str, hint: str) -> None:
        quoted = called if len(called) <= 100 else f"{called[:100]} …"
        super().__init__(f"{self.words.format(repr(quoted))}; {hint}")
        self.called, self.hint = called, hint


class InvalidBody(RequestError):
    """The body does not fit the task. The message begins with the ``field``, as its sender writes it (``inputs[3].text``)."""

    type = "invalid_body"

    def __init__(self, said: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {said}" if field else said)
        self.param = field or None


class BodyTooLarge(RequestError):
    """The body is larger than ``gateway.max_body_bytes``."""

    type = "body_too_large"


class NotServable(RequestError):
    """INCOMPLETE, UNSUPPORTED, FAILED or quarantined: the message carries the reason."""

    type = "not_servable"


class DeadlineExceeded(RequestError):
    """The request's time is over."""

    type = "deadline_exceeded"


class QueueFull(RequestError):
    """Too many requests wait for models; ``retry_after_s`` goes into the Retry-After header."""

    type = "queue_full"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class KeyQueueFull(QueueFull):
    """Too many requests with one API key wait for models; those with other keys may."""

    type = "key_queue_full"


class TooMuchUnderWay(QueueFull):
    """The bodies of all requests together take too much memory; ``retry_after_s`` goes into the Retry-After header."""

    type = "busy"


class UnsupportedEncoding(RequestError):
    """The body is compressed in a way that nobody here can undo."""

    type = "unsupported_encoding"


class Conflict(RequestError):
    """What is asked contradicts what was asked before (unloading a pinned model); the message says what to undo."""

    type = "conflict"
