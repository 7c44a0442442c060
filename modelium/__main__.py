"""``python -m modelium serve``."""

from modelium.cli import main

main()
