"""``python -m modelium.cli serve``."""

from modelium.cli import main

main()
