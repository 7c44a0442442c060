"""transformers' auto-mappings as the analyzers parse them, against the module itself (two seconds to import)."""

from __future__ import annotations

import importlib

import pytest

from modelium.analyzers.architectures import mappings

pytestmark = pytest.mark.server


def test_the_tables_parsed_are_those_that_transformers_imports() -> None:
    modeling_auto = importlib.import_module("transformers.models.auto.modeling_auto")
    parsed = mappings().tables
    assert parsed[""]["bert"] == modeling_auto.MODEL_MAPPING_NAMES["bert"]
    for family in ("CAUSAL_LM", "CTC", "MASKED_LM", "SEQUENCE_CLASSIFICATION", "OBJECT_DETECTION", "SPEECH_SEQ_2_SEQ", "IMAGE"):
        assert dict(parsed[family]) == dict(getattr(modeling_auto, f"MODEL_FOR_{family}_MAPPING_NAMES"))
