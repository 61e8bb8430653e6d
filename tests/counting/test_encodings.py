"""Encodings: exact against tiktoken, offline, and robust against long and odd texts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tiktoken_ext.openai_public as public  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken import registry
from tiktoken.load import load_tiktoken_bpe
from tiktoken.model import MODEL_TO_ENCODING

from tokenmem.counting import encodings
from tokenmem.counting.counters import TiktokenCounter
from tokenmem.errors import UnknownTokenCounter

FILES = ("cl100k_base", "o200k_base", "r50k_base")
SHIPPED = (*FILES, "p50k_base")
O200K = TiktokenCounter("o200k_base")


def _definition(name: str) -> dict[str, Any]:
    """What the installed tiktoken makes an encoding of, with its downloads replaced by shipped ranks."""
    loaded = encodings.load_encoding(name)
    with pytest.MonkeyPatch.context() as patch:
        for loader in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
            patch.setattr(public, loader, lambda *_, **__: loaded._mergeable_ranks)
        definition = public.ENCODING_CONSTRUCTORS[name]()
    return {**definition, "explicit_n_vocab": None}


def _file_of(encoding: tiktoken.Encoding) -> bytes:
    """The rank file that OpenAI publishes for the encoding, made again of its tokens."""
    tokens = sorted(encoding._mergeable_ranks.items(), key=lambda pair: pair[1])
    return b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in tokens)


@pytest.fixture(scope="module", params=sorted(public.ENCODING_CONSTRUCTORS))
def encoding(request: pytest.FixtureRequest) -> tiktoken.Encoding:
    """Every encoding that tiktoken has."""
    return tiktoken.Encoding(**_definition(request.param))


@pytest.fixture(scope="class")
def short_pieces() -> Iterator[None]:
    """Pieces of 12 to 24 characters, so that short texts are cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "_PIECE", 12)
        yield


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
    )


