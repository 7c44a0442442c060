"""Modelium's dashboards for Grafana. Nothing enters; ``ALL`` leaves, which ``write_dashboards.py`` writes."""

from dashboards import cold_starts, memory, model, overview

ALL = (overview.DASHBOARD, model.DASHBOARD, memory.DASHBOARD, cold_starts.DASHBOARD)
