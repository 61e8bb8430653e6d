"""Lists of conversations: by id, the newest first, the archive; exact however the times fall."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.stores import Direct, Stores, Unit, texts
from tokenmem import Conversation, Store, errors
from tokenmem.database.statements import RECENT

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def counted(stores: Stores) -> Store:
    return stores.open(counter=Unit())


def ids(conversations: Sequence[Conversation]) -> list[str]:
    return [conversation.id for conversation in conversations]


def stored(moment: datetime | None) -> str | None:
    """As SQLite holds it, and as PostgreSQL reads it."""
    return None if moment is None else moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@dataclass
class Row:
    """A conversation's times, as the statements that change one set them."""

    id: str
    owner: str | None
    created_at: datetime
    updated_at: datetime
    recent_at: datetime | None = None
    archived_at: datetime | None = None

    def touch(self, moment: datetime) -> None:
        self.updated_at = max(self.updated_at, moment)
        earliest = self.updated_at - timedelta(seconds=RECENT)
        if self.recent_at is None or self.recent_at <= earliest:
            self.recent_at = self.updated_at


def random_rows(source: random.Random, count: int) -> list[Row]:
    """Conversations with changes within and across half a minute, many at one moment."""
    span = source.choice([20, 100, 1_000, 100_000])

    def moment() -> datetime:
        fine = source.choice([timedelta(seconds=1), timedelta(milliseconds=1), timedelta(seconds=RECENT)])
        return START + fine * source.randrange(max(1, int(timedelta(seconds=span) / fine)))

    rows = []
    for number in range(count):
        created = moment()
        name = f"{source.choice('aab')}{number}"
        row = Row(name, source.choice([None, "ann", "ann", "bob"]), created, created)
        for later in sorted(moment() for _ in range(source.choice([0, 0, 1, 2, 40]))):
            row.touch(later)
        if source.random() < 0.2:
            row.archived_at = moment()
        rows.append(row)
    return rows


def insert(sql: Direct, rows: Sequence[Row]) -> None:
    statement = sql._statement(
        "INSERT INTO {conversations} (id, owner, token_counter, last_position, message_count, total_tokens,"
        " created_at, updated_at, recent_at, archived_at) VALUES (:id, :owner, 'unit', 0, 0, 0, :created_at,"
        " :updated_at, :recent_at, :archived_at)"
    )
    names = ("created_at", "updated_at", "recent_at", "archived_at")
    with sql.engine.begin() as connection:
        connection.execute(
            statement,
            [
                {"id": row.id, "owner": row.owner} | {name: stored(getattr(row, name)) for name in names}
                for row in rows
            ],
        )


def expected(rows: Sequence[Row], *, owner: str | None, archived: bool, prefix: str) -> list[str]:
    """The whole list, sorted in Python."""
    shown = [
        row
        for row in rows
        if (row.archived_at is not None) == archived
        and owner in (None, row.owner)
        and row.id.startswith(prefix)
    ]
    shown.sort(key=lambda row: (row.archived_at or row.updated_at, row.id), reverse=True)
    return [row.id for row in shown]


def pages(store: Store, by_text: bool = False, **options: Any) -> Iterator[list[Conversation]]:
    before: Any = None
    while page := store.conversations(order="recent", before=before, **options):
        yield page
        before = page[-1].cursor if by_text else page[-1]


@pytest.mark.parametrize("seed", range(12))
def test_the_newest_first_is_what_sorting_all_of_them_says(counted: Store, sql: Direct, seed: int) -> None:
    source = random.Random(seed)
    rows = random_rows(source, source.choice([5, 40, 90]))
    insert(sql, rows)
    assert counted.verify() == []
    for owner in (None, "ann", "nobody"):
        for archived in (False, True):
            prefix = source.choice(["", "a", "b1"])
            wanted = expected(rows, owner=owner, archived=archived, prefix=prefix)
            options: dict[str, Any] = {"owner": owner, "archived": archived, "prefix": prefix}
            for limit in (1, 2, 7, 30, None):
                found = list(pages(counted, bool(limit and limit % 2), limit=limit, **options))
                assert [name for page in found for name in ids(page)] == wanted
                assert all(len(page) == (limit or len(page)) for page in found[:-1])


def test_what_changes_comes_first(counted: Store, sql: Direct) -> None:
    for name in ("a", "b", "c"):
        counted.append(name, texts(1))
        sql.age(0.001, "id <= 'c'", "conversations")
    assert ids(counted.conversations(order="recent")) == ["c", "b", "a"]
    for change in (
        lambda: counted.append("a", texts(1)),
        lambda: counted.update("b", title="x"),
        lambda: counted.append("a", texts(1), merge_metadata={"x": 1}),
        lambda: counted.edit("c", 1, texts(2)[0]),
        lambda: counted.delete_message("a", 2),
        lambda: counted.truncate("b", after=0),
        lambda: counted.recount("c", "o200k_base"),
        lambda: counted.fork("a", "d"),
        lambda: counted.create("e"),
    ):
        sql.age(0.0001, table="conversations")
        before = ids(counted.conversations(order="recent"))
        change()
        newest, *others = ids(counted.conversations(order="recent"))
        assert others == [name for name in before if name != newest]
        assert counted.verify() == []
    assert newest == "e"


def test_the_stamp_stays_for_half_a_minute(counted: Store, sql: Direct) -> None:
    stamp = "SELECT recent_at FROM {conversations}"
    counted.append("c1", texts(1))
    assert sql.value(stamp) is None
    counted.append("c1", texts(1))
    first = sql.value(stamp)
    counted.append("c1", texts(1))
    counted.update("c1", title="x")
    assert sql.value(stamp) == first
    assert counted.verify() == []
    sql.age((RECENT + 1) / 86_400, table="conversations")
    earlier = sql.value(stamp)
    counted.append("c1", texts(1))
    assert sql.value(stamp) > earlier
    assert counted.verify() == []


