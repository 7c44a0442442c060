"""The words everybody shares: frozen values, no behaviour beyond arithmetic on their own fields.

What enters: nothing. What leaves: the types that every other room takes and returns. Sizes are in bytes, durations and
instants in seconds; an instant is a reading of one monotonic clock that the controller owns (``now`` everywhere).
"""

from modelium.values.decisions import (
    Capabilities,
    Decision,
    Demand,
    ModelOverride,
    ModelView,
    Observed,
    Plan,
    Policies,
    State,
    Usage,
    Verb,
)
from modelium.values.models import (
    Analysis,
    Candidate,
    Incomplete,
    MissingPart,
    ModelProfile,
    OnnxGraph,
    Pooling,
    PoolingMode,
    Task,
    Tensor,
    Unsupported,
    WeightFormat,
)
from modelium.values.places import Device, DeviceKind, Fleet, Footprint, Placement, Runtime
from modelium.values.status import ModelStatus, ServerStatus, Snapshot

__all__ = [
    "Analysis",
    "Candidate",
    "Capabilities",
    "Decision",
    "Demand",
    "Device",
    "DeviceKind",
    "Fleet",
    "Footprint",
    "Incomplete",
    "MissingPart",
    "ModelOverride",
    "ModelProfile",
    "ModelStatus",
    "ModelView",
    "Observed",
    "OnnxGraph",
    "Placement",
    "Plan",
    "Policies",
    "Pooling",
    "PoolingMode",
    "Runtime",
    "ServerStatus",
    "Snapshot",
    "State",
    "Task",
    "Tensor",
    "Unsupported",
    "Usage",
    "Verb",
    "WeightFormat",
]
