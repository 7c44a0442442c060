"""Asking models, whoever asks: a name enters, what the model answers leaves. No transport is known here.

Lease → what to ask → answer, and once more when the model went away under it.
"""

from modelium.gateway.asking.asking import ATTEMPTS, Asked, Asking, Waited

__all__ = ["ATTEMPTS", "Asked", "Asking", "Waited"]
