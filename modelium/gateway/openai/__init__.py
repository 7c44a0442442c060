"""The OpenAI API: requests to ``/v1`` enter, answers that OpenAI's clients understand leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from modelium.gateway.asking import Asking
from modelium.gateway.http.answers import json_response
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import LOADING, NAMING, describes
from modelium.gateway.http.paths import called_name, model_of
from modelium.gateway.openai import shapes
from modelium.gateway.openai.chat import Chat
from modelium.gateway.openai.completion import Completion
from modelium.gateway.openai.directory import Directory
from modelium.gateway.openai.embeddings import Embeddings
from modelium.gateway.openai.reading import STRICT, name_ignored
from modelium.gateway.openai.template_renderer import Renderer
from modelium.gateway.openai.tokenizing import Tokenizing

if TYPE_CHECKING:
    from modelium.controller import Controller

__all__ = ["STRICT", "OpenAI", "name_ignored"]


class OpenAI:
    """The handlers of ``/v1``, and what the neighbours ask models with."""

    def __init__(
        self,
        controller: Controller,
        asking: Asking,
        *,
        tool_parsers: Mapping[str, str],
        timeout_s: float,
        own_vllm: bool,
    ) -> None:
        """``own_vllm``: the server's vLLM backend is Modelium's own."""
        self._controller = controller
        self.directory = Directory(controller=controller, tool_parsers=tool_parsers)
        self._renderer = Renderer()
        self.tokenizing = Tokenizing()
        self._timeout_s = timeout_s
        self.chat = Chat(self.directory, asking, self._renderer, timeout_s=timeout_s, own_vllm=own_vllm)
        self.completion = Completion(self.directory, asking, self.tokenizing, timeout_s=timeout_s, own_vllm=own_vllm)
        self.embeddings = Embeddings(self.directory, asking, self.tokenizing, timeout_s=timeout_s)

    def routes(self) -> list[web.RouteDef]:
        """All below ``/v1``."""
        return [
            web.post("/v1/chat/completions", self.chat.answer),
            web.post("/v1/completions", self.completion.answer),
            web.post("/v1/embeddings", self.embeddings.answer),
            web.get("/v1/models", self.list_models),
            web.post("/v1/models/{model:.+}/load", self.load),
            web.post("/v1/models/{model:.+}/unload", self.unload),
            web.get("/v1/models/{model:.+}", self.show_model),
        ]

    def routes_of_models(self) -> list[web.RouteDef]:
        """The same below a model's own address: clients that were given ``/predict/NAME`` put ``/v1/chat/completions`` behind
        it, and whatever they like into ``model``."""
        return [
            web.post("/predict/{model:.+}/v1/chat/completions", self.chat.answer),
            web.post("/predict/{model:.+}/v1/completions", self.completion.answer),
            web.post("/predict/{model:.+}/v1/embeddings", self.embeddings.answer),
            web.get("/predict/{model:.+}/v1/models", self.list_one),
        ]

    async def close(self, _app: web.Application) -> None:
        """For the application's ``on_cleanup``."""
        await self._renderer.close()
        await self.tokenizing.close()

    @describes("Every model and adapter that can be asked.", gives=shapes.Models)
    async def list_models(self, _request: web.Request) -> web.Response:
        """``GET /v1/models``."""
        return json_response({"object": "list", "data": await self.directory.list_all()})

    @describes("The model that the path names.", gives=shapes.Models, fails=NAMING)
    async def list_one(self, request: web.Request) -> web.Response:
        """``GET /predict/{model}/v1/models``. Raises ``UnknownModel``."""
        deadline = deadline_of(request, self._timeout_s)
        return json_response({"object": "list", "data": [await self.directory.show(called_name(request), deadline)]})

    @describes("One model or adapter.", gives=shapes.Model, fails=NAMING)
    async def show_model(self, request: web.Request) -> web.Response:
        """``GET /v1/models/{model}``. Raises ``UnknownModel``."""
        deadline = deadline_of(request, self._timeout_s)
        return json_response(await self.directory.show(request.match_info["model"], deadline))

    @describes("Load it now; answers when it is loaded.", gives=shapes.Model, fails=LOADING)
    async def load(self, request: web.Request) -> web.Response:
        """``POST /v1/models/{model}/load``, as Triton's own OpenAI server has it. Raises what ``Controller.load`` raises."""
        deadline = deadline_of(request, self._timeout_s)
        await self._controller.load(model_of(request), timeout_s=deadline.remaining_s())
        return json_response(await self.directory.show(request.match_info["model"], deadline))

    @describes("Unload it; answers when its memory is free.", gives=shapes.Unloaded, fails=LOADING)
    async def unload(self, request: web.Request) -> web.Response:
        """``POST /v1/models/{model}/unload``. Raises what ``Controller.unload`` raises."""
        deadline = deadline_of(request, self._timeout_s)
        status = await self._controller.unload(model_of(request), timeout_s=deadline.remaining_s())
        return json_response({"status": "success", "model": status.name})