def test_time_does_not_go_back_with_the_clock(counted: Store, sql: Direct) -> None:
    counted.append("c1", texts(1))
    sql.age(-1, table="conversations")
    future = counted.conversation("c1").updated_at
    counted.append("c1", texts(1))
    assert counted.conversation("c1").updated_at == future
    assert counted.verify() == []


def test_a_cursor_is_safe_in_urls_and_holds_the_place(counted: Store) -> None:
    for name in ("x" * 255, "é/?&=+ 😀", "😀" * 255, "a:b", "-"):
        found = counted.create(name)
        assert set(found.cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    all_of_them = counted.conversations(order="recent")
    for number, conversation in enumerate(all_of_them, 1):
        behind = counted.conversations(order="recent", before=conversation.cursor)
        assert behind == all_of_them[number:]
        assert counted.conversations(order="recent", before=conversation) == behind
    assert len(counted.create("c1").cursor) < 32


@pytest.mark.parametrize(
    "text", ["", "x", "c1", "cjE6YQ==", "cjE6YQ\n", "é", "eDE6YQ", "cjFfMDphYg", "cjE", "A" * 5000]
)
def test_what_is_no_cursor_is_refused(counted: Store, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="cursor"):
        counted.conversations(order="recent", before=text)


def test_arguments_of_the_other_order_are_refused(counted: Store) -> None:
    here, away = counted.create("here"), counted.archive(counted.create("away").id)
    for wrong, words in (
        ({"order": "recent", "after": "a"}, "after is for"),
        ({"before": here}, "before is for"),
        ({"order": "recent", "archived": None}, "archived=None"),
        ({"order": "recent", "before": 5}, "before is a int"),
        ({"order": "recent", "before": away}, "archived=True"),
        ({"order": "recent", "archived": True, "before": here}, "archived=False"),
        ({"order": "newest"}, "order is 'newest'"),
        ({"archived": "yes"}, "archived is a str"),
        ({"limit": 0}, "limit is 0"),
        ({"prefix": "x" * 256}, "prefix has 256"),
        ({"prefix": "\ud800"}, "surrogate"),
    ):
        with pytest.raises(errors.InvalidArgument, match=words):
            counted.conversations(**wrong)  # type: ignore[arg-type]


NAMES = [
    *("a", "ab", "abc", "abd", "ac", "a\ud7ff", "a\ud7ffz", "a\ue000", "a\uffff", "a\U00010000"),
    *(
        "a\U0010ffff",
        "a\U0010ffff\U0010ffff",
        "a\U0010ffffb",
        "b",
        "B",
        "é",
        "\U0010ffff",
        "\U0010ffff" * 255,
    ),
    *("%", "_", "a%", "a_b", "A", " ", "'"),
]


def test_ids_that_begin_with_a_text(counted: Store) -> None:
    for name in NAMES:
        counted.create(name)
    for prefix in ["", *NAMES, "zz", "a\ud7ffzz", "\U0010ffff\U0010ffff"]:
        wanted = sorted(name for name in NAMES if name.startswith(prefix))
        assert ids(counted.conversations(prefix=prefix)) == wanted, prefix
        assert sorted(ids(counted.conversations(prefix=prefix, order="recent"))) == wanted, prefix
        for after in NAMES:
            behind = [name for name in wanted if name > after]
            assert ids(counted.conversations(prefix=prefix, after=after, limit=5)) == behind[:5], (
                prefix,
                after,
            )


def test_archived_ones_are_hidden(counted: Store) -> None:
    for name in ("a", "b", "c", "d"):
        counted.append(name, texts(1), owner="ann")
    counted.archive("c")
    time.sleep(0.005)  # SQLite's clock tells milliseconds, and at one moment the higher id comes first
    counted.archive("a")
    for store in (counted, counted.for_owner("ann")):
        assert ids(store.conversations()) == ["b", "d"]
        assert ids(store.conversations(archived=True)) == ["a", "c"]
        assert ids(store.conversations(archived=None)) == ["a", "b", "c", "d"]
        assert ids(store.conversations(archived=None, after="a", limit=2)) == ["b", "c"]
        assert ids(store.conversations(order="recent")) == ["d", "b"]
        assert ids(store.conversations(order="recent", archived=True)) == ["a", "c"]
    assert counted.for_owner("bob").conversations(order="recent") == []


def test_paging_while_others_append(counted: Store, stores: Stores) -> None:
    """What does not change is listed once and in order; the others once, unless they change meanwhile."""
    calm = [f"calm{number:02}" for number in range(30)]
    busy = [f"busy{number}" for number in range(10)]
    for number in range(30):
        counted.append(calm[number], texts(1))
        counted.append(busy[number % 10], texts(1))
    quiet = list(reversed(calm))
    done = threading.Event()

    def append_on() -> None:
        with Store(stores.url, counter=Unit()) as other:
            source, number = random.Random(0), 0
            while not done.is_set():
                other.append(source.choice(busy), texts(1))
                other.create(f"new{(number := number + 1)}")

    thread = threading.Thread(target=append_on)
    thread.start()
    try:
        for _ in range(8):
            seen = [each for page in pages(counted, limit=3) for each in page]
            assert [each.id for each in seen if each.id.startswith("calm")] == quiet
            assert len({(each.id, each.updated_at) for each in seen}) == len(seen)
    finally:
        done.set()
        thread.join()
    assert counted.verify() == []
