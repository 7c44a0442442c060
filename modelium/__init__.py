"""Modelium: drop a Hugging Face folder, call it. Maximum GPU utilization with minimum user effort."""

import os

__version__ = "0.1.0"

# Before the first import of grpc, wherever it is: without this it complains at every subprocess that another thread was inside
# gRPC. What Modelium starts is exec'ed at once and never uses the parent's channels.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
