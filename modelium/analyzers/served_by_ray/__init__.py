"""Folders that no Triton backend serves, and Ray Serve does: applications, tables, pipelines of diffusers.

What enters: a listed folder. What leaves: a ``ModelProfile``, None where it is nothing of the kind, or a verdict. As
everywhere in the analyzers, nothing is unpickled and nothing runs.
"""

from modelium.analyzers.served_by_ray.app import is_app, profile_app
from modelium.analyzers.served_by_ray.diffusion import INDEX, profile_pipeline
from modelium.analyzers.served_by_ray.tabular import is_sklearn_config, profile_table

__all__ = ["INDEX", "is_app", "is_sklearn_config", "profile_app", "profile_pipeline", "profile_table"]
