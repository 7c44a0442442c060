"""Models that take memory, and what they are asked: a name enters, a folder and requests leave."""

from __future__ import annotations

import concurrent.futures
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from served import ROOT, Served, minilm

sys.path.insert(0, str(ROOT))
from tests.models.language import GPT2, LLAMA, ensure_language_models

EMBEDDER, LANGUAGE_MODEL = "minilm", LLAMA
_GRAPH, _LARGER = "minilm-graph", "qwen3-130m"
_AT_ONCE = 16
PATIENCE_S = 900.0


def write_model(incoming: Path, name: str) -> None:
    if name == EMBEDDER:
        shutil.copytree(minilm(), incoming / name)
    elif name == _GRAPH:
        write_graph(minilm(), incoming / f"{name}.onnx")
    elif name == _LARGER:
        write_larger(incoming / name, ensure_language_models() / LLAMA)
    else:
        shutil.copytree(ensure_language_models() / name, incoming / name)


def write_graph(folder: Path, path: Path) -> None:
    """The embedder as an ONNX graph of its own, as optimum would export it."""
    in_the_runtime(
        f"""
from transformers import AutoModel
model = AutoModel.from_pretrained({str(folder)!r}, attn_implementation="eager").eval()

class Graph(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        seen = (1.0 - attention_mask[:, None, None, :].float()) * -1e9  # a trace would keep whether it has a zero
        return self.model(input_ids=input_ids, attention_mask=seen).last_hidden_state

tokens, names = torch.ones(2, 8, dtype=torch.long), ["input_ids", "attention_mask"]
axes = {{name: {{0: "batch", 1: "tokens"}} for name in [*names, "states"]}}
torch.onnx.export(Graph(), (tokens, tokens), {str(path) + ".new"!r}, input_names=names, output_names=["states"],
                  dynamic_axes=axes, opset_version=17, dynamo=False)
"""
    )
    Path(f"{path}.new").rename(path)


def write_larger(folder: Path, tokens_of: Path) -> None:
    """A Qwen3 of 130 million random parameters: large enough that its weights and its cache count, beside the processes."""
    beside = folder.with_name(f".{folder.name}")
    in_the_runtime(
        f"""
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
torch.manual_seed(7)
tokenizer = AutoTokenizer.from_pretrained({str(tokens_of)!r})
config = Qwen3Config(
    vocab_size=32_000, hidden_size=1024, intermediate_size=3072, num_hidden_layers=8, num_attention_heads=16,
    num_key_value_heads=8, head_dim=64, max_position_embeddings=4096, tie_word_embeddings=True,
    bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
)
Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained({str(beside)!r})
tokenizer.save_pretrained({str(beside)!r})
"""
    )
    beside.rename(folder)


def in_the_runtime(program: str) -> None:
    """Its interpreter has torch and transformers. The checkout's own directory "triton" would pass for the compiler."""
    first = f"import sys\nsys.path[:] = [place for place in sys.path if place not in ('', {str(ROOT)!r})]\nimport torch\n"
    done = subprocess.run(
        [str(ROOT / ".runtime" / "bin" / "python"), "-c", first + program], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"a model could not be made:\n{done.stderr}")


def embed(served: Served, name: str) -> None:
    """A full batch of texts as long as it reads."""
    at_once(lambda: post(served, f"/predict/{name}", {"inputs": ["the cat sat on the mat " * 60] * _AT_ONCE}), 2)


def compute(served: Served, name: str) -> None:
    tokens = [[1] * 128] * 8
    post(served, f"/predict/{name}", {"inputs": {"input_ids": tokens, "attention_mask": tokens}})


def write(served: Served, name: str) -> None:
    """A few at once, for a hundred tokens or so: a cache is touched, not filled."""
    parameters = {"max_new_tokens": 32}
    at_once(lambda: post(served, f"/predict/{name}", {"inputs": "Once upon a time " * 20, "parameters": parameters}), 4)


def post(served: Served, path: str, body: object = None) -> Any:
    answer = served.ask("POST", path, body, timeout_s=PATIENCE_S)
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {answer.body}")
    return answer.body


def at_once(ask: Callable[[], object], times: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(times) as pool:
        for one in [pool.submit(ask) for _ in range(times)]:
            one.result()


WORK: dict[str, Callable[[Served, str], None]] = {
    EMBEDDER: embed,
    _GRAPH: compute,
    LLAMA: write,
    GPT2: write,
    _LARGER: write,
}
RUNTIMES = {EMBEDDER: "python", _GRAPH: "onnxruntime", LLAMA: "vllm", GPT2: "vllm", _LARGER: "vllm"}
