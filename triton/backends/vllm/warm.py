"""What a nursery of vLLM engines runs before it forks the first: it leaves this process with one thread and vLLM imported."""

import contextlib
import locale
import os
import sys
from pathlib import Path

locale.setlocale(locale.LC_ALL, "C.UTF-8")  # else open() may mean ascii, and an import reads files
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # it starts its threads when it is loaded
sys.path.insert(0, str(Path(__file__).parent))

from vllm_backend import environment, warm  # noqa: E402

with contextlib.suppress(ImportError):
    # vLLM's processes say by their titles what they are. Where one is written, is found by the variables that the process began
    # with: a child has others.
    import setproctitle

    setproctitle.getproctitle()
environment.prepare_imports()
warm.up()
