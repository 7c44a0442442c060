"""Programs of ours with everything below them: a command line enters, a process tree that leaves nothing behind runs.

``GuardedProgram`` starts the guardian (guardian.py), the guardian starts the program. Whether by ``stop()``, a crash or kill -9
of anyone in that chain: the process tree and the shared memory are gone seconds later.
"""

from modelium.guarded.program import Command, GuardedProgram

__all__ = ["Command", "GuardedProgram"]
