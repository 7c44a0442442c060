"""The only room that speaks to Triton: its repository API, inference and statistics, and the embedded server's process."""

import os

# Before the first import of grpc: without this it complains at every subprocess that another thread was inside gRPC. What
# Modelium starts is exec'ed at once and never uses the parent's channels.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
