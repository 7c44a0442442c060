"""A model's folder under a path that this interpreter can open.

What enters: ``model_path`` of config.pbtxt. What leaves: the same path, or a link to it whose name is ASCII.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile


def readable_path(path: str) -> str:
    """``path``, or for one with other than ASCII characters a link to it.

    Triton's stub starts its interpreter in the C locale: file names are ASCII from then on, whatever the locale becomes later
    (measured: ``sys.getfilesystemencoding()`` stays ``ascii``, and no PYTHON* variable is heeded). Bytes still reach the disk
    as they are, and whatever is opened below an ASCII link is found.
    """
    if path.isascii():
        return path
    directory = tempfile.mkdtemp(prefix="modelium-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    link = f"{directory}/model"
    os.symlink(path.encode(), link.encode())  # noqa: PTH211 — pathlib has no bytes
    return link
