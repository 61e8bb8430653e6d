"""What the page about size and server cost says about how it was measured."""

METHOD = (
    "## Method",
    """- Pages of a window are what EXPLAIN (ANALYZE, BUFFERS) says of its statement; those of appends are
  what pg_statio_user_tables counts over many appends through `Store`, less those of a shorter session, with
  autovacuum off for these tables; a page that is touched twice counts twice. The newest 2,500 messages of
  each conversation came in turn with others', 20 between two of them.
- The log is read by pg_walinspect, from the server's own record. `wal_compression` is off, as by default.
- SQLite's steps are calls of its progress handler, at each instruction; pages read are the bytes that the
  kernel counts for the thread, so they cannot be had on systems other than Linux; pages written are the
  frames in the `-wal` file, with automatic checkpoints off, told apart by `dbstat`. How often a page in the
  cache is looked at cannot be told: SQLite says it to C programs only.
- PostgreSQL has its default settings, data on disk, fsync on; `synchronous_commit` is off where counts are
  taken and on where time is. SQLite is in WAL mode with synchronous = FULL.
- The large database is filled by the database itself, by INSERT … SELECT from 500 texts, one conversation
  after the other, with right totals, without checking foreign keys row by row, and then cleaned up
  (`VACUUM ANALYZE`, checkpoint). In a service conversations grow at the same time: the primary key's index
  (PostgreSQL) and the table (SQLite) then take more room than here.
- Warm: the window was loaded just before; appends go to the same conversations again and again. Cold: a new
  connection that has looked at another conversation, the files forgotten by the system (`posix_fadvise`, for
  the database's own files; the whole machine's cache is not ours to drop), PostgreSQL's shared buffers filled
  with other pages (pg_prewarm). Whether the disk below is a virtual one with a cache of its own is not known.
- Memory is `ru_maxrss` of the command's process, which a small process of its own starts. PostgreSQL's
  server is not in it; SQLite is. Half of the messages are a year old, and `purge` removes those older than
  90 days. Behind all commands `verify` finds nothing.""",
)

HOW = (
    "## Measure it yourself",
    """```console
$ python -m benchmarks.server_cost --quick          # a minute; without --quick several
$ python -m benchmarks.size --quick                 # three minutes
$ python -m benchmarks.size --engine postgresql --part database --messages 50000000
$ python -m benchmarks.size --part memory
```

They need the repository's development environment and, for the large database, 800 bytes of free disk for
each message in the temporary directory (`TMPDIR`). Results are in `build/benchmarks`; a quick run writes a
page of its own, `build/benchmarks-quick/size-and-server-cost.md`.""",
)
