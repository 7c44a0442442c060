"""Model-repository entries: what Triton reads.

What enters: a ``ModelProfile`` and its ``Placement``. What leaves: a directory ``NAME/`` with ``config.pbtxt``,
``modelium.json`` and ``1/``, which appears in one rename and replaces an older one in one exchange. Entries that Modelium
didn't write, which are those without our ``modelium.json``, are never touched.

Entries are portable. A python entry refers to the model's folder by the parameter ``model_path`` alone. An onnxruntime entry
has to hold ``1/model.onnx``, because the stock C++ backend looks nowhere else: that is a link to the model's file, its
external data lie beside it as links under their own relative names, and ``model_path`` names the same file. ``path_mapping``
rewrites all of them for a Triton that sees the folders under another path (a container's volume): such links dangle here
and work there. To move an onnxruntime entry by hand, mend ``model_path`` for the backend in ``triton/backends`` and the
links for the stock one. A vllm entry says in ``1/model.json`` where the model is, and in ``1/multi_lora.json`` where its
adapters are. A ray entry carries all the code that its replicas run. Each runtime has its file here.

All of this is synchronous and takes milliseconds, most of them waiting for the disk; the controller calls it in threads.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from modelium.errors import EntryError
from modelium.repository.config import WRITERS, build_config, check_name, config_text, parse_config
from modelium.repository.staging import Staging, copy_tree, flush, is_same, newest_mtime_ns, put, write_file
from modelium.repository.writing import Order, RayPlace
from modelium.resources import templates_directory
from modelium.values import EnginePlan, Footprint, ModelOverride, ModelProfile, Placement

__all__ = ["MARKER", "ModelRepository", "RayPlace", "entry_basis", "render", "writable_runtimes"]

MARKER = "modelium.json"
_CONFIG = "config.pbtxt"
_FORMAT = 1
_MINE = "Modelium did not write it and leaves it alone: rename it, or rename the model"


class ModelRepository:
    """The directory that Triton serves from. One Modelium writes it; other entries in it belong to somebody else."""

    def __init__(self, root: Path, *, path_mapping: Mapping[str, str] | None = None, ray: RayPlace | None = None) -> None:
        """``ray``: where entries of the ray runtime are to be deployed."""
        self._ray = ray
        self._root = _absolute(root)
        self._staging = Staging(self._root)
        self._mapping = {_absolute(Path(local)): seen for local, seen in (path_mapping or {}).items()}
        self._staging.sweep()

    def write(self, profile: ModelProfile, placement: Placement, *, override: ModelOverride | None = None) -> Path:
        """Write or replace the entry of ``profile``; afterwards Triton's next load reads it anew.

        One that says the same already is only dated anew, so that the bytecode beside its code stays.
        Raises ``EntryError`` when the name is taken by an entry of somebody else, when Triton would refuse the entry, and when
        the disk or the permissions don't allow it. Whatever was there before is then still there, whole.
        """
        entry = self._root / profile.name
        if not self.is_free(profile.name):
            raise EntryError(f"{entry} exists. {_MINE}")
        with _explaining(f"writing the entry {entry}"), self._staging.workspace(profile.name) as work:
            made = work / profile.name
            made.mkdir()
            self._fill(made, profile, placement, override)
            # Triton reloads only what is strictly newer than what it read before, and clocks are set back sometimes.
            now = time.time_ns()
            newer = max(now, newest_mtime_ns(entry) + 1_000_000) if entry.is_dir() else now
            if _says_the_same(made, entry):
                flush(made / _CONFIG)
                (made / _CONFIG).replace(entry / _CONFIG)  # its comment may tell another reason
                _set_mtime(entry, newer)
                return entry
            flush(made)
            _set_mtime(made, newer)
            put(made, entry)
        return entry

    def remove(self, name: str) -> bool:
        """Remove our entry of that name; False when there is none. Unload first: Triton forgets models whose entry is gone."""
        if not self.owns(name):
            return False
        with _explaining(f"removing the entry {self._root / name}"), self._staging.workspace(name) as work:
            (self._root / name).rename(work / name)
        return True

    def touch(self, name: str) -> None:
        """Make our entry newer, so that Triton's next load is a real one (it doesn't see changes in the model's own folder)."""
        if not self.owns(name):
            raise EntryError(f"{self._root / name} is not an entry of Modelium's")
        entry = self._root / name
        with _explaining(f"touching the entry {entry}"):
            _set_mtime(entry, max(time.time_ns(), newest_mtime_ns(entry) + 1_000_000))

    def owned(self) -> dict[str, str]:
        """Every entry of ours: name → fingerprint of the revision that it serves."""
        try:
            with os.scandir(self._root) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return {}
        marks = ((name, _read_mark(self._root / name)) for name in names)
        return {name: fingerprint for name, fingerprint in marks if fingerprint is not None}

    def owns(self, name: str) -> bool:
        """Whether the entry of that name is there and ours."""
        check_name(name)
        return _read_mark(self._root / name) is not None

    def is_free(self, name: str) -> bool:
        """Whether ``name`` may be written: nothing is there, or an entry of ours."""
        return self.owns(name) or not os.path.lexists(self._root / name)

    def close(self) -> None:
        """Remove the empty workshop beside the repository."""
        self._staging.close()

    def _fill(self, made: Path, profile: ModelProfile, placement: Placement, override: ModelOverride | None) -> None:
        template = templates_directory() / placement.runtime.value
        if not (template / "config.pbtxt").is_file():
            raise EntryError(f"{profile.name}: there is no template for the {placement.runtime} runtime in {template.parent}")
        source = _absolute(profile.path)
        if profile.onnx is not None and profile.onnx.file:
            source = source / profile.onnx.file
        order = Order(
            profile=profile,
            placement=placement,
            source=source,
            seen_by_triton=self._seen_by_triton,
            override=override or ModelOverride(),
            ray=self._ray or RayPlace(),
        )
        config = build_config(order, (template / "config.pbtxt").read_text(encoding="utf-8"))
        what = f"{profile.name} ({profile.task}, {profile.architecture})"
        text = config_text(config, source=str(profile.path), what=what, placement=placement)
        if parse_config(text) != config:
            raise EntryError(
                f"{profile.name}: the written config.pbtxt does not say what was meant; this is a defect of Modelium's"
            )

        copy_tree(template, made)
        version = made / "1"
        version.mkdir(exist_ok=True)
        WRITERS[placement.runtime].fill(order, version)
        write_file(made / "config.pbtxt", text.encode())
        write_file(made / MARKER, _mark(profile, placement, order.model_path))

    def _seen_by_triton(self, path: Path) -> str:
        """``path`` under the longest prefix of the path mapping; as it is when there is none."""
        path = _absolute(path)
        prefixes = [local for local in self._mapping if path.is_relative_to(local)]
        if not prefixes:
            return str(path)
        longest = max(prefixes, key=lambda local: len(local.parts))
        return str(PurePosixPath(self._mapping[longest]) / path.relative_to(longest).as_posix())


