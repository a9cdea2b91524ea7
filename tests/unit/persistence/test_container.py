"""The container: whole or not at all, and nothing in it is trusted."""

import json
import zipfile

import pytest

from yaptide.domain.errors import Conflict, InvalidInput
from yaptide.persistence import container
from yaptide.persistence.container import Format, open_container, write_container

FORMAT = Format("test", 3, "a test")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.zip"
    with write_container(path, FORMAT) as writer:
        writer.add("folder/text.json", b"[1]" * 1000, deflated=True)
        writer.add("data", bytes(range(256)), deflated=False)
        writer.about = {"what": "ever"}
    return path


def add_checksum(path):
    """Give a zip archive a checksum, as anyone can."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = container._CHECKSUM + b"0" * 64
    with path.open("r+b") as file:
        length = path.stat().st_size - 64
        digest = container._digest(file, length)
        file.seek(length)
        file.write(digest.encode())


def manifest(**changes):
    values = {"format": "test", "version": 3, "yaptide": "1", "time": "2026-01-01T00:00:00Z", "about": {}}
    return json.dumps(values | {"entries": {}} | changes)


def test_what_was_written_is_read(file):
    with open_container(file, FORMAT) as reader:
        assert reader.read("folder/text.json") == b"[1]" * 1000
        assert reader.read("data") == bytes(range(256))
        assert json.loads(bytes(reader.manifest.about)) == {"what": "ever"}
        assert reader.total == 3256
    assert file.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[-1] == "manifest.json"


def test_a_writer_that_fails_leaves_what_was_there(file, tmp_path):
    before = file.read_bytes()
    with pytest.raises(ZeroDivisionError), write_container(file, FORMAT) as writer:
        writer.add("x", bytes(1 // len(writer._entries)), deflated=False)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "", ".", "a/..", "a\nb", "ż", ".hidden"])
def test_names_that_lead_elsewhere_are_not_written(name, tmp_path):
    with pytest.raises(InvalidInput), write_container(tmp_path / "b.zip", FORMAT) as writer:
        writer.add(name, b"", deflated=False)


def test_a_deflated_entry_may_be_too_large(file):
    with open_container(file, FORMAT) as reader:
        assert len(reader.read("folder/text.json", most=3000)) == 3000
    with pytest.raises(InvalidInput, match="too large"), open_container(file, FORMAT) as reader:
        reader.read("folder/text.json", most=2999)


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"manifest.json": "{"},
        {"manifest.json": "[]"},
        {"manifest.json": manifest(entries={"x": {"size": 0, "sha256": "0" * 64}})},
        {"manifest.json": manifest(), "x": "more than is told"},
        {"manifest.json": manifest(entries={"x": {"size": 1, "sha256": "0" * 64}}), "x": "12"},
        {"manifest.json": manifest(entries={"x": {"size": -1, "sha256": "0" * 64}}), "x": "12"},
        {"manifest.json": manifest(entries={"../x": {"size": 2, "sha256": "0" * 64}}), "../x": "12"},
        {"manifest.json": manifest(format="other")},
        {"manifest.json": manifest(time="2026-01-01T00:00:00")},
    ],
)
def test_what_is_not_ours_is_refused(entries, tmp_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("first", "")
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
    add_checksum(path)
    with pytest.raises(InvalidInput) as refused, open_container(path, FORMAT):
        pass
    assert str(path) in str(refused.value)


def test_two_entries_of_one_name_are_refused(tmp_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", manifest())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("manifest.json", manifest())
    add_checksum(path)
    with pytest.raises(InvalidInput, match="duplicate entries"), open_container(path, FORMAT):
        pass


def test_a_newer_version_is_told_apart(tmp_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", manifest(version=4, yaptide="7.1"))
    add_checksum(path)
    with pytest.raises(Conflict, match=r"7\.1"), open_container(path, FORMAT):
        pass


@pytest.mark.parametrize("contents", [b"", b"PK", b"PK\x03\x04", b"SQLite format 3\0" * 100, b"PK\x03\x04" * 100])
def test_other_files_are_refused(contents, tmp_path):
    path = tmp_path / "b.zip"
    path.write_bytes(contents)
    with pytest.raises(InvalidInput, match="written by yaptide"), open_container(path, FORMAT):
        pass
