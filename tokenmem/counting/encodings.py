"""Texts to numbers of tokens: the encodings, how they are loaded, and long texts counted in pieces."""

from __future__ import annotations

import difflib
import gzip
import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenmem.errors import UnknownTokenCounter
from tokenmem.forks import ForkSafeLock

if TYPE_CHECKING:
    from tiktoken import Encoding


@dataclass(frozen=True, slots=True)
class _Shipped:
    sha256: str  # of the rank file after decompression
    pattern: str  # what tiktoken splits a text by, before it merges bytes


# Hashes and patterns are those of tiktoken 0.14, tiktoken_ext/openai_public.py. They are repeated here
# because its functions there cannot be asked for them without a download; a test compares them with the
# installed tiktoken.
_SHIPPED = {
    "cl100k_base": _Shipped(
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern=r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"""
        r"""| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",
    ),
    "o200k_base": _Shipped(
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern=r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"""
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
        r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"""
        r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
        r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    ),
    "r50k_base": _Shipped(
        sha256="306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
        pattern=r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    ),
}
# Encodings that differ from another one in special tokens only, which are never counted as such here (same
# source), or, gpt2, in nothing: its file in another form holds the same tokens in the same order.
_SAME_TEXT_TOKENS = {"o200k_harmony": "o200k_base", "p50k_edit": "p50k_base", "gpt2": "r50k_base"}

# p50k_base is r50k_base and the runs of 2 to 25 spaces, whose ranks begin behind that of <|endoftext|>.
_SPACES = {b" " * length: 50_255 + length for length in range(2, 26)}

_REMEDY = (
    f"choose one that is shipped ({', '.join(sorted(_SHIPPED))}), or let tiktoken download this one once and "
    f"keep it in the directory that the environment variable TIKTOKEN_CACHE_DIR names"
)

_loaded: dict[str, Encoding] = {}
_loading = ForkSafeLock()


def encoding_name(name: str) -> str:
    """The encoding that an encoding's or a model's name stands for; nothing is loaded.

    Raises UnknownTokenCounter where tiktoken's tables know neither.
    """
    if name in _SHIPPED or name in _SAME_TEXT_TOKENS:
        return name
    import tiktoken
    from tiktoken.model import MODEL_TO_ENCODING

    try:
        encodings = tiktoken.list_encoding_names()
        return name if name in encodings else tiktoken.encoding_name_for_model(name)
    except KeyError:
        close = difflib.get_close_matches(name, [*encodings, *MODEL_TO_ENCODING], n=1)
        hint = f"did you mean {close[0]!r}? Else " if close else ""
        raise UnknownTokenCounter(
            f"no token counter is called {name!r}, and tiktoken knows no encoding or model of that name; "
            f"{hint}name one of {', '.join(sorted(encodings))}, or pass an object with `name` and `count`"
        ) from None
    except ValueError as error:  # a broken plugin of tiktoken's
        raise UnknownTokenCounter(f"tiktoken cannot list its encodings for {name!r}: {error}") from error


def load_encoding(name: str) -> Encoding:
    """The encoding of this name, loaded once a process, by whichever thread needs it first.

    Raises UnknownTokenCounter where its data is damaged, or a plugin of tiktoken's cannot load it.
    """
    name = _SAME_TEXT_TOKENS.get(name, name)
    found = _loaded.get(name)
    if found is None:
        with _loading:
            found = _loaded.get(name)
            if found is None:
                found = _loaded[name] = _load(name)
    return found


def _load(name: str) -> Encoding:
    import tiktoken

    file_name = "r50k_base" if name == "p50k_base" else name
    shipped = _SHIPPED.get(file_name)
    if shipped is not None:
        ranks = _ranks(file_name, shipped.sha256)
        if name == "p50k_base":
            ranks |= _SPACES
        # No special tokens: only encode_ordinary is ever called, and it takes them for plain text.
        return tiktoken.Encoding(name, pat_str=shipped.pattern, mergeable_ranks=ranks, special_tokens={})
    try:
        return tiktoken.get_encoding(name)
    except Exception as error:  # a download fails in as many ways as there are networks
        raise UnknownTokenCounter(
            f"tiktoken cannot load the encoding {name!r} ({type(error).__name__}); {_REMEDY}"
        ) from error


