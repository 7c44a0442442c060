"""gRPC's word for each error: an exception enters, a status leaves. Another transport has a table of its own."""

from __future__ import annotations

from collections.abc import Mapping

from grpc import StatusCode

from modelium import errors

# A class that is not here has the status of the nearest one that it is derived from.
STATUSES: Mapping[type[errors.ModeliumError], StatusCode] = {
    errors.ModeliumError: StatusCode.INTERNAL,
    # What Triton or Ray said.
    errors.TritonError: StatusCode.UNAVAILABLE,
    errors.RayUnavailable: StatusCode.UNAVAILABLE,
    # What a request can run into.
    errors.RequestError: StatusCode.INVALID_ARGUMENT,
    errors.Unauthorized: StatusCode.UNAUTHENTICATED,
    errors.OtherSite: StatusCode.PERMISSION_DENIED,
    errors.Refused: StatusCode.PERMISSION_DENIED,
    errors.UnknownModel: StatusCode.NOT_FOUND,
    errors.Conflict: StatusCode.FAILED_PRECONDITION,
    errors.BodyTooLarge: StatusCode.RESOURCE_EXHAUSTED,
    errors.NotServable: StatusCode.UNAVAILABLE,
    errors.QueueFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
}

# What metrics count, for which HTTP's words are the common ones.
_IN_HTTP: Mapping[StatusCode, int] = {
    StatusCode.OK: 200,
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ABORTED: 409,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DEADLINE_EXCEEDED: 504,
}


def status_of(error: errors.ModeliumError | type[errors.ModeliumError]) -> StatusCode:
    """What gRPC says of ``error``, or of all errors of a class."""
    kind = error if isinstance(error, type) else type(error)
    return next(STATUSES[each] for each in kind.__mro__ if each in STATUSES)


def in_http(status: StatusCode) -> int:
    """The status of HTTP under which an answer is counted."""
    return _IN_HTTP.get(status, 500)
