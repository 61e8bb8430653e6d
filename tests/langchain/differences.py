"""Where what tokenmem's classes do is not what LangChain's do, for a program that knows LangChain's types."""

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult, RunInfo

from tests.langchain.scripted_models import Overloaded

FAMILIES = (KeyError, ValueError, TypeError, AttributeError, NotImplementedError)


def difference(theirs: Any, ours: Any, where: str = "") -> str:
    """Where ours is not what theirs is; an empty text where there is no difference."""
    kind = next((kind for kind in COMPARED if isinstance(theirs, kind)), None)
    if kind is None:
        same = theirs == ours and isinstance(ours, type(theirs))
    else:
        if not isinstance(ours, kind):
            return _told_apart(theirs, ours, where)
        same = COMPARED[kind](theirs, ours, where)
        if isinstance(same, str):
            return same
    return "" if same else _told_apart(theirs, ours, where)


def _told_apart(theirs: Any, ours: Any, where: str) -> str:
    return f"at {where or 'the top'}\n  theirs: {theirs!r}\n  ours:   {ours!r}"


def _dicts(theirs: dict[Any, Any], ours: dict[Any, Any], where: str) -> str | bool:
    if theirs.keys() != ours.keys():
        return _told_apart(list(theirs), list(ours), f"{where}, keys")
    return _first(difference(theirs[key], ours[key], f"{where}[{key!r}]") for key in theirs)


def _sequences(theirs: Sequence[Any], ours: Sequence[Any], where: str) -> str | bool:
    for number, (first, second) in enumerate(zip(theirs, ours, strict=False)):
        if found := difference(first, second, f"{where}[{number}]"):
            return found
    return len(theirs) == len(ours)


def _first(found: Any) -> str:
    return next((each for each in found if each), "")


def _messages(theirs: BaseMessage, ours: BaseMessage, where: str) -> bool:
    return isinstance(ours, type(theirs)) and theirs == ours and ours == theirs


def _results(theirs: LLMResult, ours: LLMResult, where: str) -> str:
    """Ids of messages are chance."""
    both = [
        [[(each.text, isinstance(each, ChatGeneration)) for each in row] for row in result.generations]
        for result in (theirs, ours)
    ]
    return difference(*both, f"{where}.generations")


def _runs(theirs: RunInfo, ours: RunInfo, where: str) -> bool:
    """Which is which run is in what callbacks are told."""
    return True


def _errors(theirs: BaseException, ours: BaseException, where: str) -> bool:
    if isinstance(theirs, Overloaded):
        return type(ours) is Overloaded and str(theirs) == str(ours)
    return family(theirs) == family(ours)


def family(error: BaseException) -> str:
    """What of an error a caller may rely on."""
    return next((each.__name__ for each in FAMILIES if isinstance(error, each)), type(error).__name__)


COMPARED: dict[type[Any], Callable[..., str | bool]] = {
    dict: _dicts,
    list: _sequences,
    tuple: _sequences,
    BaseMessage: _messages,
    LLMResult: _results,
    RunInfo: _runs,
    BaseException: _errors,
    str: lambda theirs, ours, _where: str(theirs) == str(ours),  # LangChain has strings of its own
}
