"""The demo's conversation: a night train, a cello, a model that follows a script, and a timetable."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenmem.messages.values import JSONObject

TITLE = "A night train to the sea"

INSTRUCTIONS = "You are Luma, clerk at a night-train counter. Be brief and kind."

OPENING = [
    (
        "I would like to wake up by the sea. I live in Vienna and travel with a cello.",
        "A cello deserves a window berth too. Trieste and Rijeka both have the sea at breakfast: which?",
    ),
    (
        "Trieste! There is a harbour wall that I want to play on.",
        "Then Trieste it is. Tell me which evening, and I will look at the timetable.",
    ),
]

DATE_QUESTION = "Friday the 12th, please, and not before dinner."

ONWARD = [
    (
        "What does a sleeper for one cost on that train, if the cello comes along?",
        "118 euros on a Friday. The cello rides free on the upper berth, strapped in like a sailor, "
        "and the conductor brings it a blue blanket of its own, with a button at the neck.",
    ),
    (
        "Will it snore less than my brother does?",
        "It may hum in the curves, but always in tune. Loosen the strings a little.",
    ),
    (
        "Is there breakfast on board?",
        "Coffee, a roll and apricot jam, at eight. First comes the limestone, then the water.",
    ),
    (
        "Knock before the water, then.",
        "One knock at 08:20. The sea is on the right-hand side.",
    ),
]

TOWN = "Vienna"
TOWN_QUESTION = "Do you remember which town I live in?"
TOWN_KNOWN = f"In {TOWN}, of course."
TOWN_FORGOTTEN = "That has rolled out of my window. But nothing is lost: ask your database."

_TIMETABLE = {
    (TOWN, "Trieste"): {"train": "Nightjar 40", "departs": "21:27", "arrives": "08:51", "sleepers": 2},
    (TOWN, "Rijeka"): {"train": "Nightjar 52", "departs": "20:05", "arrives": "08:14", "sleepers": 0},
}


def timetable(origin: str, destination: str, date: str) -> str:
    """The tool: which night train goes, as JSON."""
    found = _TIMETABLE.get((origin, destination))
    return json.dumps({"date": date, **found} if found else {"error": "no night train"})


def scripted_model(prompt: str) -> str:
    """A model for ConversationChain: any function from text to text is one.

    It knows its lines, but the last one it answers from what the prompt really holds.
    """
    history, _, asked = prompt.rpartition("\nHuman: ")
    question = asked.removesuffix("\nAI:")
    if question == TOWN_QUESTION:
        return TOWN_KNOWN if TOWN in history else TOWN_FORGOTTEN
    return dict([*OPENING, *ONWARD])[question]


def scripted_tool_model(messages: Sequence[JSONObject]) -> JSONObject:
    """A model as an API with tools has it, messages in and one message out: it looks up the timetable."""
    newest = messages[-1]
    if newest["role"] != "tool":
        arguments = {"origin": TOWN, "destination": "Trieste", "date": "2026-06-12"}
        function = {"name": "timetable", "arguments": json.dumps(arguments)}
        call = {"id": "call_timetable_1", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    train = json.loads(newest["content"])
    text = f"The {train['train']} leaves at {train['departs']} and is there at {train['arrives']}."
    return {"role": "assistant", "content": f"{text} It has {train['sleepers']} sleepers left."}
