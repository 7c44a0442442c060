"""The gateway: HTTP requests enter, answers in Hugging Face's shapes and the state of all models leave."""

from modelium.gateway.app import build_app, build_runner
from modelium.gateway.status.metrics_app import build_metrics_app

__all__ = ["build_app", "build_metrics_app", "build_runner"]
