"""Analysis of folders that nobody vouches for, in processes that may come to harm: ``analyzers`` within limits.

What enters: a ``Candidate``. What leaves: its ``Analysis``; ``Unsupported`` with the limit where looking at it took more than
any model needs. A worker is a fresh interpreter with low priority, so much time, processor and memory, no files to write, and,
where the kernel lets it, no network. It is killed and replaced when it goes beyond a limit.
"""

from modelium.analysis.notebook import Notebook
from modelium.analysis.pool import Analysts, analyze_apart

__all__ = ["Analysts", "Notebook", "analyze_apart"]
