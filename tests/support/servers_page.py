"""`docs/servers.md`: the kinds of servers, from their profiles and what their conversations came to.

python -m tests.support.servers_page RESULTS_DIRECTORY
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tokenmem.testing import PROFILES, Profile

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"

# ruff: noqa: E501 -- lines of a page

HEAD = """# Servers

Servers that speak OpenAI's protocol differ in what they refuse and in how they answer. tokenmem makes every prompt for
the endpoint that gets it, and reads every answer as what it is; stored rows stay as the provider sent them
([how](chat.md#a-prompt-that-is-always-accepted)). The rules of OpenAI's and Azure's hosts are known beforehand. Others are
learned: where a refusal names what the server does not take, the request is sent again without that, at once, and so by
this chat from then on. `call.changes` says what was done to which message.

Each line is a `Profile` of `tokenmem.testing`: a kind of server to test your own application against.

```python
from openai import OpenAI

from tokenmem import Chat, Store
from tokenmem.testing import Answer, ModelServer

store = Store("sqlite:///servers.db")
store.upgrade()
with ModelServer(Answer("Hello!"), profile="alternating roles") as server:
    chat = Chat(store, OpenAI(base_url=server.base_url, api_key="test"), model="gemma-3-27b")
    store.append("c", [{"role": "user", "content": "Hi"}])
    print(chat.send("c", "Are you there?").text)  # two messages of the user's in a row
```

"""
FOOT = """
The figures are of one run of `scripts/servers`: random conversations with plain texts, parts, pictures, names, tools,
messages from elsewhere and messages that the server refuses; on SQLite and PostgreSQL, sync and async, whole, streamed
and opened. Refused: turns that the server refused to the end, so that the caller got its error. After each of them the
next plain turn was answered; in every turn what was delivered, `reply.text` and what is stored were the same; at the end
`verify` found nothing.
"""


def line(profile: Profile, seen: Mapping[str, int] | None) -> str:
    """A line of the table."""
    apis = "both" if len(profile.paths) > 1 else "Chat Completions"
    figures = "" if seen is None else f"{seen['conversations']:,} | {seen['turns']:,} | {seen['refused']:,}"
    told = f"| `{profile.name}` | {profile.does} | {profile.known_from} | {apis} | {profile.remedy} |"
    return f"{told} {figures} |"


def page(results: Mapping[str, Mapping[str, int]]) -> str:
    """The whole page."""
    titles = (
        "| profile | such a server … | known of | APIs | what is done | conversations | turns | refused |"
    )
    table = [titles, "|---|---|---|---|---|---|---|---|"]
    table += [line(profile, results[profile.name]) for profile in PROFILES.values()]
    return HEAD + "\n".join(table) + "\n" + FOOT


def main(directory: Path) -> None:
    """Write the page from the results of a run."""
    results = {name: Counter[str]() for name in PROFILES}
    for file in directory.glob("*.json"):
        told = json.loads(file.read_text())
        results[told["profile"]].update(told["seen"])
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
