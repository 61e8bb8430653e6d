"""Token counters: exact against tiktoken, never below the bill, offline, robust, and known by name."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import tiktoken
import tiktoken_ext.openai_public as public  # type: ignore[import-untyped]
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenmem import costs, encodings
from tokenmem.errors import InvalidArgument, UnknownTokenCounter
from tokenmem.models import Message
from tokenmem.tokens import DEFAULT_COUNTER, TiktokenCounter, TokenCounter, TranscriptCounter, counter_named

SHIPPED = ("cl100k_base", "o200k_base")
RECORDINGS = Path(__file__).parents[2] / "shared" / "data" / "provider-recordings.jsonl"
O200K = TiktokenCounter("o200k_base")
REPLY_OPENING = 3  # tokens that end every prompt, whatever is in it


def _definition(name: str) -> dict[str, Any]:
    """What the installed tiktoken makes an encoding of, with its downloads replaced by shipped ranks."""
    loaded = encodings.load_encoding(name if name in SHIPPED else "cl100k_base")
    with pytest.MonkeyPatch.context() as patch:
        for loader in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
            patch.setattr(public, loader, lambda *_, **__: loaded._mergeable_ranks)
        definition = public.ENCODING_CONSTRUCTORS[name]()
    return {**definition, "explicit_n_vocab": None}


@pytest.fixture(scope="module", params=sorted(public.ENCODING_CONSTRUCTORS))
def encoding(request: pytest.FixtureRequest) -> tiktoken.Encoding:
    """Every pattern that tiktoken has; those whose ranks are not shipped merge by cl100k's."""
    definition = _definition(request.param)
    if request.param not in SHIPPED:
        definition["special_tokens"] = {}
    return tiktoken.Encoding(**definition)


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
        cwd=Path(__file__).parents[1],
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
        assert encodings._SHIPPED[name].pattern == definition["pat_str"]
        assert [encodings._SHIPPED[name].sha256] == hashes

    @pytest.mark.parametrize("name", SHIPPED)
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

    def test_they_count_offline_in_a_fresh_process_that_has_not_imported_tiktoken(self) -> None:
        code = (
            "import os, sys, socket; before = dict(os.environ)\n"
            "def refuse(*a, **k): raise OSError('no network')\n"
            "socket.socket.connect = socket.getaddrinfo = refuse\n"
            "from tokenmem.tokens import TiktokenCounter\n"
            "assert 'tiktoken' not in sys.modules\n"
            "print([TiktokenCounter(n).count_text('hello world') for n in "
            "('cl100k_base', 'o200k_base', 'o200k_harmony', 'gpt-4o', 'gpt-oss-20b')])\n"
            "assert dict(os.environ) == before"
        )
        done = _python(code, TIKTOKEN_CACHE_DIR="/nonexistent")
        assert (done.stdout.strip(), done.stderr) == ("[2, 2, 2, 2, 2]", "")

    @pytest.mark.parametrize("damage", [b"", b"no gzip", gzip.compress(b"YQ== 0\n"), None])
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
            "import os; from tokenmem import encodings\n"
            "with encodings._loading:\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        encodings.load_encoding('cl100k_base'); os._exit(0)\n"
            "print(os.waitpid(child, 0)[1])"
        )
        assert _python(code).stdout.strip() == "0"


