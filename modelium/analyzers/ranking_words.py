"""Whether a decoder ranks by its next word in a way that is known.

What enters: a folder whose task is to rank. What leaves: yes or no. sentence-transformers says it with a ``LogitScore`` among
the modules and a chat template that asks; of Qwen3-Reranker, published without them, the python runtime knows the question.
"""

from __future__ import annotations

from modelium.analyzers.folder import Folder
from modelium.analyzers.formats.json_text import JsonObject, parse, text
from modelium.analyzers.tasks_of import TaskFinding

_MAX_MODULES_BYTES = 2**20
_QWEN3 = "Qwen3ForCausalLM"
_TEMPLATE = "chat_template.jinja"


def ranks_by_words(folder: Folder, finding: TaskFinding, tokenizer: JsonObject) -> bool:
    """Of a decoder with transformers' own code."""
    if finding.custom_code or not finding.architecture.endswith("ForCausalLM"):
        return False
    if not _scores_by_logits(folder):
        return finding.architecture == _QWEN3 and "modules.json" not in folder
    return _TEMPLATE in folder or bool(tokenizer.get("chat_template"))


def _scores_by_logits(folder: Folder) -> bool:
    if "modules.json" not in folder:
        return False
    listed = parse(folder.read("modules.json", _MAX_MODULES_BYTES), "modules.json")
    modules = [module for module in listed if isinstance(module, dict)] if isinstance(listed, list) else []
    return any(text(module, "type").endswith(".LogitScore") for module in modules)
