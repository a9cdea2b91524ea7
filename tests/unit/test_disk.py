"""Files on a disk: atomic writes, files that are created once, and full disks."""

import errno
import stat
import threading

import pytest

from yaptide.disk import create_once, explain_full_disk, is_full, write_atomically
from yaptide.domain.errors import StorageFull


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_on_a_disk_in_a_quota_or_in_a_file(number):
    assert is_full(OSError(number, "no room"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EROFS, None])
def test_what_room_would_not_mend(number):
    assert not is_full(OSError(number, "no way"))


def test_only_a_full_disk_is_explained():
    with pytest.raises(StorageFull, match="No room for cats"), explain_full_disk("No room for cats"):
        raise OSError(errno.ENOSPC, "no room")
    with pytest.raises(PermissionError), explain_full_disk("No room for cats"):
        raise PermissionError(errno.EACCES, "no way")


@pytest.mark.parametrize(("replace", "kept"), [(True, b"new"), (False, b"old")])
def test_a_file_is_replaced_or_kept(tmp_path, replace, kept):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with write_atomically(path, replace=replace) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_nothing(tmp_path):
    def fail():
        with write_atomically(tmp_path / "file") as file:
            file.write(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_its_owners_alone(tmp_path):
    with write_atomically(tmp_path / "file") as file:
        file.write(b"private")
    create_once(tmp_path / "folder/key", b"secret")
    assert [mode(tmp_path / name) for name in ("file", "folder", "folder/key")] == [0o600, 0o700, 0o600]


def test_all_who_create_a_file_at_once_agree_on_its_content(tmp_path):
    path, ready = tmp_path / "folder/key", threading.Barrier(8)
    contents = set()

    def create(number):
        ready.wait(timeout=10)
        create_once(path, str(number).encode())
        contents.add(path.read_bytes())

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(contents) == 1
    assert list(path.parent.iterdir()) == [path]
