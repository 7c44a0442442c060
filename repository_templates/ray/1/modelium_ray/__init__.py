"""A model on Ray Serve: ``settings`` and ``deployment`` put it there, ``forwarding`` asks it, ``replica`` is what runs
there."""
