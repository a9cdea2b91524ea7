"""Payloads: what is stored comes back bit by bit, alone and stitched, and damage does not go unnoticed."""

import gzip
import hashlib
import json
import math
import struct
import zlib

import numpy as np
import orjson
import pytest
from hypothesis import given, strategies as st
from isal import isal_zlib

from tests.support.payloads import bits
from yaptide.domain.errors import InvalidInput
from yaptide.persistence import codec
from yaptide.persistence.codec import Stored

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | finite | text
documents = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)
#: Up to several blocks of deflate data and beyond the window that it may refer back to.
contents = st.binary() | st.builds(lambda piece, times: piece * times, st.binary(max_size=40), st.integers(1, 20_000))


@given(documents)
def test_documents_come_back(value):
    assert codec.decode_payload(codec.encode_payload(value).data) == value


@given(st.lists(finite))
def test_floats_come_back_bit_by_bit(values):
    assert list(map(bits, codec.decode_payload(codec.encode_payload(values).data))) == list(map(bits, values))


@given(st.lists(finite))
def test_numpy_arrays_are_written_like_lists(values):
    assert codec.encode_payload(np.array(values, dtype=np.float64)).data == codec.encode_payload(values).data


@given(documents, st.integers(0, 3 * codec.NUMBERS), st.sampled_from([np.float32, np.float64, np.int64]))
def test_a_text_in_pieces_is_the_same_text(value, count, kind):
    document = {"a": value, "values": np.arange(count).astype(kind) / kind(7), "b": {"c": np.zeros(2)}}
    pieces = list(codec.json_pieces(document))
    assert b"".join(pieces) == codec.decode_text(codec.encode_payload(document).data)
    assert max(map(len, pieces)) < max(25 * codec.NUMBERS, len(orjson.dumps(value)) + 1)


@given(contents)
def test_any_tool_reads_a_payload(content):
    payload = codec.encode_text(content)
    assert gzip.decompress(payload.data) == content
    assert codec.decode_text(payload.data) == content
    assert payload.size == len(content)


def test_a_digest_tells_the_text_and_not_how_it_is_packed():
    value = {"values": [0.5, 1.5]}
    packed = codec.encode_payload(value)
    assert packed.sha256 == codec.encode_text(orjson.dumps(value)).sha256
    assert packed.sha256 != codec.encode_payload({"values": [0.5, 1.25]}).sha256
    assert len(packed.sha256) == 64


own = contents.map(lambda content: (Stored(codec.encode_text(content).data), content))
#: As Python's own modules write it: other separators, everything but ASCII escaped.
foreign = st.builds(
    lambda value, level: (Stored(gzip.compress(json.dumps(value).encode(), level)), json.dumps(value).encode()),
    st.recursive(scalars | st.sampled_from(["NaN", '"NaN', "-Infinity\\"]), st.lists, max_leaves=10),
    st.integers(0, 9),
)
glue = contents.map(lambda content: (content, content))


@given(st.lists(own | foreign | glue, max_size=6))
def test_stitching_is_concatenation_in_one_member(parts):
    expected = b"".join(content for _, content in parts)
    member = zlib.decompressobj(31)
    stitched = b"".join(codec.stitch_gzip(part for part, _ in parts))
    assert member.decompress(stitched) == expected
    assert member.eof, "the CRC and the size in the trailer are right"
    assert member.unused_data == b""
    assert b"".join(codec.inflate_parts(part for part, _ in parts)) == expected


def test_large_payloads_are_inflated_piece_by_piece():
    content = b"0.123456789," * 1_000_000
    pieces = list(codec.inflate_parts([Stored(codec.encode_text(content).data)]))
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 2 << 20


def test_stored_data_is_copied_and_not_packed_again():
    stored = Stored(codec.encode_payload(list(range(1000))).data)
    copied = [chunk for chunk in codec.stitch_gzip([b"[", stored, b"]"]) if isinstance(chunk, memoryview)]
    assert len(copied) == 1
    assert copied[0].obj is stored.data


packed = documents.map(lambda value: codec.encode_payload(value).data)


@given(packed, st.data())
def test_truncation_is_noticed(data, draw):
    length = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(InvalidInput, match="damaged"):
        codec.decode_text(data[:length])


