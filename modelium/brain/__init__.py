"""Decisions, and nothing else: values and ``now`` enter, decisions with their reasons leave.

No clock, no I/O, no await, no logging: the dry run, the log of decisions, ``modelium why`` and the tests use the same
functions as the controller.
"""
