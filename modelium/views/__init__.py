"""What is told of models in JSON: values enter, dictionaries leave, and what was read of them comes back typed.

Each field is declared once, in the class that writes it and that it is read back as: the gateway, the verbs and the page share
these names. Names and units are part of the interface: sizes in bytes (``_bytes``), durations in seconds (``_s``). To add a
field to what is told of a model, add it to ``values.ModelStatus`` and to ``Summary`` or ``Status``.
"""

from modelium.views.fields import Json, written
from modelium.views.language import Adapter, Engine, Language, LayerGroup, PlanLine
from modelium.views.listing import Listing, Node, Nursery, Ray, Server
from modelium.views.models import (
    Decision,
    Decisions,
    Described,
    FullProfile,
    Loading,
    Part,
    Placement,
    Plan,
    Profile,
    Replicas,
    Status,
    Summary,
    Weighed,
)

__all__ = [
    "Adapter",
    "Decision",
    "Decisions",
    "Described",
    "Engine",
    "FullProfile",
    "Json",
    "Language",
    "LayerGroup",
    "Listing",
    "Loading",
    "Node",
    "Nursery",
    "Part",
    "Placement",
    "Plan",
    "PlanLine",
    "Profile",
    "Ray",
    "Replicas",
    "Server",
    "Status",
    "Summary",
    "Weighed",
    "written",
]