@given(documents, st.data())
def test_a_flipped_bit_is_noticed_or_harmless(value, draw):
    payload = codec.encode_payload(value)
    bit = draw.draw(st.integers(0, 8 * len(payload.data) - 1))
    damaged = bytearray(payload.data)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        read = codec.decode_text(bytes(damaged))
    except InvalidInput:
        return
    assert read == orjson.dumps(value)


def test_every_flipped_bit_of_one_payload_is_noticed_or_harmless():
    payload = codec.encode_payload({"values": [0.1, 0.2], "name": "DOSE" * 5})
    harmless = []
    for bit in range(8 * len(payload.data)):
        damaged = bytearray(payload.data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert codec.decode_text(bytes(damaged)) == gzip.decompress(payload.data)
        except InvalidInput:
            continue
        harmless.append(bit // 8)
    header_ends = payload.data.index(b"YP\x01\x00\x01") + 5
    in_the_data = [byte for byte in harmless if byte >= header_ends]
    assert len(in_the_data) <= 14, "the flush and the final block are padded to whole bytes"


@given(st.binary())
def test_what_is_no_payload_is_refused(data):
    with pytest.raises(InvalidInput, match="damaged"):
        codec.decode_payload(data)


@pytest.mark.parametrize("more", [b"\0", gzip.compress(b"[]")], ids=["padding", "another member"])
def test_data_after_the_end_is_refused(more):
    with pytest.raises(InvalidInput, match="damaged"):
        codec.decode_text(codec.encode_payload([]).data + more)


def test_a_member_that_holds_no_json_is_refused():
    with pytest.raises(InvalidInput, match="damaged"):
        codec.decode_payload(gzip.compress(b"{"))


@pytest.mark.parametrize("value", [{1, 2}, object, {"a": 1j}, 2**64, {1: 2}, "\ud800"], ids=repr)
def test_what_json_has_no_word_for_is_refused(value):
    with pytest.raises(InvalidInput, match="JSON"):
        codec.encode_payload(value)


def test_deep_nesting_is_refused_and_does_not_crash():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidInput):
        codec.encode_payload(value)


def test_payloads_that_other_programs_have_stored_are_read():
    assert codec.decode_payload(gzip.compress(json.dumps({"a": [1, 2.5, None]}).encode())) == {"a": [1, 2.5, None]}


@pytest.mark.parametrize("kept", [17, 20, 25])
def test_a_payload_that_was_cut_to_its_head_is_not_joined(kept):
    data = codec.encode_payload([1.5] * 100).data[:kept]
    with pytest.raises(InvalidInput, match="damaged"):
        list(codec.stitch_gzip([Stored(data)]))


words = st.sampled_from([1, None, "NaN", '"Infinity\\', math.nan, math.inf, -math.inf, "-Inf", "\\"])


def test_a_payload_that_only_begins_as_ours_do_is_not_taken():
    """It can be read, but nothing can be put behind it: it has no flush at its end."""
    text = b'{"a":' + b"1" * 100 + b"}"
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    data = codec._MARKED + deflater.compress(text) + deflater.flush()
    data += codec._TRAILER.pack(isal_zlib.crc32(text), len(text))
    assert codec.decode_text(data) == text
    with pytest.raises(InvalidInput):
        codec.check_ends(data[:64], data[-64:])
    ours = codec.encode_payload({"a": 1}).data
    codec.check_ends(ours[:64], ours[-64:])


@given(st.dictionaries(st.sampled_from(["a", "NaN", '"']), st.lists(words, max_size=6)), st.integers(1, 30))
def test_words_that_json_has_not_become_null_wherever_a_text_is_cut(document, size):
    text = json.dumps(document).encode()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    expected = json.loads(text, parse_constant=lambda _: None)
    assert orjson.loads(b"".join(codec.json_words(pieces))) == expected
    if expected != json.loads(text):
        assert codec.holds_other_words(pieces)


def test_a_text_of_more_than_4_gib_has_the_right_checksum_in_a_document(monkeypatch):
    """Sizes are kept modulo 2**32; the checksum of what comes before is moved on by the whole size."""
    length, text = 2**32 + 3, b"0,0"
    data = codec.encode_text(text).data
    stitched = b"".join(codec.stitch_gzip([b"[", Stored(data, length), b"]"]))
    combine = isal_zlib.crc32_combine
    crc = combine(combine(zlib.crc32(b"["), zlib.crc32(text), length), zlib.crc32(b"]"), 1)
    assert stitched[-8:] == struct.pack("<II", crc, (length + 2) % 2**32)
    chunks = [data[:-3], data[-3:]]
    assert b"".join(codec.stitch_gzip([b"[", codec.Streamed(chunks, len(data), length), b"]"])) == stitched
    # Whoever does not know the size has it counted, if the trailer may not tell all of it.
    monkeypatch.setattr(codec, "_GZIP_SIZES", 100)
    assert gzip.decompress(b"".join(codec.stitch_gzip([b"[", Stored(data), b"]"]))) == b"[0,0]"


def test_pages_of_others_name_the_values_that_do_not_exist():
    page = {"dimensions": 1, "data": {"unit": "Gy", "values": [1.5, math.nan, None]}, "metadata": {"x": math.inf}}
    text = b"".join(codec.inflate_parts([Stored(gzip.compress(json.dumps(page).encode()))]))
    assert orjson.loads(text) == {
        "dimensions": 1,
        "data": {"unit": "Gy", "values": [1.5, 0.0, 0.0], "missing": [[1, 2]]},
        "metadata": {"x": None},
    }


# Outlines

TEXTS = st.text(st.sampled_from('ab"\\,[{:é NaN'), max_size=30)
VALUES = st.recursive(
    TEXTS | st.integers() | st.floats() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(TEXTS, inner, max_size=4) | st.lists(st.floats()),
)


@given(VALUES, st.integers(1, 40), st.integers(0, 1))
def test_an_outline_has_the_facts_of_its_text(value, piece, short):
    """In pieces of any size, with strings and lists that are left out."""
    text = json.dumps(value, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patched:
        for name, size in (("_CHUNK", piece), ("_SHORT", short * 1000), ("_LONG_STRING", 12)):
            patched.setattr(codec, name, size)
        outline = codec.read_outline([gzip.compress(text)])
    assert (outline.size, outline.sha256) == (len(text), hashlib.sha256(text).hexdigest())
    assert outline.missing == codec.numbers_replaced(text)
    read = codec.decode_readable_text(outline.text)
    assert type(read) is type(orjson.loads(b"".join(codec.json_words([text]))))
    if isinstance(value, dict) and all(len(name.encode()) < 6 for name in value):
        assert list(read) == list(value)


@pytest.mark.parametrize("piece", [7, 16, 500])
def test_numbers_in_strings_of_an_outline_are_kept(monkeypatch, piece):
    monkeypatch.setattr(codec, "_SHORT", 10)
    monkeypatch.setattr(codec, "_CHUNK", piece)
    page = {"name": 'Dose 1, 2, 3 "MeV, 4, 5, 6"', "values": [1.5, float("nan"), 3.5] * 100}
    outline = codec.read_outline([gzip.compress(json.dumps(page).encode())])
    assert (codec.decode_readable_text(outline.text)["name"], outline.missing) == (page["name"], 100)


def test_a_text_that_is_too_long_has_no_outline(monkeypatch):
    monkeypatch.setattr(codec, "_SHORT", 10)
    monkeypatch.setattr(codec, "_CHUNK", 500)
    monkeypatch.setattr(codec, "LARGE", 1000)
    text = json.dumps([[number] for number in range(1000)] + [float("nan")]).encode()
    outline = codec.read_outline([gzip.compress(text)])
    assert (outline.text, outline.size, outline.missing) == (None, len(text), 1)
    with pytest.raises(InvalidInput, match="truncated"):
        codec.read_outline([gzip.compress(text)[:-9]])


def test_the_strings_of_an_outline_are_short(monkeypatch):
    monkeypatch.setattr(codec, "_SHORT", 10)
    monkeypatch.setattr(codec, "_CHUNK", 500)
    monkeypatch.setattr(codec, "_LONG_STRING", 100)
    logs = {"a.log": 'x"\\' * 10_000, "b.log": "short", "c.log": "NaN, " * 2_000}
    outline = codec.read_outline([gzip.compress(json.dumps(logs).encode())])
    assert orjson.loads(outline.text) == {"a.log": "", "b.log": "short", "c.log": ""}
    assert outline.missing == 0
