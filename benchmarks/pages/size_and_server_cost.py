"""The page docs/size-and-server-cost.md, made from what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from benchmarks.pages.size_and_server_cost_method import HOW, METHOD
from benchmarks.support.databases import ENGINES, NAMES
from benchmarks.support.results import Results, documents
from benchmarks.support.texts import CHARACTERS

PARTS = ("server_cost", "size", "memory")
COMMANDS = ("db current", "verify", "export", "import", "recount", "purge --dry-run", "purge")

NEW_INDEX_ENTRY = ("Btree/INSERT_LEAF", "Btree/SPLIT_L", "Btree/SPLIT_R")
"""The records of which every new entry of an index makes one."""

INTRODUCTION = (
    "What tokenmem asks of the server, told by the server's own counts and not by a clock, and how a "
    "database of many messages behaves. `python -m benchmarks.server_cost` and `python -m benchmarks.size` "
    "measure it again and write this page. Messages are of 250 characters, ids are UUIDs as text."
)
QUICK = "**From a quick run, with small numbers.**"


def write_page(*, quick: bool) -> None:
    """Write the page; what has not been measured is left out."""
    results = {engine: Results(engine, quick=quick) for engine in ENGINES}
    known = {engine: {part: each.part(part) for part in PARTS} for engine, each in results.items()}
    sections = [
        "# Size and server cost",
        INTRODUCTION,
        *([QUICK] if quick else []),
        *_server_postgresql(known["postgresql"]["server_cost"]),
        *_server_sqlite(known["sqlite"]["server_cost"]),
        *_size({engine: parts["size"] for engine, parts in known.items()}),
        *_memory({engine: parts["memory"] for engine, parts in known.items()}),
        *METHOD,
        *_machine(known),
        *HOW,
    ]
    page = documents(quick=quick) / "size-and-server-cost.md"
    page.write_text("\n\n".join(map(_wrapped, sections)) + "\n", encoding="utf-8")


def _wrapped(section: str) -> str:
    """Prose in lines of the repository's length; tables, lists, headings and code as they are."""
    return section if section[0] in "|#-`" or "\n" in section else "\n".join(textwrap.wrap(section, 108))


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")


def _kilobytes(value: float) -> str:
    return f"{value / 1024:,.0f} kB"


def _server_postgresql(known: dict[str, Any]) -> Iterator[str]:
    if not known:
        return
    yield "## Server cost: PostgreSQL"
    if pages := known.get("pages"):
        yield from _postgresql_pages(pages)
    if log := known.get("log"):
        yield from _log(log)
    if updates := known.get("updates"):
        yield from _updates(updates)
    if index := known.get("index"):
        yield from _index(index)


def _postgresql_pages(pages: dict[str, Any]) -> Iterator[str]:
    yield (
        f"**Pages (8 kB) that a window touches**, in a table of {pages['messages']:,} messages. As they "
        "came: each message lies on a page of its own, because other conversations' came between; the worst "
        "that can be. Side by side: behind CLUSTER, or an import; the best."
    )
    layouts = pages["windows"]
    rows = []
    for first, second in zip(*layouts.values(), strict=True):
        touched = [
            f"{each['pages']:,.0f} ({each['pages'] / each['rows']:.2f} a row)" for each in (first, second)
        ]
        rows.append([f"{first['length']:,}", f"{first['limit']:,}", f"{first['rows']:,}", *touched])
    yield _table(["messages in the conversation", "token limit", "rows", *layouts], rows)
    yield (
        "**Pages that an append of an exchange touches**, the checks of foreign keys included; most of them "
        "several times."
    )
    appends = pages["appends"]
    names = [name for name in next(iter(appends.values())) if any(each[name] for each in appends.values())]
    rows = [
        [f"{int(length):,}", *(f"{each[name]:.1f}" for name in names), f"{sum(each.values()):.1f}"]
        for length, each in appends.items()
    ]
    yield _table(["messages in the conversation", *names, "all"], rows)