def _ranks(name: str, sha256: str) -> dict[bytes, int]:
    from binascii import a2b_base64
    from importlib.resources import files

    file_name = f"{name}.tiktoken.gz"
    remedy = "install tokenmem again"
    try:
        data = gzip.decompress((files("tokenmem.counting") / "ranks" / file_name).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UnknownTokenCounter(f"the rank file {file_name} cannot be read ({error}); {remedy}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnknownTokenCounter(f"the rank file {file_name} is damaged; {remedy}")
    # A line is `<base64 of the token> <rank>`, and in these files the rank is the line's number; the
    # hash makes that a fact. So the numbers need no parsing, which is a fifth of the time.
    tokens = data.split()[::2]
    return dict(zip(map(a2b_base64, tokens), range(len(tokens)), strict=True))


# A long text is counted in pieces of _PIECE to twice _PIECE characters. Upper bound: tiktoken's regular
# expression engine panics with a Rust exception at a million steps of backtracking, which a run of that
# many spaces takes, and a single run of anything costs more than linear time. 100,000 characters of one
# kind are still well. Twice _PIECE is a multiple of 3 for the digits (see _forced_cut).
_PIECE = 24_576

# A place that no tiktoken pattern can match across, so that the pieces' counts add up exactly:
# - before a space that follows anything but whitespace. A space is always the first character of its
#   match or inside a run of whitespace. Nothing looks back, and what looks ahead (`\s+(?!\S)`, `\s++$`)
#   only ever does so from whitespace, which does not end the piece.
# - behind a letter or digit, before whitespace or punctuation: a run of letters or digits is followed,
#   within one match, by nothing but a contraction, hence not by an apostrophe. (Punctuation may be
#   followed by newlines and slashes, so it is not on the left side.)
# - between a letter and the digit behind it: they are never in one match.
# Letters are those that every Unicode version since 3.2 calls letters.
_LETTER = r"A-Za-z\u3041-\u3094\u30a1-\u30fa\u3400-\u4db5\u4e00-\u9fa5\uac00-\ud7a3"
_PUNCTUATION = r"!-&(-/:-@\[-`{-~\u2010-\u2027\u3001-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20"
_BOUNDARY = re.compile(
    rf"(?<=[{_LETTER}0-9])(?=[\t\n\r{_PUNCTUATION}])|(?<=\S)(?= )|(?<=[{_LETTER}])(?=[0-9])"
)

# Where a run has no such place it is cut anyway, and this many tokens are added. Cutting can save tokens:
# merging is greedy, and a run of one character ends in up to seven remainders (64, 32, … 1 of a token of
# 128). The most that random runs of every kind saved at one cut was three.
_FORCED_CUT_TOKENS = 8


def count_tokens(encoding: Encoding, text: str) -> int:
    """How many tokens the encoding makes of the text; special tokens in it are plain text.

    Exact, in linear time and for any length, for the patterns of all encodings that tiktoken ships; above
    the exact count by at most 8 tokens in 24,576 characters inside a run of more characters than that
    without a word's end in it, never below. A lone surrogate counts as U+FFFD.
    """
    if len(text) <= 2 * _PIECE:
        return len(encoding.encode_ordinary(text))
    return sum(len(encoding.encode_ordinary(piece)) + extra for piece, extra in _pieces(_valid(text)))


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """The text in pieces, each with the tokens to add for the cut at its end."""
    start = 0
    while len(text) - start > 2 * _PIECE:
        boundary = _BOUNDARY.search(text, start + _PIECE, start + 2 * _PIECE)
        end = _forced_cut(text, start) if boundary is None else boundary.start()
        yield text[start:end], _FORCED_CUT_TOKENS if boundary is None else 0
        start = end
    yield text[start:], 0


def _forced_cut(text: str, start: int) -> int:
    """Where to cut a piece without a boundary: not inside a run of digits, unless at a multiple of three.

    The newer patterns take digits by threes from the run's start. Another phase could make every group of
    three cheaper, not only the one at the cut.
    """
    end = first = start + 2 * _PIECE
    while first > start and unicodedata.category(text[first - 1]).startswith("N"):
        first -= 1
    return first if first > start else end


def _valid(text: str) -> str:
    """The text as tiktoken itself repairs it: pairs of surrogates joined, lone ones replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
