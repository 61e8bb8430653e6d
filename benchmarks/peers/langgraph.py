"""LangGraph's checkpointers: every step stores the whole state, so the state is what is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from benchmarks.peers.interface import Peer
from benchmarks.peers.langchain import langchain_messages, trimmed
from benchmarks.support.copying import CopiedTable
from benchmarks.support.databases import Database
from benchmarks.support.texts import Message


class LangGraphSaver(Peer):
    """A graph of one node with MessagesState; an append is `update_state`, a load is `get_state`."""

    name = "LangGraph PostgresSaver / SqliteSaver"
    storage = "langgraph"
    packages = ("langgraph", "langgraph-checkpoint-postgres", "langgraph-checkpoint-sqlite")
    does = "`graph.get_state()` of a graph with `MessagesState`, then `trim_messages` as above"

    async def open(self, database: Database) -> None:
        self._stack = ExitStack()
        if database.engine == "postgresql":
            saver: Any = self._stack.enter_context(PostgresSaver.from_conn_string(database.address))
        else:
            saver = self._stack.enter_context(SqliteSaver.from_conn_string(database.address))
        saver.setup()
        builder = StateGraph(MessagesState)
        builder.add_node("model", lambda _state: {"messages": []})
        builder.add_edge(START, "model")
        builder.add_edge("model", END)
        self._graph = builder.compile(checkpointer=saver)

    async def close(self) -> None:
        self._stack.close()

    def append(self, conversation_id: str, messages: Sequence[Message]) -> None:
        values = {"messages": langchain_messages(messages)}
        self._graph.update_state(_configuration(conversation_id), values, as_node="model")

    def window(self, conversation_id: str, token_limit: int) -> list[BaseMessage]:
        state = self._graph.get_state(_configuration(conversation_id))
        return trimmed(state.values["messages"], token_limit)

    async def write(self, conversation_id: str, messages: Sequence[Message]) -> None:
        """In one step, so that one checkpoint holds it; a real conversation has one for each turn."""
        self.append(conversation_id, messages)

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:  # noqa: ARG002
        return ()  # one value holds all of a conversation's messages: only the library can make it


def _configuration(conversation_id: str) -> Any:
    return {"configurable": {"thread_id": conversation_id}}
