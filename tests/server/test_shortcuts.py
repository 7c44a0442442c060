"""What the python runtime leaves out of a load changes nothing of what is loaded; in the model runtime's own interpreter."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from modelium.resources import templates_directory
from tests.server.systems import RUNTIME

pytestmark = pytest.mark.server

_PROGRAM = """
import json, sys
from importlib import import_module
from types import ModuleType

sys.modules["entry"] = package = ModuleType("entry")
package.__path__ = [sys.argv[1]]
import_module("entry.start")
import torch
from transformers import BertConfig, BertModel, core_model_loading

found = {}
with torch.device("meta"):
    meta = torch.nn.Embedding(7, 3)
torch.manual_seed(0)
filled, plain = torch.nn.Embedding(7, 3), torch.empty(7, 3)
torch.manual_seed(0)
found["filled"] = meta.weight.is_meta and torch.equal(filled.weight, plain.normal_())

pattern = core_model_loading.re.compile("(?P<g0>weights?)[.](?P<g1>[0-9]+)")
match = pattern.search("a.weight.12")
found["pattern"] = [match.lastgroup, match["g1"], pattern.groupindex["g1"], core_model_loading.re.sub("a", "b", "a")]
try:
    core_model_loading.re.compile("(").search("")
except core_model_loading.re.error:
    found["refused"] = True

config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
made = BertModel(config)
made.save_pretrained(sys.argv[2])
loaded, told = BertModel.from_pretrained(sys.argv[2], output_loading_info=True)
found["told"] = sorted(name for kind in told.values() for name in kind)
found["same"] = [name for name, value in made.state_dict().items() if not torch.equal(value, loaded.state_dict()[name])]
loaded.save_pretrained(sys.argv[2])
again = BertModel.from_pretrained(sys.argv[2])
found["saved"] = [name for name, value in made.state_dict().items() if not torch.equal(value, again.state_dict()[name])]
found["random"] = [bool(value.std() > 0) for name, value in made.state_dict().items() if name.endswith("query.weight")]
print(json.dumps(found))
"""


def test_a_model_is_made_loaded_and_saved_as_without_shortcuts(tmp_path: Path) -> None:
    command = [str(RUNTIME / "bin" / "python"), "-c", _PROGRAM, str(templates_directory() / "python" / "1"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "filled": True,
        "pattern": ["g1", "12", 2, "b"],
        "refused": True,
        "told": [],
        "same": [],
        "saved": [],
        "random": [True, True],
    }
