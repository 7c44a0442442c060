"""Bodies made of the fields of each route's requests, at every depth, with values that do not belong there: what reads them
raises one of the errors that the documents name, and nothing else.
"""

from __future__ import annotations

import typing

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from modelium.errors import ModeliumError
from modelium.gateway.http.statuses import status_of
from modelium.gateway.neighbours.anthropic.requests import CountAsked, MessagesAsked
from modelium.gateway.neighbours.huggingface import EmbedAsked, PredictAsked, RerankAsked
from modelium.gateway.neighbours.ollama import requests as ollama
from modelium.gateway.neighbours.pooling import ClassifyRequest, PoolingRequest
from modelium.gateway.neighbours.responses.requests import ResponsesAsked
from modelium.gateway.neighbours.scoring import RerankRequest, ScoreRequest, pairs_of, texts_of
from modelium.gateway.neighbours.tokens import DetokenizeRequest, TokenizeRequest
from modelium.gateway.openai.messages import conversation_of
from modelium.gateway.openai.parsing import ALSO, parse
from modelium.gateway.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Generating, Request
from modelium.gateway.openai.sampling import max_tokens, sampling_of
from modelium.gateway.openai.tool_calls import choose_family
from modelium.gateway.openai.tool_choice import tool_use_of

from .openai_models import CHATML

KINDS: list[type[Request]] = [
    ChatRequest, CompletionRequest, EmbeddingRequest, TokenizeRequest, DetokenizeRequest, ScoreRequest, RerankRequest,
    ClassifyRequest, PoolingRequest, CountAsked, MessagesAsked, ResponsesAsked, ollama.ChatAsked, ollama.GenerateAsked,
    ollama.EmbedAsked, ollama.EmbeddingsAsked, ollama.ShowAsked, EmbedAsked, RerankAsked, PredictAsked,
]  # fmt: skip
WORDS = [
    "", "a", "user", "assistant", "system", "tool", "text", "function", "message", "reasoning", "tool_use", "tool_result",
    "function_call", "function_call_output", "image_url", "image", "thinking", "json_schema", "json", "none", "auto",
    "required", "enabled", "data:image/png;base64,AAAA", "data:,", "0", "\x00", "é\u2028",
]  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.sampled_from(WORDS), st.sampled_from([-1, 0, 1, 2, 20, 2**31, 2**63 - 1, -(2**63), 2**64 - 1]),
    st.sampled_from([-0.5, 0.5, 1.0, 1e308, -1e308, 5e-324]),
)  # fmt: skip
ODD = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)


def right(annotation: object, depth: int) -> st.SearchStrategy[object]:
    """Values of about the type that ``annotation`` says."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return right(parts[0], depth)
    if origin is typing.Literal:
        return st.sampled_from(parts)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return objects_of(annotation, depth + 1) if depth < 4 else st.just({})
    if origin is list:
        return st.lists(right(parts[0], depth), min_size=1, max_size=3)
    if origin is dict:
        return st.dictionaries(st.sampled_from(WORDS), right(parts[1], depth) if parts[1] in (str, float) else ODD, max_size=3)
    if parts:
        return st.one_of([right(part, depth) for part in parts])
    plain = {str: st.sampled_from(WORDS), int: st.integers(0, 20), float: st.floats(0.1, 1), bool: st.booleans()}
    return next((found for kind, found in plain.items() if kind is annotation), st.none())


@st.composite
def objects_of(draw: st.DrawFn, kind: type[BaseModel], depth: int = 0) -> dict[str, object]:
    """With what an object of ``kind`` must have and some of what it may have, nearly all of it right."""
    needed = [name for name, field in kind.model_fields.items() if field.is_required()]
    others = sorted(set(kind.model_fields) - set(needed))
    made: dict[str, object] = {}
    for name in needed + (draw(st.lists(st.sampled_from(others), max_size=5, unique=True)) if others else []):
        field = kind.model_fields[name]
        made[field.alias or name] = draw(ODD if draw(st.integers(0, 30)) == 30 else right(field.annotation, depth))
    return made


def bodies_of(kind: type[Request]) -> st.SearchStrategy[bytes]:
    more = st.dictionaries(st.sampled_from([*ALSO, "temprature", "mood", "best_of"]), ODD, max_size=1)
    return st.builds(lambda body, others: orjson.dumps(others | body | {"model": "m"}), objects_of(kind), more)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__.split('.')[-2]}-{kind.__name__}")
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_an_odd_body_is_read_or_refused(kind: type[Request], data: st.DataObject) -> None:
    body = data.draw(bodies_of(kind))
    try:
        use(parse(kind, body))
    except ModeliumError as error:
        assert 400 <= status_of(error) < 500
        assert str(error)
        assert len(str(error)) < 2000


def use(asked: Request) -> None:
    """All that is done with a request before a model is asked."""
    match asked:
        case ollama.ChatAsked() | ollama.GenerateAsked() | CountAsked() | ResponsesAsked():
            if isinstance(asked, ollama.GenerateAsked):
                use(asked.continues(100))
            if isinstance(asked, ResponsesAsked):
                orjson.dumps(asked.echoed())
            if isinstance(asked, ollama.Asked):
                assert len(asked.unheard) <= 21
            use(asked.asks())
        case Generating():
            sampling_of(asked, {})
            max_tokens(asked, 100)
            if isinstance(asked, ChatRequest):
                tool_use_of(asked, choose_family(CHATML, named=None))
                conversation_of(asked.messages, CHATML, takes_images=True)
        case ScoreRequest():
            pairs_of(asked)
        case RerankRequest():
            texts_of(asked.documents, "documents")
        case ollama.Asked():
            assert isinstance(asked.ends, bool)
        case _:
            pass
