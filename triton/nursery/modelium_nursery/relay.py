"""A model in Triton's stub that lives in a child of a nursery: Triton's requests enter, the child's answers leave.

The stub imports nothing heavy, so it starts in a tenth of a second. It and its child end together. Where there is no nursery,
the model is loaded right here, by the same code.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from . import client, folders, late, thresholds
from .errands import Errands
from .exchange import Exchange
from .hangs import HANGS_AFTER_S
from .orders import Birth

_FINALIZE_WITHIN_S = 10.0


class Relay:
    """What Triton calls; a model's file makes its ``TritonPythonModel`` of it.

    ``kind``: which nursery. ``file``, ``package``: the model's ``__file__`` and ``__package__``; beside it are ``instance.py``,
    which has the real ``TritonPythonModel``, and ``warm.py``, which imports what all of the kind need.
    """

    kind: str
    file: str
    package: str | None
    finalize_within_s = _FINALIZE_WITHIN_S

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._child: client.Child | None = None
        if _parameter(config, "nursery") != "false":
            imports = str(Path(self.file).with_name("warm.py"))
            self._child = client.bear(self.kind, imports, lambda: self._order(args, config), pb_utils.Logger.log_warn)
        if self._child is None:
            self._local: Any = self._import().TritonPythonModel()
            self._local.initialize(args)
            if hasattr(self._local, "rehearse"):
                self._local.rehearse()
            return
        self._decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        self._exchange = Exchange(self._child, float(_parameter(config, "hang_seconds") or HANGS_AFTER_S))
        thresholds.keep_what_is_freed()
        threading.Thread(target=Errands(self._child.services).serve, name="services", daemon=True).start()
        tensors_come = late.come_soon()
        try:
            self._exchange.ask({"initialize": args}, "initialized")
            tensors_come.join()
        except BaseException:
            self._child.let_go()
            self._child.end()
            raise
        if self._decoupled:
            self._exchange.listen()

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        if self._child is None:
            answers: list[Any] | None = self._local.execute(requests)
            return answers
        if not self._decoupled:
            return self._exchange.answer(requests)
        self._exchange.take_over(requests)
        return None

    def finalize(self) -> None:
        if self._child is None:
            self._local.finalize()
            return
        self._child.let_go()
        try:
            self._exchange.finalize(self.finalize_within_s)
        finally:
            self._child.end()

    @classmethod
    def _import(cls) -> Any:
        """The real model's module, in this process."""
        late.come_now()
        return importlib.import_module(f"{cls.package}.instance" if cls.package else "instance")

    def _order(self, args: dict[str, str], config: dict[str, Any]) -> Birth:
        return Birth(
            name=args["model_name"],
            directory=str(Path(self.file).resolve().parent),
            module="instance",
            model_dir=pb_utils.get_model_dir(),
            working_directory=str(Path.cwd()),
            environment=dict(os.environ),
            weights=_shareable(config) if args["model_instance_kind"] == "CPU" else [],
        )


def _parameter(config: dict[str, Any], name: str) -> str:
    return str(config.get("parameters", {}).get(name, {}).get("string_value", ""))


def _shareable(config: dict[str, Any]) -> list[str]:
    """The files of weights that a child may share with others: none where the model brings code of its own."""
    if _parameter(config, "weights") != "safetensors" or _parameter(config, "custom_code") == "true":
        return []
    try:
        return [str(path) for path in folders.files_of(Path(_parameter(config, "model_path")))]
    except (OSError, ValueError):  # a name that this interpreter cannot write, or an index that is none
        return []
