from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import MemoryStore

from yozora.errors import ConfigError
from yozora.serve.storage import CHUNK, Storage, StorageError


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A folder, and a store that is none, as a bucket is."""
    storage = Storage(str(tmp_path / "files"))
    if request.param == "memory":
        storage.store = MemoryStore()
    return storage


def test_what_is_put_comes_back(storage: Storage, tmp_path: Path) -> None:
    data = bytes(range(256)) * (CHUNK // 128)  # two chunks
    (tmp_path / "given").write_bytes(data)
    assert storage.put("videos/a/1.mp4", tmp_path / "given") == len(data)
    assert b"".join(storage.read("videos/a/1.mp4", 0, len(data))) == data
    assert b"".join(storage.read("videos/a/1.mp4", CHUNK - 3, CHUNK + 5)) == data[CHUNK - 3 : CHUNK + 5]
    storage.fetch("videos/a/1.mp4", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_keys_and_deleting(storage: Storage) -> None:
    for key in ("videos/a/1", "videos/ab/2", "uploads/c"):
        storage.put(key, b"x")
    assert sorted(storage.keys()) == ["uploads/c", "videos/a/1", "videos/ab/2"]
    assert list(storage.keys("videos/a")) == ["videos/a/1"]
    assert list(storage.keys(older_than=60)) == []
    storage.delete(["videos/a/1", "never/was"])
    assert list(storage.keys("videos/a")) == []


def test_what_is_not_there(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        storage.fetch("none", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StorageError):
        list(storage.read("none", 0, 1))


def test_an_emptied_folder_goes(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "files"))
    storage.put("videos/a/1", b"x")
    storage.delete(["videos/a/1"])
    assert not (tmp_path / "files" / "videos").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("")
    with pytest.raises(ConfigError, match="cannot be used for files"):
        Storage(str(tmp_path / "files"))
