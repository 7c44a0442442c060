"""A revision's digest. What enters: a folder. What leaves: hex digits that change when any file that matters changes.

Small files count by content, so that touching them changes nothing; large ones by size and modification time.
"""

from __future__ import annotations

import hashlib

from modelium.analyzers.folder import File, Folder

_BY_CONTENT_BYTES = 64 * 1024
_IRRELEVANT = (
    ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf", ".log", ".ipynb", "LICENSE", "LICENSE.txt", "NOTICE",
    "desktop.ini", "Thumbs.db", "CACHEDIR.TAG", "checksums.txt", "SHA256SUMS", ".md5", ".sha256", ".sha512", ".asc", ".sig",
    ".pyc",
)  # fmt: skip
_WRITTEN_BY_TRAINING = "events.out.tfevents."  # TensorBoard's, appended to while others read


def fingerprint_folder(folder: Folder, card: str) -> str:
    """Digest of all files; of the README only ``card``, what was taken from it."""
    digest = hashlib.sha256(card.encode())
    for name in sorted(folder.files):
        if not matters(name):
            continue
        file = folder.files[name]
        if file.size <= _BY_CONTENT_BYTES:
            content = folder.read(name, _BY_CONTENT_BYTES)
            digest.update(f"\0{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
            digest.update(content)
        else:
            digest.update(_stamp(file))
    return digest.hexdigest()[:32]


def matters(name: str) -> bool:
    """Whether a file of that name is part of the model; the README is not, though what is taken from it is."""
    bare = name.rpartition("/")[2]
    return bare != "README.md" and not bare.startswith(_WRITTEN_BY_TRAINING) and not bare.endswith(_IRRELEVANT)


def fingerprint_files(files: list[File]) -> str:
    """Digest of a model that consists of these files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(_stamp(file))
    return digest.hexdigest()[:32]


def _stamp(file: File) -> bytes:
    return f"\0{file.name}\0{file.size}\0{file.mtime_ns}\0".encode("utf-8", "surrogateescape")
