"""``infra/k8s/base/rules.yaml``: Prometheus' rule files enter, the Prometheus operator's resource of the same groups leaves.

Kustomize copies files and changes fields, but puts no file into a field; so the resource is written here. With ``--check``
nothing is written: exit code 1 where it is not what the rules say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
_HEAD = "# Written by scripts/write_prometheus_rules.py (`make generate`) from infra/prometheus/rules/; don't edit.\n"


def resource_text(rules: Path) -> str:
    """The resource's file for the rule files in a directory, in the order of their names."""
    files = sorted(file for file in rules.glob("*") if file.suffix in (".yml", ".yaml"))
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "modelium", "labels": {"app.kubernetes.io/name": "modelium"}},
        "spec": {"groups": [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]},
    }
    return _HEAD + yaml.safe_dump(resource, sort_keys=False, allow_unicode=True, width=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rules", type=Path, default=ROOT / "infra" / "prometheus" / "rules", help="a directory of rule files")
    parser.add_argument("--out", type=Path, default=ROOT / "infra" / "k8s" / "base" / "rules.yaml")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    arguments = parser.parse_args()
    text = resource_text(arguments.rules)
    if arguments.check:
        if not arguments.out.is_file() or arguments.out.read_text(encoding="utf-8") != text:
            sys.exit(f"{arguments.out} is not what {arguments.rules} says: run scripts/write_prometheus_rules.py")
        return
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
