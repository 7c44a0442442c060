"""Write Grafana's dashboards: ``scripts/dashboards/`` enters, ``infra/grafana/dashboards/*.json`` leaves.

make generate                                   writes them
python scripts/write_dashboards.py --check      exit code 1 when a file is not what would be written
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dashboards import ALL
from dashboards.grafana import render

DIRECTORY = Path(__file__).resolve().parents[1] / "infra" / "grafana" / "dashboards"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    wanted = {
        DIRECTORY / dashboard.file: json.dumps(render(dashboard), indent=2, ensure_ascii=False) + "\n" for dashboard in ALL
    }
    there = {path: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.json")}
    if parser.parse_args().check:
        return int(there != wanted)
    for path in there.keys() - wanted.keys():
        path.unlink()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
