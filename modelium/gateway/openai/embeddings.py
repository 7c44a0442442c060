"""``POST /v1/embeddings``: texts enter, their vectors leave."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from modelium.gateway.asking import Asking, Waited
from modelium.gateway.codecs import Tensors, encode_texts
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import json_response, waited_headers
from modelium.gateway.http.deadline import deadline_of
from modelium.gateway.http.describing import ASKING, describes
from modelium.gateway.openai import shapes
from modelium.gateway.openai.completion import prompts_of
from modelium.gateway.openai.directory import Directory, Served, require
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.reading import read_request
from modelium.gateway.openai.requests import EmbeddingRequest
from modelium.gateway.openai.tokenizing import Tokenizing

if TYPE_CHECKING:
    from modelium.controller import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The vectors of a request, in whatever words it is answered; ``tokens``: how many were read."""

    vectors: NDArray[np.float32]
    tokens: int
    waited: Waited


class Embeddings:
    """The handler."""

    def __init__(self, directory: Directory, asking: Asking, tokenizing: Tokenizing, *, timeout_s: float) -> None:
        self._directory = directory
        self._asking = asking
        self._tokenizing = tokenizing
        self._timeout_s = timeout_s

    @describes(
        "The vectors of texts.",
        takes=EmbeddingRequest,
        gives=shapes.Embeddings,
        fails=ASKING,
        example={"model": "NAME", "input": ["A cat sits on the mat."]},
    )
    async def answer(self, request: web.Request) -> web.Response:
        """``POST /v1/embeddings``. Raises ``BadRequest`` and what asking a model raises."""
        deadline = deadline_of(request, self._timeout_s)
        asked = await read_request(EmbeddingRequest, request, deadline)
        embedded = await self.embed(request, asked, deadline)
        tokens, waited = embedded.tokens, embedded.waited
        return json_response(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": _written(vector, asked.encoding_format)}
                    for index, vector in enumerate(embedded.vectors)
                ],
                "model": asked.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            },
            headers=waited_headers(waited.seconds, cold=waited.cold),
        )

    async def embed(self, request: web.Request, asked: EmbeddingRequest, deadline: Deadline) -> Embedded:
        """The vectors that ``asked`` is about. Raises ``BadRequest`` and what asking a model raises."""
        served = await self._directory.find(request, asked.model, deadline)
        require(served, lambda row: row.embeds_texts, "embeddings")
        if isinstance(asked.input, list) and not isinstance(next(iter(asked.input), ""), str) and asked.encoding is None:
            raise BadRequest(
                "input: token ids of another tokenizer would spell other words here, and most clients send OpenAI's; send text "
                '(LangChain: check_embedding_ctx_length=False), or "encoding": "model" with ids of the model\'s own tokenizer',
                param="input",
                code="token_ids",
            )
        texts = await prompts_of(asked.input, served.profile, "input", self._tokenizing, deadline)
        if "" in texts:
            raise BadRequest("input: a text is empty", param="input", code="invalid_value")
        check_dimensions(served, asked.dimensions)

        async def ask(lease: Lease) -> Sequence[Tensors]:
            call = encode_texts(lease.profile.task, texts, {"prompt_name": asked.prompt_name, "prompt": asked.prompt})
            return await self._asking.infer(lease, call, deadline)

        answered = await self._asking.once(served.name, ask, deadline)
        vectors = np.concatenate([outputs["EMBEDDING"] for outputs in answered.answer]).astype(np.float32, copy=False)
        read = [f"{asked.prompt or ''}{text}" for text in texts]
        tokens = await self._tokenizing.count(served.profile, read, within_s=deadline.timeout_s - deadline.elapsed_s())
        if asked.dimensions is not None:
            vectors = shortened(vectors, asked.dimensions)
        return Embedded(vectors=vectors, tokens=tokens, waited=answered.waited)


def check_dimensions(served: Served, wanted: int | None) -> None:
    """Raises ``BadRequest`` for more than a vector has."""
    width = served.profile.embedding_width
    if wanted is not None and width is not None and wanted > width:
        raise BadRequest(f"dimensions: {served.name!r} has {width}, found {wanted}", param="dimensions")


def shortened(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """The first ``width`` numbers of each, at length 1 again: what models trained for it (Matryoshka) are cut like."""
    cut = vectors[:, :width]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    return np.ascontiguousarray(cut / np.where(lengths == 0, 1, lengths), dtype=np.float32)


def _written(vector: NDArray[Any], form: str) -> object:
    """The openai package asks for base64 unless it is told otherwise: little-endian float32."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode() if form == "base64" else vector
