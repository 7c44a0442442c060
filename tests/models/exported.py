"""transformers folders whose weights are an ONNX graph; sentence-transformers and transformers answer from the torch weights.

Runs in the model runtime.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertForSequenceClassification, BertModel, pipeline

from tests.models.common import Reference, case, save, wordpiece
from tests.models.sentences import TEXTS

_WIDTH = 8
