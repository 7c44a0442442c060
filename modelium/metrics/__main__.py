"""``python -m modelium.metrics > docs/metrics.md``."""

from modelium.metrics import reference

print(reference(), end="")
