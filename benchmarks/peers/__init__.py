"""How does tokenmem compare with other libraries? Each of them is in a file of its own, which imports it."""

from __future__ import annotations

from importlib import import_module

from benchmarks.peers.interface import Peer

_WHERE = {
    "tokenmem": ("TokenmemStore", "TokenmemAsyncStore"),
    "langchain": ("LangChainSQL", "LangChainPostgres"),
    "openai_agents": (
        "SQLiteSessionAll",
        "SQLiteSessionLimited",
        "SQLAlchemySessionAll",
        "SQLAlchemySessionLimited",
    ),
    "llama_index": ("LlamaIndexMemory",),
    "google_adk": ("GoogleADKAll", "GoogleADKRecent"),
    "langgraph": ("LangGraphSaver",),
}
OURS = _WHERE["tokenmem"]
KEYS = tuple(name for names in _WHERE.values() for name in names)


def peer_class(key: str) -> type[Peer]:
    """The class of this name."""
    module = next(module for module, names in _WHERE.items() if key in names)
    found: type[Peer] = getattr(import_module(f"benchmarks.peers.{module}"), key)
    return found


def peers_of(engine: str, chosen: list[str]) -> dict[str, Peer]:
    """The ways to measure on one engine, tokenmem's two always among them."""
    keys = [key for key in KEYS if key in OURS or not chosen or key in chosen]
    classes = {key: peer_class(key) for key in keys}
    return {key: kind() for key, kind in classes.items() if engine in kind.engines}
