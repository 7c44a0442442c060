"""``python -m tests.clients.process``: asks by the clients of its environment. Lines of JSON enter and leave.

A line is a client's name and the fields of ``At``. A process lives as long as its standard input, so that a library is
imported once.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from tests.clients import of_browser, of_huggingface, of_libraries, of_openai, of_triton
from tests.clients.asked import CLIENTS, At, outcome_of

MODULES = (of_browser, of_huggingface, of_libraries, of_openai, of_triton)  # whose import enters the clients


def main() -> None:
    """Until there are no more lines."""
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        client = CLIENTS[asked.pop("client")]
        told.write(json.dumps(asdict(outcome_of(client, At(**asked)))) + "\n")


if __name__ == "__main__":
    main()
