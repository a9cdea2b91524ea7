"""Archives of others cost little before it is known how many entries they have."""

import io
import struct
import tracemalloc
from zipfile import ZipFile

import pytest

from yaptide.domain.errors import InvalidInput, SimulationFailed
from yaptide.persistence.zip_safety import explain_damage, open_archive, read_entry


def archive(count: int, **extra: bytes) -> io.BytesIO:
    file = io.BytesIO()
    with ZipFile(file, "w") as written:
        for number in range(count):
            written.writestr(f"{number}.txt", str(number))
        for name, data in extra.items():
            written.writestr(name, data)
    return file


def many_entries(count: int, said: int, small: bool) -> io.BytesIO:
    """`count` empty entries; the end records tell of `said`, the old one of a `small` directory if it is to."""
    file = io.BytesIO()
    file.write(struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0x21, 0, 0, 0, 1, 0) + b"a")
    start = file.tell()
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0x21, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0)
    file.writelines(entry + b"%07d" % number for number in range(count))
    size = file.tell() - start
    old = (min(said, 0xFFFE), 94, start) if small else (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    file.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, said, said, size, start))
    file.write(struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1))
    file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, old[0], *old, 0))
    return file


def test_an_archive_is_read_as_by_zipfile():
    with open_archive(archive(10), 10) as opened:
        assert [opened.read(name) for name in opened.namelist()] == [str(n).encode() for n in range(10)]


def test_one_entry_too_many_is_refused():
    with pytest.raises(InvalidInput, match="more than 9 entries"):
        open_archive(archive(10), 9)


def test_archives_in_an_archive_are_not_its_entries():
    inner = archive(100).getvalue()
    with open_archive(archive(3, inner=inner), 200) as opened:
        assert opened.read("inner") == inner


@pytest.mark.parametrize("said", [1, 100_000])
@pytest.mark.parametrize("small", [True, False])
def test_a_directory_is_counted_whatever_is_said_of_it(said, small):
    file = many_entries(100_000, said, small)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="more than 1000 entries"):
            open_archive(file, 1000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"PK\5\6", b"PK\3\4" * 100, bytes(1000)])
def test_what_is_no_archive_is_explained(data):
    with pytest.raises(InvalidInput, match="The cats cannot be read: "), explain_damage("The cats cannot be read"):
        open_archive(io.BytesIO(data), 10)


def test_damage_is_the_error_that_the_caller_asks_for():
    file = archive(1, other=b"data")
    file.getbuffer()[file.getvalue().index(b"data")] = 0
    with open_archive(file, 2) as opened:
        with pytest.raises(SimulationFailed, match="damaged: Bad CRC-32"), explain_damage("damaged", SimulationFailed):
            read_entry(opened, "other", 4)
        with pytest.raises(InvalidInput, match="There is no item named"), explain_damage("damaged"):
            read_entry(opened, "missing", 4)


def test_an_error_of_the_system_is_not_the_archives():
    with pytest.raises(PermissionError), explain_damage("damaged"):
        raise PermissionError


def test_an_entry_is_read_up_to_its_limit():
    with open_archive(archive(0, data=b"1234"), 1) as opened:
        assert read_entry(opened, "data", 4) == b"1234"
        with pytest.raises(InvalidInput, match="data has more than 3 bytes"):
            read_entry(opened, "data", 3)
