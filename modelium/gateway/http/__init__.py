"""HTTP itself: connections, bodies, keys, time limits, errors and paths. Nothing here knows a model."""
