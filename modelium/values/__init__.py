"""The words everybody shares: frozen values, no behaviour beyond arithmetic on their own fields.

What enters: nothing. What leaves: the types that every other room takes and returns. Sizes are in bytes, durations and
instants in seconds; an instant is a reading of one monotonic clock that the controller owns (``now`` everywhere).
"""

from modelium.values.arrivals import Arrivals
from modelium.values.decisions import (
    Capabilities,
    Decision,
    Demand,
    EvictForRequests,
    Eviction,
    ModelOverride,
    ModelView,
    Observed,
    Plan,
    Policies,
    Usage,
    Verb,
    VllmFacts,
    Weighed,
    override_of,
)
from modelium.values.language import (
    Adapter,
    AttentionKind,
    EnginePlan,
    JsonValue,
    LanguageModel,
    LayerGroup,
    PlanLine,
)
from modelium.values.models import (
    AdapterProfile,
    Analysis,
    Candidate,
    Incomplete,
    MissingPart,
    ModelProfile,
    OnnxGraph,
    Pooling,
    PoolingMode,
    ServeApp,
    TabularModel,
    Unsupported,
    WeightFormat,
)
from modelium.values.places import Device, DeviceKind, Fleet, Footprint, Placement, Runtime, device_id
from modelium.values.problem import Problem
from modelium.values.ray import Bundle, Ray, RayFacts, RayNode, RayOptions, RayState, RayWay, Replicas
from modelium.values.states import State, Tone
from modelium.values.status import ModelStatus, ServerStatus, Snapshot, Target
from modelium.values.tasks import Encoded, Gives, Takes, Task
from modelium.values.tensors import Tensor
from modelium.values.watched import Unclaimed, WatchDirectory

__all__ = [
    "Adapter",
    "AdapterProfile",
    "Analysis",
    "Arrivals",
    "AttentionKind",
    "Bundle",
    "Candidate",
    "Capabilities",
    "Decision",
    "Demand",
    "Device",
    "DeviceKind",
    "Encoded",
    "EnginePlan",
    "EvictForRequests",
    "Eviction",
    "Fleet",
    "Footprint",
    "Gives",
    "Incomplete",
    "JsonValue",
    "LanguageModel",
    "LayerGroup",
    "MissingPart",
    "ModelOverride",
    "ModelProfile",
    "ModelStatus",
    "ModelView",
    "Observed",
    "OnnxGraph",
    "Placement",
    "Plan",
    "PlanLine",
    "Policies",
    "Pooling",
    "PoolingMode",
    "Problem",
    "Ray",
    "RayFacts",
    "RayNode",
    "RayOptions",
    "RayState",
    "RayWay",
    "Replicas",
    "Runtime",
    "ServeApp",
    "ServerStatus",
    "Snapshot",
    "State",
    "TabularModel",
    "Takes",
    "Target",
    "Task",
    "Tensor",
    "Tone",
    "Unclaimed",
    "Unsupported",
    "Usage",
    "Verb",
    "VllmFacts",
    "WatchDirectory",
    "Weighed",
    "WeightFormat",
    "device_id",
    "override_of",
]
