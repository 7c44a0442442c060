"""What Triton's client repository shows in its examples, written anew: each is called as it is called there.

What enters: where the gateway listens. What leaves: nothing, or an ``AssertionError``.
"""