class TestOtherEncodings:
    def test_without_a_network_the_error_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError("no network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
        counter = TiktokenCounter("davinci")
        assert counter.name == "r50k_base"
        with pytest.raises(UnknownTokenCounter, match=r"r50k_base.*TIKTOKEN_CACHE_DIR") as caught:
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
            TiktokenCounter("p50k_edit").count_text("hi")
        assert caught.value.__cause__ is error

    def test_an_interrupt_passes_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(_: str) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(tiktoken, "get_encoding", interrupt)
        with pytest.raises(KeyboardInterrupt):
            TiktokenCounter("p50k_edit").count_text("hi")


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
    @settings(max_examples=250, deadline=None)
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

    @settings(max_examples=250, deadline=None)
    @given(text=st.text(max_size=120) | st.text("aB1 '\n\r/.é中。\u0301", max_size=120))
    def test_every_boundary_splits_the_count(self, encoding: tiktoken.Encoding, text: str) -> None:
        whole = len(encoding.encode_ordinary(text))
        for boundary in encodings._BOUNDARY.finditer(text):
            left, right = text[: boundary.start()], text[boundary.start() :]
            assert len(encoding.encode_ordinary(left)) + len(encoding.encode_ordinary(right)) == whole

    @settings(max_examples=250, deadline=None)
    @given(before=words, run=whitespace, after=words)
    def test_whitespace_is_never_counted_below(
        self, encoding: tiktoken.Encoding, before: str, run: str, after: str
    ) -> None:
        text = before + run + after
        assert encodings.count_tokens(encoding, text) >= len(encoding.encode_ordinary(text))

    @settings(max_examples=250, deadline=None)
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


ODD_KEYS = [
    *("role", "content", "name", "tool_calls", "function_call", "function", "custom", "arguments", "type"),
    *("text", "image_url", "url", "detail", "input_audio", "data", "file", "file_data", "refusal"),
]


class TestChatMessages:
    def test_a_message_costs_openai_s_published_recipe(self) -> None:
        # The cookbook's example prompt: six messages, 129 tokens for gpt-4 and 124 for gpt-4o.
        example = [
            (
                "system",
                None,
                "You are a helpful, pattern-following assistant that translates corporate jargon "
                "into plain English.",
            ),
            ("system", "example_user", "New synergies will help drive top-line growth."),
            ("system", "example_assistant", "Things working well together will increase revenue."),
            (
                "system",
                "example_user",
                "Let's circle back when we have more bandwidth to touch base on "
                "opportunities for increased leverage.",
            ),
            ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
            (
                "user",
                None,
                "This late pivot means we don't have time to boil the ocean for the client deliverable.",
            ),
        ]
        prompt = [
            Message(role, content, payload={"role": role, "name": name} if name else None)
            for role, name, content in example
        ]
        costs = [sum(map(TiktokenCounter(model).count, prompt)) for model in ("gpt-4", "gpt-4o")]
        assert [cost + REPLY_OPENING for cost in costs] == [129, 124]

    def test_null_and_empty_content_cost_the_frame_only(self) -> None:
        assert O200K.count(Message.user("")) == O200K.count(Message.assistant(None)) == 4

    def test_keys_that_refer_or_describe_are_free(self) -> None:
        plain = Message.assistant("hi")
        payload: dict[str, Any] = {
            "role": "assistant",
            "refusal": None,
            "audio": None,
            "annotations": [],
            "id": "x" * 99,
        }
        assert O200K.count(Message("assistant", "hi", payload=payload)) == O200K.count(plain)
        result = Message.tool("hi", tool_call_id="call_" + "x" * 99)
        assert O200K.count(result) == O200K.count(Message("tool", "hi"))

    @pytest.mark.parametrize("key", ["refusal", "reasoning", "reasoning_content", "made_up"])
    def test_keys_that_bear_text_cost_it(self, key: str) -> None:
        message = Message(
            "assistant", None, payload={"role": "assistant", "content": None, key: "not a word"}
        )
        assert O200K.count(message) == 4 + O200K.count_text("not a word")

    def test_text_parts_count_each_by_itself(self) -> None:
        parts: list[dict[str, Any]] = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        assert O200K.count(Message.user(parts)) == 4 + 2

    def test_an_unknown_part_costs_its_json_text(self) -> None:
        part = {"type": "hologram", "depth": [1, 2]}
        expected = O200K.count_text('{"type":"hologram","depth":[1,2]}')
        assert O200K.count(Message.user([part])) == 4 + expected

    def test_a_call_costs_its_name_twice_and_its_arguments(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
        one = O200K.count(Message.assistant(tool_calls=[call])) - 4
        assert one == 11 + 2 * 2 + 1
        assert O200K.count(Message.assistant(tool_calls=[call, call])) - 4 == 2 * one + 5
        legacy = {"role": "assistant", "content": None, "function_call": call["function"]}
        assert O200K.count(Message("assistant", payload=legacy)) - 4 == one
        item = {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"}
        assert O200K.count(Message("assistant", kind="tool_call", payload=item)) - 4 == one
        custom = {"id": "c", "type": "custom", "custom": {"name": "get_weather", "input": "{}"}}
        assert O200K.count(Message.assistant(tool_calls=[custom])) - 4 == one

    @settings(max_examples=300, deadline=None)
    @given(data=st.data())
    def test_an_odd_payload_never_raises(self, data: st.DataObject) -> None:
        names = st.sampled_from(ODD_KEYS)
        kinds = st.sampled_from(
            [*costs._PARTS, "function_call", "data:image/png;base64,iVBORw0KGgo", "data:,"]
        )
        leaf = st.none() | st.booleans() | st.integers() | st.floats() | kinds | st.text(max_size=9)
        odd = st.recursive(leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=4))
        payload: Any = data.draw(odd)
        message = Message("user", data.draw(st.none() | st.text(max_size=9)), payload=payload)
        assert O200K.count(message) >= 4

    def test_values_that_are_not_json_never_raise(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        for value in ({1, 2}, b"bytes", endless, {("a",): 1}, "\ud800"):
            assert O200K.count(Message("user", payload={"role": "user", "x": value})) > 4


def _png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")


def _gif(width: int, height: int) -> bytes:
    return b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")


def _jpeg(width: int, height: int) -> bytes:
    profile = b"\xff\xe1" + (40_002).to_bytes(2, "big") + b"\xff\xc0" * 20_000
    frame = b"\xff\xff\xc2\0\x11\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\3"
    return b"\xff\xd8" + profile + frame


def _webp(kind: bytes, size: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0" + size + bytes(10)


def _webp_lossy(width: int, height: int) -> bytes:
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return _webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + size)


def _webp_lossless(width: int, height: int) -> bytes:
    return _webp(b"VP8L", b"\x2f" + (width - 1 | height - 1 << 14).to_bytes(4, "little"))


def _webp_extended(width: int, height: int) -> bytes:
    return _webp(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


FORMATS = [_png, _gif, _jpeg, _webp_lossy, _webp_lossless, _webp_extended]


def _data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _part_cost(part: dict[str, Any]) -> int:
    return O200K.count(Message.user([part])) - 4


class TestOtherParts:
    @pytest.mark.parametrize(
        ("width", "height", "tokens"),
        [
            (1024, 1024, 765),  # OpenAI's own examples
            (2048, 4096, 1105),
            (1, 1, 255),
            (512, 512, 255),
            (513, 512, 425),
            (2049, 513, 1445),
            (768, 2048, 1445),
            (10**6, 10**6, 765),
            (2**32 - 1, 1, 85 + 4 * 170),
        ],
    )
    def test_images_cost_openai_s_formula(self, width: int, height: int, tokens: int) -> None:
        assert costs.image_tokens(width, height) == costs.image_tokens(height, width) == tokens

    @given(st.integers(1, 10**5), st.integers(1, 10**5))
    def test_no_image_costs_more_than_the_maximum(self, width: int, height: int) -> None:
        assert 255 <= costs.image_tokens(width, height) <= 1445

    @pytest.mark.parametrize("image", FORMATS)
    def test_sizes_are_read_from_data_urls(self, image: Callable[[int, int], bytes]) -> None:
        assert costs.image_size(image(700, 300)) == (700, 300)
        url = _data_url(image(700, 300) + bytes(10**6))
        assert _part_cost({"type": "image_url", "image_url": {"url": url}}) == 85 + 2 * 170
        assert _part_cost({"type": "input_image", "image_url": url}) == 85 + 2 * 170

    def test_low_detail_is_85_and_an_unknown_size_the_maximum(self) -> None:
        url = "https://example.com/a.png"
        assert _part_cost({"type": "image_url", "image_url": {"url": url, "detail": "low"}}) == 85
        assert _part_cost({"type": "input_image", "image_url": url, "detail": "low"}) == 85
        for odd in (url, "data:image/png;base64,!!", _data_url(_png(0, 5)), "data:image/png", 7, None):
            assert _part_cost({"type": "image_url", "image_url": {"url": odd}}) == 1445

    @settings(max_examples=300)
    @given(st.sampled_from(FORMATS), st.data())
    def test_a_broken_image_never_raises(
        self, image: Callable[[int, int], bytes], data: st.DataObject
    ) -> None:
        broken = bytearray(image(20, 30)[: data.draw(st.integers(0, 60))])
        for position in data.draw(st.lists(st.integers(0, 59), max_size=5)):
            if position < len(broken):
                broken[position] = data.draw(st.integers(0, 255))
        size = costs.image_size(bytes(broken))
        assert size is None or min(size) > 0

    def test_audio_costs_ten_tokens_a_second(self) -> None:
        rate = (48_000).to_bytes(4, "little")
        wave = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\xc0\x5d\0\0" + rate + bytes(96_000 - 32)
        audio = {"data": base64.b64encode(wave).decode(), "format": "wav"}
        assert _part_cost({"type": "input_audio", "input_audio": audio}) == 20
        audio = {"data": base64.b64encode(bytes(8_000)).decode(), "format": "mp3"}
        assert _part_cost({"type": "input_audio", "input_audio": audio}) == 20

    def test_a_file_costs_by_the_page_and_a_text_its_text(self) -> None:
        pages = b"%PDF-1.4 /Type /Pages /Type /Page /Type/Page>>"
        assert _part_cost({"type": "file", "file": {"file_data": _data_url(pages)}}) == 2 * 3_000
        assert _part_cost({"type": "file", "file": {"file_id": "file-1"}}) == 3_000
        packed = b"%PDF-1.7" + bytes(120_000)
        assert _part_cost({"type": "file", "file": {"file_data": _data_url(packed)}}) == 3 * 3_000
        assert _part_cost({"type": "file", "file": {"file_data": _data_url(b"hello world")}}) == 2


class TestTranscripts:
    def test_lines_cost_what_langchain_counts(self) -> None:
        counter = TranscriptCounter("cl100k_base")
        messages = [
            Message.user("hi"),
            Message.assistant("whats up"),
            Message.user("not much you"),
            Message.assistant("not much"),
        ]
        assert [counter.line(message) for message in messages] == [
            "Human: hi", "AI: whats up", "Human: not much you", "AI: not much",
        ]  # fmt: skip
        assert [counter.count(message) for message in messages] == [3, 4, 5, 4]

    def test_every_role_has_its_prefix(self) -> None:
        counter = TranscriptCounter("cl100k_base", human_prefix="人类", ai_prefix="")
        roles = ("user", "assistant", "system", "developer", "function", "tool", "critic")
        assert [counter.line(Message(role, "x")) for role in roles] == [
            "人类: x", ": x", "System: x", "System: x", "Function: x", "Tool: x", "critic: x",
        ]  # fmt: skip
        assert counter.line(Message.assistant(None)) == ": "

    @given(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.sampled_from(["AI", "a:b", "%41", ""]),
    )
    def test_the_name_says_everything(self, human_prefix: str, ai_prefix: str) -> None:
        assume("\0" not in human_prefix)
        counter = TranscriptCounter("gpt-4", human_prefix, ai_prefix)
        assert counter.name.isascii()
        assert counter.name.startswith("transcript:cl100k_base:")
        assert counter_named(counter.name) == counter

    @pytest.mark.parametrize("prefix", ["a\0b", "\ud800", "x" * 300, "人" * 40, None, 7])
    def test_a_prefix_that_cannot_be_stored_is_refused(self, prefix: Any) -> None:
        with pytest.raises(InvalidArgument):
            TranscriptCounter("cl100k_base", human_prefix=prefix)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("o200k_base", "o200k_base"),
            ("gpt-4o", "o200k_base"),
            ("gpt-5-mini", "o200k_base"),
            ("gpt-4", "cl100k_base"),
            ("o200k_harmony", "o200k_harmony"),
            ("transcript:cl100k_base:Human:AI", "transcript:cl100k_base:Human:AI"),
        ],
    )
    def test_a_name_gives_its_counter_the_same_every_time(self, name: str, expected: str) -> None:
        counter = counter_named(name)
        assert counter.name == expected
        assert counter is counter_named(name)
        assert counter == pickle.loads(pickle.dumps(counter))
        assert isinstance(counter, TokenCounter)

    def test_the_default_is_shipped(self) -> None:
        assert TiktokenCounter() == counter_named(DEFAULT_COUNTER)

    @pytest.mark.parametrize(
        "name",
        ["", "nonsense", "transcript:", "transcript:cl100k_base:Human", "transcript:x:Human:AI",
         "transcript:cl100k_base:%48uman:AI", "transcript:cl100k_base:%FF:AI",
         "transcript:cl100k_base:%zz:AI",
         "transcript:cl100k_base:" + quote("人" * 40) + ":AI", None, 7, []],
    )  # fmt: skip
    def test_an_unknown_name_is_named_with_a_remedy(self, name: Any) -> None:
        with pytest.raises(UnknownTokenCounter, match=r"name one|write transcript:"):
            counter_named(name)

    def test_a_near_miss_is_suggested(self) -> None:
        with pytest.raises(UnknownTokenCounter, match=r"'o200k_bas'.*did you mean 'o200k_base'"):
            TiktokenCounter("o200k_bas")

    def test_a_frozen_class_of_the_user_s_own_is_a_counter(self) -> None:
        class Letters:
            name = "letters"

            def count(self, message: Message) -> int:
                return len(message.content or "")

        own: TokenCounter = Letters()
        assert isinstance(own, TokenCounter)
        assert not isinstance(object(), TokenCounter)


@pytest.fixture(scope="module")
def bills() -> list[dict[str, Any]]:
    """OpenAI's recorded calls that say what was billed."""
    if not RECORDINGS.exists():
        pytest.skip("the recordings of providers' calls are not beside this repository")
    rows = map(json.loads, RECORDINGS.read_text().splitlines())
    return [row for row in rows if "//api.openai.com/" in row["uri"] and row["usage"]]


def _stored(message: dict[str, Any]) -> Message:
    if isinstance(message.get("content"), str):
        payload = {key: value for key, value in message.items() if key != "content"}
        return Message(message["role"], message["content"], payload=payload)
    return Message(message["role"], payload=message)


def _counted(row: dict[str, Any]) -> int:
    counter = TiktokenCounter(row["model"])
    return REPLY_OPENING + sum(counter.count(_stored(message)) for message in row["messages"][:-1])


def _texts_only(row: dict[str, Any]) -> bool:
    return all(isinstance(message.get("content"), str) and not message.get("tool_calls")
               for message in row["messages"][:-1])  # fmt: skip


class TestAgainstTheBill:
    def test_text_is_exact_for_gpt_4o_and_4_1(self, bills: list[dict[str, Any]]) -> None:
        rows = [
            row for row in bills
            if row["model"].startswith(("gpt-4o", "gpt-4.1"))
            and "search" not in row["model"] and not row["tools"] and _texts_only(row)
        ]  # fmt: skip
        assert len(rows) >= 10
        assert [_counted(row) for row in rows] == [row["usage"]["prompt_tokens"] for row in rows]

    def test_no_prompt_without_tools_is_counted_below(self, bills: list[dict[str, Any]]) -> None:
        # o1-mini is told more than was sent, whatever was sent.
        rows = [row for row in bills if not row["tools"] and row["model"] != "o1-mini"]
        assert len(rows) >= 15
        assert [row["id"] for row in rows if _counted(row) < row["usage"]["prompt_tokens"]] == []

    def test_calls_cost_at_least_their_bill(self, bills: list[dict[str, Any]]) -> None:
        # What the schemas cost is known from a prompt of text alone with the same tools.
        schemas = {
            (row["model"], json.dumps(row["tools"])): row["usage"]["prompt_tokens"] - _counted(row)
            for row in bills if row["tools"] and _texts_only(row)
        }  # fmt: skip
        compared = 0
        for row in bills:
            schema = schemas.get((row["model"], json.dumps(row["tools"])))
            calls = sum(len(message.get("tool_calls") or ()) for message in row["messages"][:-1])
            if schema is None or not calls:
                continue
            over = _counted(row) + schema - row["usage"]["prompt_tokens"]
            only_calls = all(isinstance(m.get("content"), str | None) for m in row["messages"][:-1])
            assert 0 <= over <= (6 * calls if only_calls else 3_000)
            compared += 1
        assert compared >= 5
