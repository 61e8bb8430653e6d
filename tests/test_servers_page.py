"""`docs/servers.md` tells of every kind of server that there is a profile of, in its words."""

import pytest

from tests.support.servers_page import FOOT, HEAD, PAGE, line
from tokenmem.testing import PROFILES, ModelServer


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_its_line(name: str) -> None:
    told = line(PROFILES[name], None).removesuffix(" |")
    assert [each for each in PAGE.read_text().splitlines() if each.startswith(told)]


def test_the_page_is_as_scripts_servers_writes_it() -> None:
    text = PAGE.read_text()
    assert text.startswith(HEAD)
    assert text.endswith(FOOT)
    assert text.count("\n| `") == len(PROFILES)
    assert "| 0 | 0 | 0 |" not in text, "the figures are of a run"


def test_a_profile_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="use one of 'no extra keys'"):
        ModelServer([], profile="no such server")