def _log(log: dict[str, Any]) -> Iterator[str]:
    if "failed" in log:
        yield f"The write-ahead log could not be read: {log['failed']}."
        return
    measured = log["measured"]
    yield (
        f"**Bytes in the write-ahead log for a message** of {CHARACTERS} characters, appended in exchanges "
        f"to {log['conversations']:,} conversations at random. Records are what was done; images are whole "
        "pages, written when a page changes for the first time behind a checkpoint. Of the two indexes of "
        "the messages only the primary key gets an entry: the other one is of pinned messages."
    )
    rows = []
    for name, each in measured.items():
        records, images = (sum(kind[what] for kind in each["kinds"]) for what in ("record", "images"))
        entries = sum(kind["count"] for kind in each["kinds"] if kind["kind"] in NEW_INDEX_ENTRY)
        shares = [
            f"{records:,.0f}",
            f"{images:,.0f}",
            f"{(records + images) / CHARACTERS:.1f}",
            f"{entries:.2f}",
        ]
        rows.append([f"{name} ({each['appends']:,} appends)", *shares])
    heads = ["", "records", "images", "bytes written for one of text", "index entries"]
    yield _table(heads, rows)
    name, each = list(measured.items())[-1]
    yield f"By kind of record, {name}:"
    rows = [
        [kind["kind"], f"{kind['count']:.2f}", f"{kind['record']:.0f}", f"{kind['images']:.0f}"]
        for kind in each["kinds"]
        if kind["record"] + kind["images"] >= 1
    ]
    yield _table(["kind", "a message", "bytes of records", "bytes of images"], rows)


def _updates(updates: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "**The conversations' rows**, which every append updates: how many updates were made in place (HOT, "
        "no index touched) and what the table has grown to. Autovacuum as it is by default, which comes once "
        "a minute, later than this takes. A snapshot held: another transaction, which has read before, stays "
        "open all the time."
    )
    rows = [
        [
            f"{each['appends']:,} appends over {each['conversations']:,}",
            "yes" if each["held"] else "no",
            f"{each['hot_share']:.1%}",
            f"{_kilobytes(each['size_before'])} → {_kilobytes(each['size'])}",
            _kilobytes(each["index"]),
            f"{each['dead']:,} → {each['dead_after_vacuum']:,}",
            f"{each['autovacuums']}",
        ]
        for each in updates
    ]
    heads = ["", "snapshot held", "HOT", "table", "index", "dead rows, behind VACUUM", "autovacuums"]
    yield _table(heads, rows)


def _index(index: dict[str, Any]) -> Iterator[str]:
    if "failed" in index:
        yield f"The index could not be looked at: {index['failed']}."
        return
    grown, rebuilt = index["grown"], index["rebuilt"]
    messages = 2 * index["appends"]
    yield (
        f"**The primary key's index** behind {index['appends']:,} appends of an exchange to "
        f"{index['conversations']:,} conversations at random: {_kilobytes(grown['size'])}, "
        f"{grown['size'] / messages:.0f} bytes a message, leaves {grown['density']:.0f} % full. REINDEX "
        f"makes {_kilobytes(rebuilt['size'])} of it, {rebuilt['density']:.0f} % full: it had grown to "
        f"{grown['size'] / rebuilt['size']:.2f} times its least size. The table takes "
        f"{index['table'] / messages:.0f} bytes a message, the index of pinned messages "
        f"{_kilobytes(index['pinned'])} in all."
    )


def _server_sqlite(known: dict[str, Any]) -> Iterator[str]:
    if not known:
        return
    yield "## Server cost: SQLite"
    if windows := known.get("windows"):
        yield (
            "**Steps of the virtual machine and pages (4 kB) that a window reads**, with nothing of the "
            "tables in the connection's cache."
        )
        rows = [
            [
                *(f"{each[name]:,}" for name in ("length", "limit", "rows", "steps")),
                "not known" if each["pages"] is None else f"{each['pages']:,}",
            ]
            for each in windows
        ]
        yield _table(["messages in the conversation", "token limit", "rows", "steps", "pages"], rows)
    if appends := known.get("appends"):
        yield (
            "**Steps of an append of an exchange, and pages that it writes into the write-ahead log**: each "
            "is a commit."
        )
        names = sorted({name for each in appends.values() for name in each["pages"]})
        rows = [
            [
                f"{int(length):,}" if length.isdigit() else length,
                f"{each['steps']:,}",
                *(f"{each['pages'].get(name, 0):.1f}" for name in names),
                f"{each['bytes']:,.0f}",
                f"{each['bytes'] / 2 / CHARACTERS:.0f}",
            ]
            for length, each in appends.items()
        ]
        heads = ["conversation", "steps", *names, "bytes of log", "bytes written for one of text"]
        yield _table(heads, rows)
        yield (
            "Pages are the least that SQLite writes. A checkpoint brings a page that many appends have "
            "written into the file once."
        )


