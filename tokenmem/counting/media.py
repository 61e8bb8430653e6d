"""What images, audio and files cost, in tokens, by their own bytes."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

CountText = Callable[[str], int]

# OpenAI, "Images and vision", platform.openai.com/docs/guides/images-vision#calculating-costs, the table's
# row for gpt-4o, gpt-4.1 and gpt-4.5: an image is 85 at low detail; else it is scaled to fit 2,048 by 2,048,
# then to 768 on its shortest side, and every tile of 512 by 512 is 170 more. (An image is not scaled up.)
_IMAGE_BASE = 85
_IMAGE_TILE = 170
IMAGE_TILES = 8  # at most: 768 by 2,048 is two by four
_IMAGE_MAXIMUM = _IMAGE_BASE + IMAGE_TILES * _IMAGE_TILE
_IMAGE_HEADER_CHARACTERS = 350_000  # of base64: room for a JPEG's embedded profiles before its size

# OpenAI, "Managing costs" of the Realtime API, platform.openai.com/docs/guides/realtime-costs: what a user
# says is 1 token per 100 ms. The length of a compressed recording is taken from 32 kbit/s, the lowest
# bit rate of MPEG-1 Layer III (ISO/IEC 11172-3), so better sound is over-counted.
_AUDIO_PER_SECOND = 10
_AUDIO_BYTES_PER_SECOND = 4_000

# OpenAI, "File inputs", platform.openai.com/docs/guides/pdf-files: a page is billed as its text and its
# image. No price is given. Anthropic's, docs.anthropic.com/en/docs/build-with-claude/pdf-support, is up to
# 3,000 for a page's text, which is above one image at its maximum and a page of prose. Recordings: 216 to
# 950 for a file of one page. Where a page's objects are compressed, 50 kB are taken for a page.
_FILE_PAGE = 3_000
_FILE_PAGE_BYTES = 50_000


def _image_part(part: Mapping[str, object], _: CountText) -> int:
    is_low, size = image_of(part)
    if is_low:
        return _IMAGE_BASE
    return _IMAGE_MAXIMUM if size is None else image_tokens(*size)


def image_of(part: Mapping[str, object]) -> tuple[bool, tuple[int, int] | None]:
    """Whether the part asks for low detail, else the image's width and height in pixels where it tells."""
    image = part.get("image_url")
    url, detail = (image.get("url"), image.get("detail")) if isinstance(image, Mapping) else (image, None)
    if "low" in (detail, part.get("detail")):
        return True, None
    return False, image_size(_decoded(url, _IMAGE_HEADER_CHARACTERS))


def image_tokens(width: int, height: int) -> int:
    """What an image of this size in pixels, both at least 1, costs at high detail, in tokens."""
    return _IMAGE_BASE + _IMAGE_TILE * image_tiles(width, height)


def image_tiles(width: int, height: int) -> int:
    """How many tiles cover an image of this size in pixels, both at least 1, after it is scaled down."""
    scale = min(Fraction(1), Fraction(2048, max(width, height)), Fraction(768, min(width, height)))
    return math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, from the start of a PNG, GIF, WEBP or JPEG file; None where unclear."""
    size: tuple[int, int] | None = None
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    elif data.startswith((b"GIF87a", b"GIF89a")):
        size = _little(data, 6, 2), _little(data, 8, 2)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = _webp_size(data)
    elif data.startswith(b"\xff\xd8"):
        size = _jpeg_size(data)
    return size if size is not None and min(size) > 0 else None


def _little(data: bytes, start: int, length: int) -> int:
    return int.from_bytes(data[start : start + length], "little")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Lossy, lossless and extended files (RFC 9649, sections 2.5 to 2.7, and RFC 6386, section 9.1)."""
    if len(data) < 30:
        return None
    if data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    if data[12:16] == b"VP8L" and data[20] == 0x2F:
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8X":
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the frame header, any of SOF0 to SOF15 (ITU-T T.81, table B.1), past the segments before it."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        if marker == 0xFF:  # a fill byte
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _audio_part(part: Mapping[str, object], _: CountText) -> int | None:
    audio = part.get("input_audio")
    data = _decoded(audio.get("data")) if isinstance(audio, Mapping) else b""
    if not data:
        return None
    rate = _AUDIO_BYTES_PER_SECOND
    if data[:4] == b"RIFF" and data[8:16] == b"WAVEfmt " and _little(data, 28, 4) > 0:
        rate = _little(data, 28, 4)  # nAvgBytesPerSec of the format chunk
    return math.ceil(len(data) * _AUDIO_PER_SECOND / rate)


def _file_part(part: Mapping[str, object], count_text: CountText) -> int:
    file = part.get("file", part)
    data = _decoded(file.get("file_data")) if isinstance(file, Mapping) else b""
    if data and not data.startswith(b"%PDF"):
        return count_text(data.decode("utf-8", "replace"))
    pages = sum(1 for _ in re.finditer(rb"/Type\s*/Page(?![A-Za-z])", data))
    return _FILE_PAGE * (pages or 1 + len(data) // _FILE_PAGE_BYTES)


def _decoded(source: object, characters: int | None = None) -> bytes:
    """The bytes of a base64 text or data: URL, of its first characters only if so asked; else b""."""
    if not isinstance(source, str) or source.startswith(("http:", "https:")):
        return b""
    start = source.find(",", 0, 300) + 1 if source.startswith("data:") else 0
    end = len(source) if characters is None else start + characters
    try:
        return binascii.a2b_base64(source[start:end] + "==")
    except ValueError:  # binascii.Error is one
        return b""
