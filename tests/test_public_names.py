"""The names that users import, and what they promise."""

import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any, get_args, get_type_hints

import openai
import pytest

import tokenmem
from tokenmem import AsyncChat, AsyncStore, Chat, Message, Store, Window, errors


def test_every_public_name_is_there_and_documented() -> None:
    assert len(set(tokenmem.__all__)) == len(tokenmem.__all__)
    assert dir(tokenmem) == sorted(tokenmem.__all__)
    for name in tokenmem.__all__:
        assert inspect.getdoc(getattr(tokenmem, name)), name
    with pytest.raises(AttributeError, match="Nonsense"):
        tokenmem.Nonsense  # noqa: B018


@pytest.mark.parametrize(
    "name",
    [
        "Store",
        "AsyncStore",
        "Message",
        "Window",
        "TokenCounter",
        "TiktokenCounter",
        "Appended",
        "Conversation",
        "Problem",
        "Purged",
        "errors",
    ],
)
def test_the_documented_names_are_exported(name: str) -> None:
    assert name in tokenmem.__all__


def test_importing_the_package_imports_no_dependency() -> None:
    heavy = "'sqlalchemy', 'alembic', 'tiktoken', 'openai', 'psycopg', 'typer'"
    program = f"import sys, tokenmem; print([name for name in ({heavy}) if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_store_on_sqlite_imports_only_what_it_needs() -> None:
    heavy = "'alembic', 'tiktoken', 'openai', 'psycopg', 'sqlalchemy.orm', 'sqlalchemy.dialects.postgresql'"
    program = (
        "import sys; from tokenmem import Store; Store('sqlite://').close(); "
        f"print([name for name in ({heavy}) if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_chat_imports_pydantic_only_for_a_class() -> None:
    """It costs half a second."""
    program = (
        "import sys; from tokenmem import Chat, Store; store = Store('sqlite://'); "
        "Chat(store, lambda messages, response_format: '{}', response_format={'type': 'json_object'}); "
        "print([name for name in ('pydantic', 'openai') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_error_is_a_tokenmem_error_with_a_docstring() -> None:
    assert len(errors.__all__) == 16
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.TokenmemError)
        assert kind.__doc__
    defined = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.InvalidArgument, ValueError),
        (errors.InvalidMessage, errors.InvalidArgument),
        (errors.ConversationExists, errors.InvalidArgument),
        (errors.MessageNotFound, errors.InvalidArgument),
        (errors.MessageNotFound, LookupError),
        (errors.ConversationNotFound, LookupError),
        (errors.DatabaseUnavailable, errors.DatabaseError),
        (errors.MissingExtra, ImportError),
    ],
)
def test_errors_are_what_python_programs_expect(kind: type, base: type) -> None:
    assert issubclass(kind, base)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found]


def test_both_stores_have_the_same_methods_with_the_same_arguments() -> None:
    public = [name for name in dir(Store) if not name.startswith("_")]
    assert [name for name in dir(AsyncStore) if not name.startswith("_")] == public
    assert parameters(Store.__init__) == parameters(AsyncStore.__init__)
    for name in public:
        sync, other = getattr(Store, name), getattr(AsyncStore, name)
        if not callable(sync):
            continue
        assert parameters(sync) == parameters(other), name
        assert inspect.getdoc(sync), name
        assert inspect.getdoc(other), name
        plain = name in ("bind", "for_owner", "transaction", "export")
        assert inspect.iscoroutinefunction(other) == (not plain), name
        if name not in ("bind", "transaction", "export"):
            assert get_type_hints(sync) == get_type_hints(other), name


@pytest.mark.parametrize(("sync", "other"), [(Store, AsyncStore), (Chat, AsyncChat)])
def test_help_shows_the_same_for_sync_and_async(sync: Any, other: Any) -> None:
    methods = {name for name in dir(sync) if not name.startswith("_") and callable(getattr(sync, name))}
    assert {
        name for name in dir(other) if not name.startswith("_") and callable(getattr(other, name))
    } == methods
    for name in methods:
        assert inspect.getdoc(getattr(other, name)) == inspect.getdoc(getattr(sync, name)), name


# What some annotations name that is only imported for type checkers.
ONLY_FOR_TYPES = {"OpenAI": openai.OpenAI, "AsyncOpenAI": openai.AsyncOpenAI}


def returned_by(kind: type) -> Iterator[Any]:
    """The types of what a class's public methods return, and of its public attributes."""
    for name, member in inspect.getmembers(kind):
        if name.startswith("_"):
            continue
        function = member.fget if isinstance(member, property) else inspect.unwrap(member)
        told = getattr(function, "__annotations__", {}).get("return")
        if isinstance(told, str):
            yield eval(told, function.__globals__, ONLY_FOR_TYPES)
    module = vars(sys.modules[kind.__module__])
    for name, told in vars(kind).get("__annotations__", {}).items():
        if not name.startswith("_"):
            yield eval(told, module, ONLY_FOR_TYPES) if isinstance(told, str) else told


def named_in(told: Any) -> Iterator[type]:
    """The classes that a type names, those in its arguments too."""
    if isinstance(told, type) and not get_args(told):
        yield told
    for argument in get_args(told):
        yield from named_in(argument)


def test_everything_that_is_returned_is_exported() -> None:
    exported = {name: getattr(tokenmem, name) for name in tokenmem.__all__}
    waiting = [each for each in exported.values() if isinstance(each, type)]
    seen = set(waiting)
    while waiting:
        kind = waiting.pop()
        for told in returned_by(kind):
            for found in named_in(told):
                if found in seen or not found.__module__.startswith("tokenmem."):
                    continue
                assert exported.get(found.__name__) is found, f"{kind.__name__} returns a {found.__name__}"
                seen.add(found)
                waiting.append(found)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("append", "conversation_id messages owner idempotency_key expected_position"),
        ("window", "conversation_id token_limit start_on stride"),
        ("messages", "conversation_id after before limit newest_first"),
        ("create", "conversation_id owner counter title metadata keep"),
        ("conversations", "owner order after before prefix archived limit"),
        ("update", "conversation_id title metadata merge keep"),
        ("move", "conversation_id owner"),
        ("move_owner", "old new"),
        ("edit", "conversation_id position message"),
        ("delete_message", "conversation_id position"),
        ("truncate", "conversation_id after"),
        ("fork", "conversation_id new_id at"),
        ("purge", "older_than"),
        ("recount", "conversation_id counter"),
    ],
)
def test_the_documented_arguments(method: str, arguments: str) -> None:
    assert set(arguments.split()) <= set(inspect.signature(getattr(Store, method)).parameters)


def test_values_are_frozen_and_slotted() -> None:
    message = Message.user("x")
    for value, field in ((message, "content"), (Window((message,), 1, 1, 1, 1, 0), "messages")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field, ())
    # A window has no slots: it makes its messages when somebody looks (docs/adr/0007).
    for name in ("Message", "Appended", "Conversation", "Problem"):
        assert hasattr(getattr(tokenmem, name), "__slots__"), name


@pytest.mark.parametrize(
    "error",
    [
        errors.WindowTooSmall("c1", position=3, token_count=9, token_limit=4, detail="too small"),
        errors.PositionConflict("c1", expected_position=1, last_position=2),
        errors.InvalidMessage("no"),
    ],
)
def test_an_error_reaches_the_parent_of_a_worker_process(error: errors.TokenmemError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