class TestTheShippedEncodings:
    @pytest.mark.parametrize("name", SHIPPED)
    def test_they_are_those_of_the_installed_tiktoken(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hashes: list[str] = []

        def note_hash(url: str, expected_hash: str) -> dict[bytes, int]:
            hashes.append(expected_hash)
            return {}

        monkeypatch.setattr(public, "load_tiktoken_bpe", note_hash)
        definition = public.ENCODING_CONSTRUCTORS[name]()
        loaded = encodings.load_encoding(name)
        assert loaded._pat_str == definition["pat_str"]
        assert [hashlib.sha256(_file_of(loaded)).hexdigest()] == hashes

    @pytest.mark.parametrize("name", FILES)
    def test_every_token_has_the_rank_that_its_line_says(self, name: str) -> None:
        file = Path(encodings.__file__).parent / "ranks" / f"{name}.tiktoken.gz"
        data = gzip.decompress(file.read_bytes())
        assert hashlib.sha256(data).hexdigest() in (file.parent / "NOTICE").read_text()
        pairs = (line.split() for line in data.splitlines())
        assert encodings.load_encoding(name)._mergeable_ranks == {
            base64.b64decode(token): int(rank) for token, rank in pairs
        }

    def test_harmony_differs_from_o200k_in_special_tokens_only(self) -> None:
        harmony, base = _definition("o200k_base"), _definition("o200k_harmony")
        assert harmony["pat_str"] == base["pat_str"]
        assert TiktokenCounter("o200k_harmony").count_text("<|start|>hi") == O200K.count_text("<|start|>hi")

    def test_p50k_edit_differs_from_p50k_in_special_tokens_only(self) -> None:
        edit, base = _definition("p50k_edit"), _definition("p50k_base")
        assert {**edit, "name": "", "special_tokens": {}} == {**base, "name": "", "special_tokens": {}}

    def test_gpt2_is_r50k_in_another_form(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its file lists pairs to merge, not tokens, and both have been compared: this is that file."""
        files: list[str] = []
        monkeypatch.setattr(
            public,
            "data_gym_to_mergeable_bpe_ranks",
            lambda vocab_bpe_hash, **_: files.append(vocab_bpe_hash),
        )
        gpt2, r50k = public.ENCODING_CONSTRUCTORS["gpt2"](), _definition("r50k_base")
        assert files == ["1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"]
        assert (gpt2["pat_str"], gpt2["special_tokens"]) == (r50k["pat_str"], r50k["special_tokens"])

    def test_they_count_offline_in_a_fresh_process_that_has_not_imported_tiktoken(self) -> None:
        code = (
            "import os, sys, socket; before = dict(os.environ)\n"
            "def refuse(*a, **k): raise OSError('no network')\n"
            "socket.socket.connect = socket.getaddrinfo = refuse\n"
            "from tokenmem.counting.counters import TiktokenCounter\n"
            "assert 'tiktoken' not in sys.modules\n"
            "print([TiktokenCounter(n).count_text('hello world') for n in "
            "('cl100k_base', 'o200k_base', 'o200k_harmony', 'gpt-4o', 'gpt-oss-20b', 'gpt2', 'p50k_base')])\n"
            "assert dict(os.environ) == before"
        )
        done = _python(code, TIKTOKEN_CACHE_DIR="/nonexistent")
        assert (done.stdout.strip(), done.stderr) == ("[2, 2, 2, 2, 2, 2, 2]", "")

    @pytest.mark.usefixtures("no_network")
    def test_every_encoding_and_model_of_tiktoken_counts_without_a_network(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(encodings, "_loaded", {})
        names = [*tiktoken.list_encoding_names(), *MODEL_TO_ENCODING]
        assert len(names) > 40
        counts = {name: TiktokenCounter(name).count_text("hello world") for name in names}
        assert counts == dict.fromkeys(names, 2)

    def test_the_old_encodings_differ_where_they_are_known_to(self) -> None:
        """GPT-3 takes seven spaces of an indentation as seven tokens, Codex and what came later as one."""
        text = "def f():\n        return 1"
        counts = [TiktokenCounter(name).count_text(text) for name in ("davinci", "code-davinci-002", "gpt-4")]
        assert counts == [13, 7, 7]

    # mtime: the id of a case is made of its bytes, and must not depend on when it was collected
    @pytest.mark.parametrize("damage", [b"", b"no gzip", gzip.compress(b"YQ== 0\n", mtime=0), None])
    def test_a_damaged_file_is_an_error_never_a_wrong_count(
        self, damage: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "ranks").mkdir()
        if damage is not None:
            (tmp_path / "ranks" / "o200k_base.tiktoken.gz").write_bytes(damage)
        monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
        monkeypatch.setattr(encodings, "_loaded", {})
        with pytest.raises(UnknownTokenCounter, match="install tokenmem again"):
            O200K.count_text("hi")

    def test_threads_load_an_encoding_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loads: list[str] = []
        real = encodings.load_encoding("cl100k_base")
        monkeypatch.setattr(encodings, "_loaded", {})
        barrier = threading.Barrier(8)

        def note_load(name: str) -> tiktoken.Encoding:
            loads.append(name)
            return real

        monkeypatch.setattr(encodings, "_load", note_load)

        def load() -> None:
            barrier.wait()
            assert encodings.load_encoding("cl100k_base") is real

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert loads == ["cl100k_base"]

    @pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
    def test_a_child_forked_while_loading_can_load(self) -> None:
        code = (
            "import os; from tokenmem.counting import encodings\n"
            "with encodings._loading:\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        encodings.load_encoding('cl100k_base'); os._exit(0)\n"
            "print(os.waitpid(child, 0)[1])"
        )
        assert _python(code).stdout.strip() == "0"


class TestEncodingsOfPlugins:
    @pytest.fixture(autouse=True)
    def plugin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An encoding that a plugin of tiktoken's adds, and downloads."""

        def download() -> dict[str, Any]:
            return {"mergeable_ranks": load_tiktoken_bpe("https://plugin.invalid/ranks", "0" * 64)}

        monkeypatch.setitem(public.ENCODING_CONSTRUCTORS, "of_a_plugin", download)
        monkeypatch.setattr(
            registry, "ENCODING_CONSTRUCTORS", None
        )  # to be collected anew, and then restored

    @pytest.mark.usefixtures("no_network")
    def test_without_a_network_the_error_says_what_to_do(self) -> None:
        counter = TiktokenCounter("of_a_plugin")
        assert counter.name == "of_a_plugin"
        with pytest.raises(
            UnknownTokenCounter, match=r"of_a_plugin.*r50k_base.*TIKTOKEN_CACHE_DIR"
        ) as caught:
            counter.count_text("hi")
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), RuntimeError("x")])
    def test_any_failure_of_tiktoken_is_an_unknown_counter(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: str) -> None:
            raise error

        monkeypatch.setattr(tiktoken, "get_encoding", fail)
        with pytest.raises(UnknownTokenCounter) as caught:
            TiktokenCounter("of_a_plugin").count_text("hi")
        assert caught.value.__cause__ is error

    def test_an_interrupt_passes_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(_: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(tiktoken, "get_encoding", interrupt)
        with pytest.raises(KeyboardInterrupt):
            TiktokenCounter("of_a_plugin").count_text("hi")


WORDS = """
    a The DON'T don't it's I'LL x1 42 1234567 3.14 naïve e\u0301te\u0301 日本語 天气很好 中文，标点。 ひらがな
    안녕 привет สวัสดี مرحبا हिन्दी ٣٤٥ ½ Ⅳ 😀 👨\u200d👩\u200d👧 ǅ ʰ a/b http://x.y/z?q=1 {} "} ]; // ... ---
    <|endoftext|> <|im_start|> \ufeff \0 ’s ＇ ſ
"""
words = st.sampled_from(WORDS.split())
gaps = st.sampled_from(
    ["", "", " ", " ", " ", "  ", "\n", "\n\n", "\r\n", " \n", "\n  ", "\t", "\u00a0", "\u3000"]
)
ordinary = st.lists(st.tuples(words, gaps), max_size=40).map(lambda pairs: "".join(w + g for w, g in pairs))
whitespace = st.lists(
    st.tuples(st.sampled_from(" \t\n\r\v\f\u0085\u00a0\u2003\u2028\u3000"), st.integers(1, 40)), max_size=8
).map(lambda runs: "".join(character * count for character, count in runs))


@pytest.mark.usefixtures("short_pieces")
class TestShortPieces:
    @settings(max_examples=100, deadline=None)
    @given(text=ordinary)
    def test_pieces_count_exactly_and_a_forced_cut_never_lowers(
        self, encoding: tiktoken.Encoding, text: str
    ) -> None:
        pieces = list(encodings._pieces(encodings._valid(text)))
        assert "".join(piece for piece, _ in pieces) == text
        exact, counted = len(encoding.encode_ordinary(text)), encodings.count_tokens(encoding, text)
        forced = sum(extra for _, extra in pieces)
        assert exact <= counted <= exact + 2 * forced
        assert forced or counted == exact

    @settings(max_examples=100, deadline=None)
    @given(text=st.text(max_size=120) | st.text("aB1 '\n\r/.é中。\u0301", max_size=120))
    def test_every_boundary_splits_the_count(self, encoding: tiktoken.Encoding, text: str) -> None:
        whole = len(encoding.encode_ordinary(text))
        for boundary in encodings._BOUNDARY.finditer(text):
            left, right = text[: boundary.start()], text[boundary.start() :]
            assert len(encoding.encode_ordinary(left)) + len(encoding.encode_ordinary(right)) == whole

    @settings(max_examples=100, deadline=None)
    @given(before=words, run=whitespace, after=words)
    def test_whitespace_is_never_counted_below(
        self, encoding: tiktoken.Encoding, before: str, run: str, after: str
    ) -> None:
        text = before + run + after
        assert encodings.count_tokens(encoding, text) >= len(encoding.encode_ordinary(text))

    @settings(max_examples=100, deadline=None)
    @given(
        text=st.sampled_from(
            ["0123456789", "٣٤٥0", "aB", "x", "-=", "./\n\r", "中的天", "😀\u200d", "e\u0301", "िक"]
        ).flatmap(lambda alphabet: st.text(alphabet, min_size=25, max_size=200))
    )
    def test_runs_of_one_kind_are_never_counted_below(self, encoding: tiktoken.Encoding, text: str) -> None:
        assert encodings.count_tokens(encoding, text) >= len(encoding.encode_ordinary(text))

    @settings(max_examples=100, deadline=None)
    @given(text=st.text(st.characters(categories=["Cs"]) | st.sampled_from("a \n😀"), max_size=100))
    def test_surrogates_count_as_tiktoken_repairs_them(self, encoding: tiktoken.Encoding, text: str) -> None:
        assert encodings.count_tokens(encoding, text) >= len(encoding.encode_ordinary(text))


class TestLongTexts:
    @pytest.mark.parametrize("name", SHIPPED)
    def test_a_long_text_is_exact_at_the_real_piece_size(self, name: str) -> None:
        vocabulary = [
            "the",
            "Überraschung",
            "don't",
            "日本語、",
            "12345",
            "{\n  ",
            "}\n",
            "\n\n",
            "x=1;",
            "😀",
        ]
        text = " ".join(random.Random(7).choices(vocabulary, k=60_000))
        assert len(text) > 4 * encodings._PIECE
        exact = len(encodings.load_encoding(name).encode_ordinary(text))
        assert TiktokenCounter(name).count_text(text) == exact

    @pytest.mark.parametrize("name", SHIPPED)
    @pytest.mark.parametrize(
        "text",
        [" " * 10**6, "\t" * 10**6, " " * 10**6 + "x", " \u00a0" * 500_000, "\n" * 10**6, "-" * 10**6],
        ids=["spaces", "tabs", "spaces and a letter", "mixed spaces", "newlines", "punctuation"],
    )
    def test_a_million_of_one_kind(self, name: str, text: str) -> None:
        encoding = encodings.load_encoding(name)
        part = len(encoding.encode_ordinary(text[:49_152])) * len(text) // 49_152
        assert part <= TiktokenCounter(name).count_text(text) <= 1.1 * part + 10

    def test_ten_megabytes(self) -> None:
        text = "The quick brown fox jumps over the lazy dog.\n" * 222_223
        one = O200K.count_text(text[:45])
        assert len(text) > 10**7
        assert O200K.count_text(text) == 222_223 * one

    def test_what_the_piece_size_must_be(self) -> None:
        assert 2 * encodings._PIECE % 3 == 0
        assert 2 * encodings._PIECE <= 100_000

    @pytest.mark.parametrize("name", SHIPPED)
    def test_special_tokens_are_plain_text(self, name: str) -> None:
        assert TiktokenCounter(name).count_text("<|endoftext|>") == 7
