"""What is known of a chat's endpoint: by its host, and by what it has refused since."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tokenmem.messages.endpoint_rules import EndpointRules

# Hosts that refuse what OpenAI does not document. Those of Azure are `<resource>.<one of these>`.
_STRICT = ("api.openai.com", "openai.azure.com", "cognitiveservices.azure.com")


@dataclass(slots=True)
class LearnedEndpoint:
    """What a chat has learned of its endpoint; shared by all of its turns.

    Attributes:
        rules: what the endpoint takes of messages.
        refused: parameters of a request that it has refused.
        may_be_strict: it has once taken the strictest form of a prompt that it had refused, and said nothing.
    """

    rules: EndpointRules = field(default_factory=EndpointRules)
    refused: set[str] = field(default_factory=set)
    may_be_strict: bool = False

    def took(self, rules: EndpointRules, *, is_strict: bool) -> None:
        """Remember by which rules a request was taken that had been refused by others.

        Args:
            rules: the rules.
            is_strict: they are the strictest, which nobody has taught: chance, unless it happens twice.
        """
        if not is_strict or self.may_be_strict:
            self.rules = rules
        self.may_be_strict = is_strict


def endpoint_of(
    client: object, tools: Sequence[Mapping[str, object]], *, has_instructions: bool
) -> LearnedEndpoint:
    """What is known of an endpoint before it is asked.

    Args:
        client: the chat's client; where it tells a `base_url`, its host.
        tools: the chat's tools, as the caller described them.
        has_instructions: whether it has instructions.
    """
    host = getattr(getattr(client, "base_url", None), "host", None)
    strict = isinstance(host, str) and any(host == each or host.endswith(f".{each}") for each in _STRICT)
    return LearnedEndpoint(
        EndpointRules(only_documented=strict, tool_names=_names(tools), has_instructions=has_instructions)
    )


def _names(tools: Collection[Mapping[str, object]]) -> frozenset[str]:
    described = [tool.get(str(tool.get("type"))) or tool for tool in tools]
    names = [each.get("name") for each in described if isinstance(each, Mapping)]
    return frozenset(name for name in names if isinstance(name, str))
