"""Many folders: how long the start-up scan of 2,000 takes, what a quiet tick costs, how much memory the controller holds.

Figures aimed at: scan ≤ 10 s, a quiet tick ≤ 50 ms of CPU (the check of use with its plan, and the scan, each on its own),
RSS ≤ 300 MB. The folders are whole (a configuration, a vocabulary, a safetensors file whose header is right), and nothing is
loaded: ``load_on_discovery: false``.
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from pathlib import Path

import psutil
from served import Served, serve

_TICK_S = 1.0
_QUIET_S = 20.0
_NEVER_S = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folders", type=int, default=2000)
    folders = parser.parse_args().folders
    with serve(settings(check_s=_TICK_S, scan_s=_NEVER_S)) as served:
        empty_s = served.up_after_s
        empty_ms = quiet_tick_ms(served)
    with serve(
        settings(check_s=_TICK_S, scan_s=_NEVER_S), prepare=lambda incoming: fill(incoming, folders), ready=False
    ) as served:
        began = time.perf_counter()
        served.wait("every folder analyzed", lambda: unloaded(served) == folders, within_s=120, every_s=0.1)
        full_s = time.perf_counter() - began
        pass_ms = quiet_tick_ms(served)
        rss_mb = psutil.Process(served.pid).memory_info().rss / 1e6
    with serve(
        settings(check_s=_NEVER_S, scan_s=_TICK_S), prepare=lambda incoming: fill(incoming, folders), ready=False
    ) as served:
        served.wait("every folder analyzed", lambda: unloaded(served) == folders, within_s=120, every_s=0.1)
        scan_ms = quiet_tick_ms(served)
    print(f"{folders} folders: all known {full_s:.1f} s after the start of the process (ready with no folder: {empty_s:.1f} s)")
    print(f"CPU of a quiet check {pass_ms:.1f} ms (with no folder {empty_ms:.1f} ms), of a quiet scan {scan_ms:.1f} ms")
    print(f"RSS {rss_mb:.0f} MB")


def settings(*, check_s: float, scan_s: float) -> dict[str, object]:
    return {
        "orchestration": {
            "load_on_discovery": False,
            "model_discovery": {"scan_interval_seconds": scan_s},
            "policies": {"check_interval_seconds": check_s},
        }
    }


def unloaded(served: Served) -> int:
    answer = served.ask("GET", "/models")
    return sum(model["state"] == "UNLOADED" for model in answer.body["models"]) if answer.status == 200 else 0


def quiet_tick_ms(served: Served) -> float:
    """CPU time of the controller's process over some seconds in which nobody asks anything, per tick."""
    process = psutil.Process(served.pid)
    time.sleep(3)  # let the start's last work end
    before = process.cpu_times()
    time.sleep(_QUIET_S)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (_QUIET_S / _TICK_S) * 1e3


def fill(incoming: Path, folders: int) -> None:
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "vocab_size": 32,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "max_position_embeddings": 64,
        "torch_dtype": "float32",
    }
    weights = {"classifier.weight": (2, 8), "bert.embeddings.word_embeddings.weight": (32, 8)}
    for number in range(folders):
        folder = incoming / f"model-{number:04}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config | {"_number": number}))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
        (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(27))]))
        (folder / "model.safetensors").write_bytes(safetensors(weights))


def safetensors(shapes: dict[str, tuple[int, int]]) -> bytes:
    header: dict[str, object] = {}
    end = 0
    for name, (rows, columns) in shapes.items():
        begin, end = end, end + rows * columns * 4
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


if __name__ == "__main__":
    main()
