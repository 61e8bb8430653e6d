"""Google ADK's DatabaseSessionService: a session's events, all of them or the newest of a fixed number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.adk.events import Event
from google.adk.sessions import DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai.types import Content, Part

from benchmarks.peers.interface import Peer, newest_that_fit
from benchmarks.support.copying import CopiedTable, later
from benchmarks.support.databases import Database
from benchmarks.support.texts import Message

APP = "benchmarks"
USER = "user"
LIMITS = {4_000: 50, 128_000: 2_000}


def event(message: Message) -> Event:
    role = "user" if message["role"] == "user" else "model"
    content = Content(role=role, parts=[Part(text=message["content"])])
    return Event(author=message["role"], invocation_id="benchmarks", content=content)


def tokens(event: Event) -> int:
    return len(event.content.parts[0].text) // 4


class GoogleADKAll(Peer):
    name = "Google ADK DatabaseSessionService, all events"
    storage = "google-adk"
    asynchronous = True
    packages = ("google-adk",)
    does = "`get_session()` (aiosqlite, asyncpg), then trimmed from the newest back in Python"

    async def open(self, database: Database) -> None:
        self._service = DatabaseSessionService(database.url_for("sqlite+aiosqlite", "postgresql+asyncpg"))
        await self._service.prepare_tables()
        self._sessions: dict[str, Any] = {}

    async def close(self) -> None:
        await self._service.close()

    async def append(self, conversation_id: str, messages: Sequence[Message]) -> None:
        session = self._sessions.get(conversation_id) or await self._session(conversation_id)
        for message in messages:
            await self._service.append_event(session, event(message))

    async def window(self, conversation_id: str, token_limit: int) -> list[Any]:
        recent = LIMITS[token_limit] if self.limited else None
        session = await self._service.get_session(
            app_name=APP,
            user_id=USER,
            session_id=conversation_id,
            config=GetSessionConfig(num_recent_events=recent),
        )
        assert session is not None
        return session.events if self.limited else newest_that_fit(session.events, token_limit, tokens)

    async def prepare(self, conversation_id: str, token_limit: int) -> None:  # noqa: ARG002
        await self._session(conversation_id)

    async def _session(self, conversation_id: str) -> Any:
        """The session object that appends need, kept: loading it for each would cost more."""
        keys = {"app_name": APP, "user_id": USER, "session_id": conversation_id}
        recent = GetSessionConfig(num_recent_events=1)
        session = await self._service.get_session(**keys, config=recent)
        self._sessions[conversation_id] = session or await self._service.create_session(**keys)
        return self._sessions[conversation_id]

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:
        keys = {"app_name": "t.app_name", "user_id": "t.user_id"}
        times = {"create_time": "t.create_time", "update_time": "t.update_time"}
        sessions = CopiedTable(
            "sessions", "id", "id", keys | {"id": "'{id}'", "state": "t.state"} | times, once=True
        )
        columns = {
            "id": "substr('{id}', 1, 26) || substr('0000000000' || n, -10)"
            if engine == "sqlite"
            else "substr('{id}', 1, 26) || lpad(CAST(n AS text), 10, '0')",
            "session_id": "'{id}'",
            "invocation_id": "t.invocation_id",
            "timestamp": later(engine) + (" || '.000000'" if engine == "sqlite" else ""),
            "event_data": "t.event_data",
        }
        return sessions, CopiedTable("events", "session_id", "timestamp, id", keys | columns)


class GoogleADKRecent(GoogleADKAll):
    name = "Google ADK DatabaseSessionService, 50 recent events"
    storage = (
        "google-adk-recent"  # not shared: an append refuses a session that another object has appended to
    )
    does = "`get_session(num_recent_events=50)`: no budget (2,000 events for 128,000 tokens)"
    limited = True
