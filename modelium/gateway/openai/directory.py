"""Who answers to a name: a name from a request enters, a model with its profile leaves; and the list of all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.brain.words import context_in_words
from modelium.errors import UnknownModel
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.counting import MODEL
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.template_files import ChatFormat, read_chat_format
from modelium.names import printable
from modelium.pace import in_pieces
from modelium.values import ModelProfile, ModelStatus, Target
from modelium.values.tasks import TaskRow

if TYPE_CHECKING:
    from modelium.controller import Controller

log = logging.getLogger(__name__)

_KEPT_FORMATS = 256

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model that a request named. ``name`` is the model's own, ``adapter`` the LoRA adapter's or ""."""

    name: str
    adapter: str
    profile: ModelProfile

    @property
    def fingerprint(self) -> str:
        """Of the model's folder."""
        return self.profile.fingerprint


@dataclass(slots=True)
class Directory:
    """Looks models up for ``/v1``; keeps what their folders say about chats, per revision."""

    controller: Controller
    tool_parsers: Mapping[str, str]  # of modelium.yaml, by model
    _formats: dict[tuple[str, str], ChatFormat] = field(default_factory=dict)

    async def find(self, request: web.Request, name: str, deadline: Deadline) -> Served:
        """Raises ``UnknownModel``; waits for the first scan, and for the load of a model that nobody has looked into yet.

        From then on ``request`` is one of that model: errors say when to come back.
        """
        target, status = await self._look_up(name, deadline)
        request[MODEL] = target.model
        profile = status.profile
        if profile is None:
            with await self.controller.lease(target.model, timeout_s=deadline.remaining_s()) as lease:
                profile = lease.profile
        return Served(name=target.model, adapter=target.adapter, profile=profile)

    async def _look_up(self, name: str, deadline: Deadline) -> tuple[Target, ModelStatus]:
        target = await self.controller.known_target(name, timeout_s=deadline.remaining_s())
        return target, self.controller.status(target.model)

    async def chat_format(self, profile: ModelProfile) -> ChatFormat:
        """Read once a revision, in a thread: the disk may be slow."""
        key = (profile.name, profile.fingerprint)
        found = self._formats.get(key)
        if found is None:
            own = profile.language.chat_templates if profile.language is not None else None
            found = await asyncio.to_thread(read_chat_format, profile.path, own)
            while len(self._formats) >= _KEPT_FORMATS:
                del self._formats[next(iter(self._formats))]
            self._formats[key] = found
        return found

    # -- lists ---------------------------------------------------------------------------------------------------------

    async def list_all(self) -> list[Json]:
        """Every model that can be served, and each of its adapters; first what chats, then what embeds, then the rest: clients
        that are told no name take the first one."""
        statuses = await self.servable()
        statuses.sort(key=lambda status: _rank(capabilities_of(status)))
        made = await asyncio.to_thread(lambda: [_created(status) for status in statuses])
        pairs = in_pieces(zip(statuses, made, strict=True))
        return [view async for status, created in pairs for view in _shown(status, created)]

    async def servable(self) -> list[ModelStatus]:
        """Every model that can be served."""
        return [status for status in (await self.controller.snapshot()).models if _servable(status)]

    async def show(self, name: str, deadline: Deadline) -> Json:
        """One model in OpenAI's words. Raises ``UnknownModel``."""
        target, status = await self._look_up(name, deadline)
        if not _servable(status):
            raise UnknownModel(f"{name!r} cannot be served: {status.reason}")
        created = await asyncio.to_thread(_created, status)
        wanted = f"{target.model}:{target.adapter}" if target.adapter else target.model
        return next((view for view in _views(status, created) if view["id"] == wanted), _view(status, wanted, created))


def require(served: Served, does: Callable[[TaskRow], bool], asked: str) -> None:
    """Raises ``BadRequest`` with what the model does instead."""
    task = served.profile.task
    row = task.row
    if does(row) and served.profile.onnx is None:
        return
    instead = "POST /v1/embeddings or " if row.embeds_texts else "POST /v1/chat/completions or " if row.generates else ""
    raise BadRequest(
        f"model: {served.name!r} does not do {asked}; it does {task.value}: ask {instead}POST /predict/{served.name}",
        param="model",
        code="unsupported_model",
    )


def _servable(status: ModelStatus) -> bool:
    return status.profile is not None and status.state.is_listed


def _shown(status: ModelStatus, created: int) -> list[Json]:
    """One model that cannot be shown is left out: the others are listed all the same."""
    try:
        return _views(status, created)
    except Exception:
        log.exception("%s cannot be shown, a defect of Modelium", status.name)
        return []


def _views(status: ModelStatus, created: int) -> list[Json]:
    language = status.profile.language if status.profile is not None else None
    adapters = language.adapters if language is not None else ()
    names = [status.name, *(f"{status.name}:{adapter.name}" for adapter in adapters)]
    return [_view(status, name, created) for name in names]


def capabilities_of(status: ModelStatus) -> list[str]:
    """What it is for, in the words of the routes."""
    profile = status.profile
    if profile is None or profile.onnx is not None or profile.app is not None:
        return []
    row, language = profile.task.row, profile.language
    found = []
    if row.generates:
        found += ["chat"] if language is not None and (language.chat_template or language.chat_templates) else []
        found.append("completion")
    if row.embeds_texts:
        found.append("embedding")
    if row.takes_images or (language is not None and "image" in language.modalities):
        found.append("vision")
    return found


def _rank(capabilities: list[str]) -> int:
    order = ("chat", "completion", "embedding")
    return next((place for place, word in enumerate(order) if word in capabilities), len(order))


def _view(status: ModelStatus, name: str, created: int) -> Json:
    """OpenAI's four fields, and what other clients skip. ``root`` and ``parent`` are vLLM's words for adapters. ``context``:
    that ``max_model_len`` is less than the model's own, and why."""
    profile, placement = status.profile, status.placement
    assert profile is not None
    engine = placement.engine if placement is not None else None
    owner, slash, _ = status.label.partition("/")
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": printable(owner) if slash else "modelium",
        "root": printable(status.label),
        "parent": status.name if name != status.name else None,
        "max_model_len": engine.max_model_len if engine is not None else profile.max_length,
        "context": context_in_words(engine) or None,
        "task": profile.task.value,
        "capabilities": capabilities_of(status),
        "state": status.state.value,
        "runtime": placement.runtime.value if placement is not None else None,
    }


def _created(status: ModelStatus) -> int:
    try:
        return int(status.path.stat().st_mtime)
    except OSError:
        return int(time.time())
