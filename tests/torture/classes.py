"""All classes of faults, in the order of the page."""

from tests.torture import (
    busy_conversations,
    cancelled,
    commit_unknown,
    counting_cost,
    damaged_files,
    event_loops,
    failing_server,
    fairness,
    forks,
    full_disk,
    fuzzed_messages,
    injection,
    isolation,
    kept_secrets,
    killed_turns,
    killed_writers,
    memory,
    model,
    pooler,
    replaced_files,
    silence,
    sqlite_writers,
    stale_connections,
    terminated_backends,
    web_servers,
)
from tests.torture.support.outcome import FaultClass

_MODULES = (
    killed_writers,
    killed_turns,
    failing_server,
    terminated_backends,
    commit_unknown,
    silence,
    stale_connections,
    pooler,
    forks,
    event_loops,
    web_servers,
    fairness,
    cancelled,
    busy_conversations,
    sqlite_writers,
    full_disk,
    damaged_files,
    replaced_files,
    fuzzed_messages,
    counting_cost,
    model,
    isolation,
    injection,
    kept_secrets,
    memory,
)

CLASSES: tuple[FaultClass, ...] = tuple(each.CLASS for each in _MODULES)

BY_NAME = {each.name: each for each in CLASSES}
