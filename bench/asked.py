"""Small models of several kinds and what they are asked, and the two ways in which they are served beside each other: born of a
nursery, and without one.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from held import nursery_listens
from served import ROOT, Served, minilm, serve

sys.path.insert(0, str(ROOT))
from tests.models import ensure_models, reference
from tests.models.language import LLAMA, ensure_language_models

NURSERY, WITHOUT = "nursery", "without"
WAYS = {NURSERY: True, WITHOUT: False}  # → ``triton.nursery``
EMBEDDER, IMAGES, LANGUAGE_MODEL = "minilm", "vit", "llama"
TINY = {"classifier": "text classifier", IMAGES: "ViT", "whisper": "Whisper", "onnx-dynamic": "ONNX file"}
_SETTLED_S = 5.0  # a nursery makes a successor half a second after children have told what they had to import themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """``source``: a folder or a file; ``body``: of a request, as ``Served.ask`` takes it; ``runtime``: which serves it."""

    name: str
    title: str
    source: Path
    body: object

    @property
    def runtime(self) -> str:
        return "vllm" if self.name == LANGUAGE_MODEL else "onnxruntime" if self.source.suffix == ".onnx" else "python"

    def drop(self, incoming: Path) -> None:
        if self.source.is_dir():
            shutil.copytree(self.source, incoming / self.name)
        else:
            shutil.copy(self.source, incoming / f"{self.name}{self.source.suffix}")


def models() -> list[Model]:
    """The real MiniLM, and tiny models of real architectures; the last one is vLLM's."""
    directory = ensure_models(names=list(TINY))
    found = [Model(name=EMBEDDER, title="MiniLM", source=minilm(), body={"inputs": "is anybody there?"})]
    for name, title in TINY.items():
        source = directory / name
        inputs = reference(directory, name)["cases"][0]["inputs"]
        first = next(iter(inputs.values()))
        body: object = {"inputs": first if isinstance(first, str) else inputs}
        if isinstance(first, dict):
            body = (directory / "files" / first["file"]).read_bytes()
        found.append(Model(name=name, title=title, source=source if source.is_dir() else Path(f"{source}.onnx"), body=body))
    tale = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 8}}
    found.append(Model(name=LANGUAGE_MODEL, title="Llama on vLLM", source=ensure_language_models() / LLAMA, body=tale))
    return found


@contextlib.contextmanager
def both_ways(served_models: list[Model]) -> Iterator[dict[str, Served]]:
    """Two Modelium that serve the same models; nothing is loaded, and the nursery knows what they import."""

    def prepare(incoming: Path) -> None:
        for model in served_models:
            model.drop(incoming)

    with contextlib.ExitStack() as stack:
        ways = {}
        for way, nursery in WAYS.items():
            settings = {
                "triton": {"nursery": nursery},
                "orchestration": {"load_on_discovery": False, "policies": {"evict_after_idle_seconds": 3600}},
            }
            ways[way] = stack.enter_context(serve(settings, prepare=prepare))
        for served in ways.values():
            for model in served_models:
                wait_for(served, model, "UNLOADED")
        born = ways[NURSERY]
        kinds = {model.runtime for model in served_models}
        born.wait("the nursery is warm", lambda: nursery_listens(born, *kinds), within_s=300)
        for model in served_models:  # what it has to import itself, the nursery imports thereafter
            for served in ways.values():
                ask(served, model)
                unload(served, model)
        time.sleep(_SETTLED_S)
        born.wait("the nursery is warm", lambda: nursery_listens(born, *kinds), within_s=300)
        yield ways


def wait_for(served: Served, model: Model, state: str) -> None:
    served.wait(f"{model.name} is {state}", lambda: served.model(model.name).get("state") == state, within_s=300, every_s=0.02)


def ask(served: Served, model: Model) -> float:
    """The seconds until the answer; ends the program when it is none."""
    began = time.perf_counter()
    answer = served.ask("POST", f"/predict/{model.name}", model.body)
    if answer.status != 200:
        sys.exit(f"{model.name}: {answer.status} {answer.body}; the end of {served.log}:\n{served.tail()}")
    return answer.at - began


def unload(served: Served, model: Model) -> float:
    """The seconds until it is unloaded, and its memory back."""
    began = time.perf_counter()
    answer = served.ask("POST", f"/models/{model.name}/unload")
    if answer.status != 200:
        sys.exit(f"unload of {model.name}: {answer.status} {answer.body}")
    wait_for(served, model, "UNLOADED")
    return time.perf_counter() - began


def picture(side: int = 447) -> bytes:
    """A PNG of noise, which cannot be compressed: 600 kB where ``side`` is 447."""
    chance = random.Random(1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + chance.randbytes(3 * side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, 1)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