def _size(known: dict[str, dict[str, Any]]) -> Iterator[str]:
    measured = {engine: each for engine, each in known.items() if "database" in each}
    if not measured:
        return
    yield "## Size"
    yield (
        "One conversation of up to 1,000,000 messages, five of a tenth of it, the rest between 100 and "
        "10,000. Windows are of 4,000 tokens; milliseconds are medians (10 % to 90 %)."
    )
    lines = {
        "messages": lambda each: f"{each['database']['messages']:,}",
        "conversations": lambda each: f"{each['database']['conversations']:,}",
        "on disk": lambda each: f"{each['database']['bytes'] / 1e9:.1f} GB",
        "bytes a message": _bytes_a_message,
        "time to fill": lambda each: f"{each['database']['fill_seconds']:,.0f} s",
    }
    for title, name in {
        "window of the longest conversation": "longest windows",
        "window of a random conversation": "random windows",
        "append to the longest conversation": "longest appends",
        "append to a random conversation": "random appends",
    }.items():
        lines[f"{title}, warm"] = lambda each, name=name: _spread(each.get(name))
        lines[f"{title}, cold"] = lambda each, name=name: _spread(_cold(each, name))
    lines["8 kB made durable, right behind these appends"] = _disk
    for command in ("verify", "purge --dry-run"):
        lines[f"`tokenmem {command}`"] = lambda each, name=command: _command(each.get(name))
    rows = [[title, *(line(each) for each in measured.values())] for title, line in lines.items()]
    yield _table(["", *(NAMES[engine] for engine in measured)], rows)


def _bytes_a_message(each: dict[str, Any]) -> str:
    database = each["database"]
    text = f"{database['bytes'] / database['messages']:,.0f}"
    if "messages_pkey" not in database:
        return text
    table, index = (database[name] / database["messages"] for name in ("table", "messages_pkey"))
    return f"{text} (table {table:,.0f}, primary key {index:,.0f})"


def _disk(each: dict[str, Any]) -> str:
    times = [each.get(f"{name} appends", {}).get("disk") for name in ("longest", "random")]
    return ", ".join(f"{seconds * 1000:.2f} ms" for seconds in times if seconds is not None) or "–"


def _cold(each: dict[str, Any], name: str) -> dict[str, Any] | None:
    cold = each.get("cold", {})
    return cold if "failed" in cold else cold.get(name)


def _spread(summary: dict[str, Any] | None) -> str:
    if not summary or "failed" in summary:
        return summary["failed"] if summary else "–"
    low, middle, high = (f"{summary[key] * 1000:.2f}" for key in ("low", "seconds", "high"))
    return f"{middle} ms ({low} to {high})"


def _command(answer: dict[str, Any] | None) -> str:
    if not answer or "failed" in answer:
        return answer["failed"] if answer else "–"
    return f"{answer['seconds']:,.1f} s, {answer['bytes'] / 2**20:,.0f} MB"


def _memory(known: dict[str, dict[str, Any]]) -> Iterator[str]:
    measured = {engine: each["shapes"] for engine, each in known.items() if "shapes" in each}
    if not measured:
        return
    yield "## Memory of the commands"
    yield (
        "Peak memory and time of a `tokenmem` process, at two sizes that differ by a factor of ten: memory "
        "that does not grow is the same at both. `db current` does next to nothing: it is what Python and "
        "the libraries take. `import` holds one line, and a line is a conversation."
    )
    for engine, shapes in measured.items():
        for shape, sizes in shapes.items():
            yield f"**{NAMES[engine]}, messages {shape}:**"
            names = [name for name in COMMANDS if any(name in found for found in sizes.values())]
            rows = [
                [f"`{name}`", *(_command(found.get(name)) for found in sizes.values()), _growth(sizes, name)]
                for name in names
            ]
            yield _table(["", *(f"{int(size):,} messages" for size in sizes), "grows by"], rows)


def _growth(sizes: dict[str, Any], name: str) -> str:
    found = [each.get(name, {}).get("bytes") for each in sizes.values()]
    if len(found) < 2 or None in found:
        return "–"
    return f"{round((found[-1] - found[0]) / 2**20):,} MB"


def _machine(known: dict[str, dict[str, Any]]) -> Iterator[str]:
    found = {
        (engine, part): value["machine"]
        for engine, parts in known.items()
        for part, value in parts.items()
        if value
    }
    if not found:
        return
    yield "## Machine and versions"
    newest = max(found.values(), key=lambda machine: str(machine["measured"]))
    versions = {NAMES[engine]: machine["engine_version"] for (engine, _), machine in found.items()}
    engines = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield (
        f"{newest['measured']}: {newest['processors']} cores ({newest['processor']}), shared with other "
        f"work, {newest['memory_gigabytes']} GB of memory, a disk that makes 8 kB durable in "
        f"{newest['sync_milliseconds']} ms, {newest['system']}, Python {newest['python']}, {engines}."
    )
