"""What every model of this backend needs: a nursery runs this file before it forks children."""

import os

# Its Linux builds send what they load to their makers, by a thread that they start when they are imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy
import onnxruntime

__all__ = ["numpy", "onnxruntime"]
