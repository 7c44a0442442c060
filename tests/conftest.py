"""What holds for every test."""

import os

from hypothesis import settings

# No deadlines: how long an example takes is the machine's business, and it may be a busy one. Speed is `make bench`'s.
settings.register_profile("modelium", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=15)  # `make test-fast`
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "modelium"))
