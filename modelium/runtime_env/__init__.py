"""The model runtime (``.runtime``): torch, transformers, numpy < 2 and tritonserver, in a Python environment of its own.

What enters: a directory. What leaves: that environment, made by uv (``install``), or a report of what is in it and what
keeps Triton from running there (``inspect``). It is apart from Modelium's own environment because Triton 2.51's python
backend needs numpy < 2, and because models must not be able to change the controller's packages.
"""

from modelium.runtime_env.inspection import RuntimeReport, find_python, inspect, machine_problems
from modelium.runtime_env.installation import has_nvidia_gpu, install
from modelium.runtime_env.ray_facts import read_ray
from modelium.runtime_env.vllm_facts import read_vllm

__all__ = ["RuntimeReport", "find_python", "has_nvidia_gpu", "inspect", "install", "machine_problems", "read_ray", "read_vllm"]
