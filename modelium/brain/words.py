"""Demands in words."""

from __future__ import annotations

from modelium.values import Demand

WANTED_BY = {
    Demand.DISCOVERY: "its discovery",
    Demand.RESTORE: "the restart (it was loaded before)",
    Demand.POLICY: "always_loaded or its pin",
    Demand.USER: "the user",
    Demand.REQUEST: "a waiting request",
}
