"""Text of input files is decoded in one way, and what is not text is said to be none, at its line."""

import pytest
from hypothesis import given, strategies as st

from yaptide_client.files import encode_file, read_folder
from yaptide_client.texts import decode_text, explain_undecoded


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@given(text=st.text(st.characters(exclude_categories=["C"]), min_size=1).map(lambda text: text + "\n"))
def test_every_text_comes_back_without_its_mark(encoding, text):
    text = text.removeprefix("\ufeff")
    assert decode_text("plan.txt", text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_both_orders_of_bytes(encoding):
    assert decode_text("plan.txt", "\ufeffNSTAT 1\r\n".encode(encoding)) == "NSTAT 1\r\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.txt", "# 20 °C\nNum_Primaries 1600\n"),
        ("beam.dat", "NSTAT 5 ! für später\n"),
        ("deck.inp", "* Prüfung\nTITLE\nStrahl für Prüfung\n"),
        ("plan.txt", "#PlanName\r\nLungenläsion\r\n"),
        ("ct.mhd", "PatientName = Müller\n"),
        ("run.txt", 'i:So/A/B = 1 # "quoted" \u2013 dash\n'),
    ],
)
def test_letters_of_windows_where_codes_skip_them(name, text):
    assert decode_text(name, text.encode("cp1252")) == text


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("plan.txt", "a\nb\nEnergie für\n".encode("cp1252"), "plan.txt, line 3: is not UTF-8"),
        ("plan.txt", b"# one\n\xe4 # two\n", "plan.txt, line 2: is not UTF-8"),
        ("plan.txt", b"# \x81\x01\n", "plan.txt, line 1: is not UTF-8"),
        ("plan.txt", b"PK\0", "plan.txt: is binary, not text"),
        ("plan.txt", b"\xff\xfeN", "plan.txt, line 1: is not UTF-8"),
        ("ct.txt", "Name = Müller\n".encode("cp1252"), "ct.txt, line 1: is not UTF-8"),
    ],
)
def test_other_bytes_are_not_text(name, data, why):
    assert decode_text(name, data) is None
    assert explain_undecoded(name, data) == why


def test_a_raw_file_is_never_text():
    assert encode_file("ct.raw", b"    ") == ("ct.raw.base64", "ICAgIA==")
    assert encode_file("CT.RAW", b"\xff\xfea\0")[0] == "CT.RAW.base64"


def test_voxels_that_begin_as_utf_16_are_no_text():
    assert decode_text("dose.bin", b"\xff\xfe\x01\0\x02\0") is None


@given(st.binary(), st.sampled_from(["a.txt", "a.mhd", "a.raw"]))
def test_any_bytes_are_text_or_have_a_reason(data, name):
    text = decode_text(name, data)
    assert text is not None or explain_undecoded(name, data).startswith(name)
    assert isinstance(encode_file(name, data)[1].encode(), bytes)  # no lone surrogates


def test_backups_of_a_folder_are_left_out_with_a_remark(tmp_path):
    for name in ("plan.txt", "plan.txt~", "#plan.txt#", "~$plan.txt", "plan.txt.bak", ".hidden"):
        (tmp_path / name).write_text("x")
    remarks = []
    assert read_folder(tmp_path, remarks.append) == {"plan.txt": "x"}
    assert remarks == ["Left out, hidden files and backups: #plan.txt#, plan.txt.bak, plan.txt~, ~$plan.txt."]
    with pytest.warns(UserWarning, match="Left out"):
        read_folder(tmp_path)
