"""Random conversations with every kind of server: none is blocked, and what is stored is what was said."""

import asyncio
import json
import os
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.in_process_client import client_of
from tests.support.profile_player import ProfilePlayer, apis_of
from tests.support.stores import Stores
from tokenmem.testing import PROFILES, Answer, ModelServer
from tokenmem.testing.replies import Request

CONVERSATIONS = int(os.environ.get("TOKENMEM_TEST_PROFILE_CONVERSATIONS", "100"))  # in each of two variants
RESULTS = os.environ.get("TOKENMEM_TEST_PROFILE_RESULTS")  # where scripts/servers reads what they came to
TABLE = [(name, api) for name, profile in PROFILES.items() for api in apis_of(profile)]
_HEADER = "x-conversation"


@pytest.mark.timeout(120 + CONVERSATIONS * 2)
@pytest.mark.parametrize(("name", "api"), TABLE)
def test_random_conversations(stores: Stores, name: str, api: str) -> None:
    opened: Any = stores.open()
    profile = PROFILES[name]
    players: dict[str, ProfilePlayer] = {}

    def script(request: Request) -> Answer:
        return players[request.headers[_HEADER]].answer(request)

    with ModelServer(script, profile=profile) as server:
        kind: Any = openai.AsyncOpenAI if stores.is_async else openai.OpenAI
        client = kind(base_url=server.base_url, api_key="test", max_retries=0, timeout=60)
        store = opened.store if stores.is_async else opened
        for number in range(CONVERSATIONS):
            header = {_HEADER: str(number)}
            own = client.with_options(default_headers=header)
            if number % 10:  # the others by the real client, over a connection
                own = client_of(server, header, is_async=stores.is_async)
            seed = f"{name}/{api}/{number}"
            players[str(number)] = ProfilePlayer(store, own, profile, seed, api, is_async=stores.is_async)
        failures = _played(stores, list(players.values()))
        _tell(stores, name, api, list(players.values()))
        closing = client.close()
        if stores.is_async:
            stores.loop.run(closing)
        assert not failures, f"{len(failures)} failed:\n" + "\n\n".join(failures[:3])
        assert server.problems == []
    assert opened.verify() == []


def _tell(stores: Stores, name: str, api: str, players: Sequence[ProfilePlayer]) -> None:
    """What they came to, for docs/servers.md."""
    if RESULTS is not None:
        seen = sum((player.seen for player in players), Counter())
        file = Path(RESULTS) / f"{stores.variant}-{api}-{name}.json".replace(" ", "_")
        file.write_text(json.dumps({"profile": name, "seen": seen}))


def _played(stores: Stores, players: Sequence[ProfilePlayer]) -> list[str]:
    """What went wrong in which conversation, after which steps."""

    async def play(player: ProfilePlayer) -> str | None:
        try:
            await player.play()
        except Exception:
            return "\n".join([player.id, traceback.format_exc(limit=-3), *player.steps])
        return None

    async def play_all() -> list[str | None]:
        places = asyncio.Semaphore(8)

        async def one(player: ProfilePlayer) -> str | None:
            async with places:
                return await play(player)

        return list(await asyncio.gather(*map(one, players)))

    if stores.is_async:
        results = stores.loop.run(play_all())
    else:
        results = [asyncio.run(play(player)) for player in players]
    return [each for each in results if each is not None]
