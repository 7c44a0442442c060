"""What holds for every test."""

from hypothesis import settings

# No deadlines: how long an example takes is the machine's business, and it may be a busy one. Speed is `make bench`'s.
settings.register_profile("modelium", deadline=None)
settings.load_profile("modelium")
