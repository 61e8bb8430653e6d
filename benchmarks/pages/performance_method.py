"""What the page says about how it was measured."""

METHOD = (
    "## Method",
    """- Every subject of a row is measured in the same process, round by round, in another order each
  round, so that whatever else the machine does disturbs all alike. The first rounds are dropped. Given are
  medians, and where 10 % and 90 % of the times lie. What takes more than 10 seconds is measured once.
- Garbage is collected between rounds, never while the clock runs, for all subjects alike. That favours what
  makes many objects.
- Async subjects are timed inside a coroutine on one running event loop.
- Each library has a database of its own with 1,000 other conversations of 50 messages. It stores one
  conversation through its own API; the long ones are copies of those rows, made by SQL. (LangGraph keeps a
  conversation in one value: there the library writes each of them, in one step.)
- Conversations that are appended to are not those that are read; the short ones are ten, appended to in
  turn, so that none grows much while it is measured.
- PostgreSQL runs on the same machine with its default settings, data on disk, fsync on, synchronous_commit
  on. SQLite files are on disk, in WAL mode and with synchronous = FULL for every library.
- Each library is used the way its documentation shows, with its cheapest documented counter, and with what
  may be kept between requests (engines, connections, history and session objects) kept.
- tokenmem counts every appended message with tiktoken's o200k_base in the comparison with its peers; against
  the floor, where it says "counting excluded", a counter of next to no cost stands in.
- At 1,000,000 messages each measurement of a peer is a process of its own, beside tokenmem's, which ends
  after 300 seconds or at 12 GB of memory.
- Text is English-like, made from a seeded generator. The mixed lengths follow quantiles of 12,870 messages in
  real conversations (`benchmarks/support/texts.py`): half under 130 characters, one in fifty over 2,292.""",
)

REASONS = (
    "Why bars are missed, and what would be needed:",
    """- *An unprepared window of 4,000 tokens.* PostgreSQL plans a range scan in 0.03 ms and the window,
  which is three of them, in 0.13; at 128,000 tokens it no longer matters. psycopg prepares at the sixth
  run on a connection. Only a simpler query, or a function in the database, would make it cheaper.
- *SQLiteSession.* It writes and reads one JSON text a message: no positions, no totals, no token count, no
  budget. With both alone on a file in memory its append and its newest 50 take as long as tokenmem's, and
  counting the tokens takes 0.02 ms more; on a disk that makes an append durable in 0.1 ms that shows.
- *PostgresChatMessageHistory's append.* Two inserts in one pipeline, without a row that puts conversations in
  order. tokenmem's statement also moves that row and looks for the idempotency key.
- *One hot conversation on a durable server.* Its row is locked until its commit is on the disk, so its
  appends wait for the disk one after the other, where those to eight conversations share one wait. With
  `synchronous_commit = off` the ratio is the other one.
- *Bytes on PostgreSQL.* A conversation's id of 36 characters stands in every row and in the primary key, by
  which rows are found and conversations distributed; SQLAlchemySession numbers its rows and has the id in
  one index. The key's index is 70 % full where conversations grow at the same time.""",
)

HOW = (
    "## Measure it yourself",
    """```console
$ scripts/benchmark                                # everything: about two hours
$ scripts/benchmark --quick                        # up to 10,000 messages, few repetitions: two minutes
$ scripts/benchmark --engine sqlite --part peers --subject LangChainSQL --work append --length 1000
$ scripts/benchmark --page                         # only this page, from build/benchmarks/*.json
```

It makes an environment of its own (`build/venv-benchmarks`), with the versions in
`benchmarks/requirements.txt`. What is measured again replaces its own figures and leaves the others; a quick
run writes a page of its own, `build/benchmarks-quick/performance.md`.
The query plans behind the windows are guarded by tests (`tests/database/test_query_plans.py`): the number of
rows and pages touched, never the time.""",
)
