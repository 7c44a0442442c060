"""Ray: settings enter, a cluster that models can be deployed on leaves, and what it has.

Modelium never imports ray. A Ray of its own is a guarded program on this machine (``own``), started when a model first needs
it; a cluster of somebody else's is joined (``joined``). What either has is read from its dashboard (``dashboard``); models are
deployed there by their entries, inside Triton (``repository_templates/ray``).
"""

from modelium.ray.service import ELSEWHERE, RayService

__all__ = ["ELSEWHERE", "RayService"]