def writable_runtimes() -> frozenset[str]:
    """The runtimes that there is a template for: a model is planned for no other."""
    return frozenset(path.parent.name for path in templates_directory().glob("*/config.pbtxt"))


def render(
    profile: ModelProfile,
    placement: Placement,
    destination: Path,
    *,
    path_mapping: Mapping[str, str] | None = None,
    override: ModelOverride | None = None,
    ray: RayPlace | None = None,
) -> Path:
    """Write one entry as ``destination/NAME`` with no server in sight, and return its path (``modelium render``)."""
    repository = ModelRepository(destination, path_mapping=path_mapping, ray=ray)
    try:
        return repository.write(profile, placement, override=override)
    finally:
        repository.close()


def entry_basis(placement: Placement) -> Placement:
    """The part of ``placement`` that an entry is written from: when this is the same, the entry need not be written again.

    Reasons and sums change with what else is on a device; of an engine its arguments, devices and adapters count.
    """
    engine = placement.engine
    if engine is not None:
        engine = EnginePlan(
            engine_args=engine.engine_args,
            devices=engine.devices,
            gpus=engine.gpus,
            adapters=engine.adapters,
            max_model_len=0,
            max_num_seqs=0,
            weight_bytes=0,
            kv_bytes=0,
            kv_bytes_per_token=0,
            kv_tokens=0,
            activation_bytes=0,
            graph_bytes=0,
            overhead_bytes=0,
        )
    return replace(placement, reason="", footprint=Footprint(estimated_bytes=0), engine=engine)


def _absolute(path: Path) -> Path:
    """Absolute and without "..", but with its links: a path mapping speaks of the names that the user sees."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute() keeps "..", Path.resolve() follows links


def _mark(profile: ModelProfile, placement: Placement, model_path: str) -> bytes:
    mark = {
        "modelium_entry": _FORMAT,
        "name": profile.name,
        "fingerprint": profile.fingerprint,
        "model_path": model_path,
        "runtime": placement.runtime.value,
        "device": placement.device_id,
    }
    return (json.dumps(mark, indent=2) + "\n").encode()


def _read_mark(entry: Path) -> str | None:
    """The fingerprint in the marker of ``entry``, None when it isn't ours (nor are links and renamed copies)."""
    if entry.is_symlink():
        return None
    try:
        mark = json.loads((entry / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(mark, dict) or mark.get("modelium_entry") != _FORMAT or mark.get("name") != entry.name:
        return None
    return str(mark.get("fingerprint", ""))


def _says_the_same(made: Path, entry: Path) -> bool:
    texts = ((place / _CONFIG).read_text(encoding="utf-8") for place in (made, entry))
    if not is_same(made, entry, but=_CONFIG):
        return False
    made_text, text = (re.sub("(?m)^#.*$", "", each) for each in texts)
    return made_text == text


def _set_mtime(entry: Path, mtime_ns: int) -> None:
    """Date the version directory: a config.pbtxt that is newer but says the same makes Triton change nothing (measured)."""
    os.utime(entry / "1", ns=(mtime_ns, mtime_ns))


@contextlib.contextmanager
def _explaining(what: str) -> Iterator[None]:
    """Turn an ``OSError`` into the sentence for the user: what failed, why, and what to do."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                advice = "free space on that disk, or set triton.model_repository to another one"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                advice = "give this user the right to write there, or set triton.model_repository to a directory of its own"
            case _:
                advice = "mend the cause, or set triton.model_repository to another directory"
        raise EntryError(f"{what} failed: {error.strerror or error}; {advice}") from error
