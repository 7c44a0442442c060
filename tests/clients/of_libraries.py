"""Libraries above OpenAI's API, in an environment of their own (``tests/clients/requirements.txt``)."""

from __future__ import annotations

from typing import Any

from tests.clients.asked import CHAT, EMBEDS, PATIENCE_S, RANKS, At, asks
from tests.clients.of_openai import FRANCE, paris

_FRANCE = FRANCE[0]["content"]
_JSON_QUESTION = "Tell me about Paris as JSON."


@asks(CHAT, "litellm completion")
def litellm_chat(at: At) -> str:
    import litellm

    more: Any = {"api_base": at.openai, "api_key": "none", "timeout": PATIENCE_S}
    answer: Any = litellm.completion(f"openai/{at.model}", messages=FRANCE, temperature=0, max_tokens=40, **more)
    return paris(answer.choices[0].message.content)


@asks(CHAT, "litellm completion, streamed (async)")
async def litellm_streamed(at: At) -> str:
    import litellm

    more: Any = {"api_base": at.openai, "api_key": "none", "timeout": PATIENCE_S, "stream": True}
    chunks: Any = await litellm.acompletion(f"hosted_vllm/{at.model}", messages=FRANCE, temperature=0, max_tokens=40, **more)
    return paris("".join([chunk.choices[0].delta.content or "" async for chunk in chunks]))


@asks(EMBEDS, "litellm embedding")
def litellm_embedding(at: At) -> str:
    import litellm

    answer: Any = litellm.embedding(
        f"openai/{at.model}", input=["a cat"], api_base=at.openai, api_key="none", timeout=int(PATIENCE_S)
    )
    return f"{len(answer.data[0]['embedding'])} numbers"


@asks(CHAT, "langchain-openai ChatOpenAI")
def langchain_chat(at: At) -> str:
    return paris(_langchain(at).invoke(_FRANCE).text)


@asks(CHAT, "langchain-openai ChatOpenAI, streamed")
def langchain_streamed(at: At) -> str:
    return paris("".join(chunk.text for chunk in _langchain(at).stream(_FRANCE)))


@asks(CHAT, "langchain-openai with_structured_output")
def langchain_structured(at: At) -> str:
    return str(_langchain(at).with_structured_output(_city()).invoke(_JSON_QUESTION))


def _langchain(at: At) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=at.model, base_url=at.openai, api_key="none", temperature=0, max_tokens=60, timeout=PATIENCE_S)


@asks(EMBEDS, "langchain-openai OpenAIEmbeddings")
def langchain_embeddings(at: At) -> str:
    from langchain_openai import OpenAIEmbeddings

    # It counts tokens with OpenAI's own vocabulary, which it would download, unless it is told not to.
    made: Any = OpenAIEmbeddings(model=at.model, base_url=at.openai, api_key="none", check_embedding_ctx_length=False)
    return f"{len(made.embed_query('a cat'))} numbers"


@asks(CHAT, "langchain-huggingface HuggingFaceEndpoint")
def langchain_huggingface(at: At) -> str:
    from langchain_huggingface import HuggingFaceEndpoint

    made: Any = HuggingFaceEndpoint(
        endpoint_url=at.predict,
        task="text-generation",
        max_new_tokens=20,
        huggingfacehub_api_token="none",
        timeout=int(PATIENCE_S),
    )
    return str(made.invoke("The old lighthouse"))


@asks(CHAT, "llama-index OpenAILike")
def llama_index_chat(at: At) -> str:
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    made: Any = OpenAILike(
        model=at.model, api_base=at.openai, api_key="none", is_chat_model=True, temperature=0, max_tokens=40, timeout=PATIENCE_S
    )
    return paris(str(made.chat([ChatMessage(role="user", content=_FRANCE)]).message.content))


@asks(EMBEDS, "llama-index OpenAILikeEmbedding")
def llama_index_embedding(at: At) -> str:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    made: Any = OpenAILikeEmbedding(model_name=at.model, api_base=at.openai, api_key="none", timeout=PATIENCE_S)
    return f"{len(made.get_text_embedding('a cat'))} numbers"


def _city() -> Any:
    from pydantic import BaseModel, Field

    class City(BaseModel):
        """What an answer is made of."""

        city: str = Field(max_length=20)
        capital: bool

    return City


@asks(CHAT, "instructor, JSON schema")
def instructor_schema(at: At) -> str:
    import instructor

    return _instructed(at, instructor.Mode.JSON_SCHEMA)


@asks(CHAT, "instructor, tools")
def instructor_tools(at: At) -> str:
    import instructor

    return _instructed(at, instructor.Mode.TOOLS)


def _instructed(at: At, mode: Any) -> str:
    import instructor
    import openai

    client: Any = instructor.from_openai(openai.OpenAI(base_url=at.openai, api_key="none", timeout=PATIENCE_S), mode=mode)
    asked: Any = [{"role": "user", "content": _JSON_QUESTION}]
    city = client.chat.completions.create(
        model=at.model, response_model=_city(), messages=asked, temperature=0, max_tokens=80, max_retries=0
    )
    return str(city)


@asks(CHAT, "pydantic-ai Agent")
def pydantic_ai_agent(at: At) -> str:
    return paris(_agent(at).run_sync(_FRANCE).output)


@asks(CHAT, "pydantic-ai Agent with an output type (async)")
async def pydantic_ai_typed(at: At) -> str:
    from pydantic_ai import NativeOutput

    return str((await _agent(at, output_type=NativeOutput(_city())).run(_JSON_QUESTION)).output)


def _agent(at: At, **more: Any) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(at.model, provider=OpenAIProvider(base_url=at.openai, api_key="none"))
    return Agent(model, model_settings={"temperature": 0, "max_tokens": 80, "timeout": PATIENCE_S}, **more)


@asks(CHAT, "dspy LM")
def dspy_lm(at: At) -> str:
    return paris(_dspy(at)(_FRANCE)[0])


@asks(CHAT, "dspy LM with a JSON schema")
def dspy_schema(at: At) -> str:
    form = {"type": "json_schema", "json_schema": {"name": "City", "schema": _city().model_json_schema()}}
    return str(_city().model_validate_json(_dspy(at)(_JSON_QUESTION, response_format=form)[0]))


def _dspy(at: At) -> Any:
    import dspy

    more: Any = {"api_base": at.openai, "api_key": "none", "timeout": PATIENCE_S}
    return dspy.LM(f"openai/{at.model}", temperature=0, max_tokens=60, cache=False, **more)


@asks(RANKS, "cohere ClientV2 rerank")
def cohere_rerank(at: At) -> str:
    import cohere

    client = cohere.ClientV2(api_key="none", base_url=at.http, timeout=PATIENCE_S)
    answer = client.rerank(model=at.model, query="film", documents=["The film was great", "It rained"], top_n=1)
    return f"first: {answer.results[0].index}"
