"""What images, audio and files cost, from the start of their data."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmem.counting import media
from tokenmem.counting.counters import TiktokenCounter
from tokenmem.messages.message import Message

O200K = TiktokenCounter("o200k_base")


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
        assert media.image_tokens(width, height) == media.image_tokens(height, width) == tokens

    @given(st.integers(1, 10**5), st.integers(1, 10**5))
    def test_no_image_costs_more_than_the_maximum(self, width: int, height: int) -> None:
        assert 255 <= media.image_tokens(width, height) <= 1445

    @pytest.mark.parametrize("image", FORMATS)
    def test_sizes_are_read_from_data_urls(self, image: Callable[[int, int], bytes]) -> None:
        assert media.image_size(image(700, 300)) == (700, 300)
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
        size = media.image_size(bytes(broken))
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


class TestResponsesItems:
    """Items of the Responses API that have no role, as `parse_messages` stores them."""

    def test_a_call_costs_what_a_chat_message_s_call_costs(self) -> None:
        function = {"name": "get_weather", "arguments": "{}"}
        chat = Message.assistant(tool_calls=[{"id": "c", "type": "function", "function": function}])
        item = {"type": "function_call", "id": "fc_1", "call_id": "c", "status": "completed", **function}
        assert O200K.count(Message("assistant", kind="tool_call", payload=item)) == O200K.count(chat)
        custom = {"type": "custom_tool_call", "call_id": "c", "name": "get_weather", "input": "{}"}
        assert O200K.count(Message("assistant", kind="tool_call", payload=custom)) == O200K.count(chat)

    def test_an_output_costs_what_a_tool_message_costs(self) -> None:
        chat = O200K.count(Message.tool("sunny in Paris", tool_call_id="c"))
        item = {"type": "function_call_output", "call_id": "c"}
        text = Message("tool", "sunny in Paris", kind="tool_result", payload=item)
        parts = [{"type": "input_text", "text": "sunny in Paris"}]
        listed = Message("tool", "sunny in Paris", kind="tool_result", payload={**item, "output": parts})
        assert O200K.count(text) == O200K.count(listed) == chat

    def test_reasoning_costs_by_its_ciphertext_else_its_summary(self) -> None:
        summary = [{"type": "summary_text", "text": "not a word"}]
        item: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": summary}
        open_ = Message("assistant", "not a word", kind="reasoning", payload=item)
        assert O200K.count(open_) == 4 + O200K.count_text("not a word")
        sealed = Message("assistant", "x", kind="reasoning", payload={**item, "encrypted_content": "g" * 401})
        assert O200K.count(sealed) == 4 + 101

    def test_an_unknown_item_costs_its_values(self) -> None:
        item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "rome"}}
        expected = O200K.count_text('{"query":"rome"}')
        assert O200K.count(Message("assistant", kind="other", payload=item)) == 4 + expected

    def test_the_mark_of_a_reply_cut_off_is_free(self) -> None:
        payload = {"role": "assistant", "tokenmem_partial": {"tool_calls": [{"name": "half a name"}]}}
        cut_off = Message("assistant", "Once upon", payload=payload)
        assert O200K.count(cut_off) == O200K.count(Message.assistant("Once upon"))
