"""A user's mistakes: each line that is marked is an error, and no other."""

from openai import AsyncOpenAI, OpenAI
from sqlalchemy import Engine

from tokenmem import AsyncChat, AsyncStore, Chat, Message, Store
from tokenmem import Massage  # error
from tokenmem import ToolCal  # error
from tokenmem.chat import Answer, ModelAPI, Usage
import tokenmem


class Incomplete(ModelAPI):
    """Says nothing about how replies are read."""


def mistakes(store: Store, async_store: AsyncStore) -> None:
    print(tokenmem.Nonsense)  # error
    Chat(store, AsyncOpenAI())  # error
    Chat(store, OpenAI(), api="completions")  # error
    Chat(async_store, OpenAI())  # error
    Chat(store, 7)  # error
    Chat(store, OpenAI(), stride="quarter")  # error
    Chat(store, OpenAI()).send(7)  # error
    Chat(store, api=Incomplete())  # error
    Chat(store, api=object())  # error
    store.append("c", [Message.user("hi")], idempotency_kye="k")  # error
    store.window("c", token_limit="8000")  # error
    store.window("c", 8000, start_on="word")  # error
    store.purge(older_than=90)  # error
    usage: Usage = {"input_token": 1}  # error
    Answer.of_message({"content": "x"}, usage=usage, finish="stop")  # error


async def async_mistakes(store: Store, async_store: AsyncStore) -> None:
    AsyncChat(async_store, OpenAI())  # error
    AsyncChat(store, AsyncOpenAI())  # error
    with async_store.engine.begin() as connection:  # error
        print(connection)
    plain: Engine = async_store.engine  # error
    reply = await AsyncChat(async_store, AsyncOpenAI()).send("c", "Hello")
    print(plain, reply.txt)  # error
    appended = await async_store.append("c", ["hi"])  # error
    print(appended.first_positon)  # error
