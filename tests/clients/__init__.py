"""Clients of other people's, each asking a model in each state: ``python -m tests.clients`` (``make clients-matrix``).

``asked.py``: how a client asks, by name. ``of_*.py`` and ``node/``: the clients. ``process.py``: runs them in their own
environment. ``states.py``: brings a model into a state while a client asks it. ``matrix.py``: the table of all.
"""
