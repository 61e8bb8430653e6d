"""The example of a product's conversations: uvicorn in a process of its own, over real connections."""

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.backend import running
from tokenmem import Message, Store
from tokenmem.messages import parse_line

ROOT = Path(__file__).parents[2]
LONGEST = 60
"""Lines in which all of it is written."""


def asked(port: int, method: str, path: str, user: str = "ada", body: Any = None) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"X-User": user, "Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_it_is_short_and_has_no_sql() -> None:
    text = (ROOT / "examples" / "product" / "backend.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert "SELECT" not in text
    assert "sqlalchemy" not in text


def test_the_conversations_of_a_product(database_url: str) -> None:
    with Store(database_url) as store:
        store.upgrade()
        for number in range(60):
            store.append(f"trip {number:02}", [Message.user(f"To town {number}?")], owner="ada")
        store.append("trip 07", [Message.assistant("At noon.")])
        store.record_call("trip 07", model="gpt-4o", input_tokens=20, output_tokens=5, reply_position=2)
        store.append("secret", [Message.user("mine alone")], owner="bob")
    with running("examples.product.backend:app", ROOT, TOKENMEM_URL=database_url) as port:

        def get(path: str, **given: Any) -> Any:
            status, text = asked(port, "GET", path, **given)
            assert status == 200, text
            return json.loads(text)

        page = get("/chats")
        ids = [chat["id"] for chat in page["chats"]]
        assert ids[:2] == ["trip 07", "trip 59"]
        rest = get(f"/chats?before={page['before']}")
        assert rest["before"] is None
        ids += [chat["id"] for chat in rest["chats"]]
        assert sorted(ids) == [f"trip {number:02}" for number in range(60)]

        assert [each["content"] for each in get("/chats/trip%2007")] == ["At noon.", "To town 7?"]
        assert asked(port, "GET", "/chats/trip%2007", user="bob")[0] == 404
        assert asked(port, "PATCH", "/chats/trip%2007", user="bob", body={"title": "x"})[0] == 404
        assert asked(port, "DELETE", "/chats/trip%2007", user="bob")[0] == 404

        status, text = asked(port, "PATCH", "/chats/trip%2003", body={"title": "Town", "archived": True})
        assert (status, json.loads(text)["title"]) == (200, "Town")
        assert [chat["title"] for chat in get("/chats?archived=true")["chats"]] == ["Town"]
        assert "trip 03" not in [chat["id"] for chat in get("/chats")["chats"]]

        usage = get("/usage?since=2020-01-01")
        assert asked(port, "DELETE", "/chats/trip%2007")[0] == 204
        assert asked(port, "GET", "/chats/trip%2007")[0] == 404
        assert get("/usage?since=2020-01-01") == usage, "a deletion resets no quota"
        assert [(each["calls"], each["input_tokens"], each["output_tokens"]) for each in usage] == [
            (1, 20, 5)
        ]
        assert asked(port, "GET", "/usage?since=soon")[0] == 422

        status, text = asked(port, "GET", "/export")
        exported = [parse_line(line) for line in text.splitlines()]
        assert status == 200
        assert {line.id for line in exported} == {f"trip {number:02}" for number in range(60)} - {"trip 07"}
        assert {line.owner for line in exported} == {"ada"}
