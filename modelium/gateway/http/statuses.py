"""HTTP's word for each error: an exception enters, a status leaves. Another transport has a table of its own.

The statuses of ``/v1`` differ where OpenAI's clients make something else of one (``openai.errors``).
"""

from __future__ import annotations

from collections.abc import Mapping

from modelium import errors

# A class that is not here has the status of the nearest one that it is derived from.
STATUSES: Mapping[type[errors.ModeliumError], int] = {
    errors.ModeliumError: 500,
    # What Triton or Ray said.
    errors.TritonError: 502,
    errors.NotFinite: 502,
    errors.InferenceFailed: 422,
    errors.TritonUnavailable: 503,
    errors.LoadFailed: 503,
    errors.ModelGone: 503,
    errors.RayUnavailable: 503,
    # What a request can run into.
    errors.RequestError: 400,
    errors.Unauthorized: 401,
    errors.OtherSite: 403,
    errors.Refused: 403,
    errors.UnknownModel: 404,
    errors.Conflict: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.UnsupportedEncoding: 415,
    errors.UnknownHost: 421,
    errors.InvalidBody: 422,
    errors.NotServable: 503,
    errors.QueueFull: 503,
    errors.KeyQueueFull: 429,
    errors.DeadlineExceeded: 504,
}


def status_of(error: errors.ModeliumError | type[errors.ModeliumError]) -> int:
    """What HTTP says of ``error``, or of all errors of a class."""
    kind = error if isinstance(error, type) else type(error)
    return next(STATUSES[each] for each in kind.__mro__ if each in STATUSES)
