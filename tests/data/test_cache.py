"""The frame cache: what is decoded once is what decoding gives, whoever was killed or edited meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peakzoom.data import cache as module
from peakzoom.data.cache import CachedVideo, FrameCache, fill, frames_home, read_cached
from peakzoom.utils.durable import free_bytes
from peakzoom.utils.errors import DecodeError
from peakzoom.video.decode import decode, frames_of


@pytest.fixture
def video(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    return make_clip(tmp_path / "clip.mp4")


@pytest.fixture
def store(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "frames", (20, 24))


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir()) if folder.exists() else []


def test_frames_are_those_of_decoding(video: Path, store: FrameCache) -> None:
    kept = store.add(video)
    frames = read_cached(kept)
    assert frames.shape == (8, 20, 24, 3) and frames.dtype == np.uint8 and kept.frames == 8
    assert isinstance(frames, np.memmap)
    wanted = decode(video, None, (20, 24))
    np.testing.assert_array_equal(frames, wanted.frames.permute(0, 2, 3, 1).numpy())
    assert kept.fps == wanted.info.fps and kept.problem is None
    assert names(store.folder) == [".npy", ".txt"]


@pytest.mark.parametrize(
    "fps,wanted",
    [(7.5, [0, 2, 4, 6]), (15.0, list(range(8))), (30.0, [k // 2 for k in range(16)])],
)
def test_frames_at_another_rate(video: Path, store: FrameCache, fps: float, wanted: list[int]) -> None:
    kept = replace(store, fps=fps).add(video)  # the clip has 8 frames at 15 a second
    assert kept.frames == len(wanted)
    whole = decode(video, None, (20, 24)).frames.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(read_cached(kept), whole[wanted])


def test_a_second_look_decodes_nothing(
    video: Path, store: FrameCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.add(video)
    monkeypatch.setattr(module, "scan", lambda *_: pytest.fail("decoded again"))
    assert store.add(video) == first


def test_a_killed_run_leaves_nothing_that_counts(video: Path, store: FrameCache) -> None:
    kept = store.add(video)
    wanted = kept.file.read_bytes()
    draft = kept.file.with_name(f"{kept.file.stem}.{os.getpid()}.part")
    for lost in (kept.file, kept.file.with_suffix(".txt")):
        lost.unlink()
        draft.write_bytes(wanted[:100])
        assert store.add(video) == kept
        assert kept.file.read_bytes() == wanted and not draft.exists()


Damage = Callable[[Path], object]


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-7] ^= 1  # one bit of one pixel
    file.write_bytes(data)


@pytest.mark.parametrize(
    "suffix, damage",
    [
        (".npy", flipped),
        (".npy", lambda file: file.write_bytes(file.read_bytes()[:-1])),
        (".npy", lambda file: file.write_bytes(b"\0" * file.stat().st_size)),
        (".npy", lambda file: file.write_bytes(b"")),
        (".npy", lambda file: file.unlink()),
        (".txt", lambda file: file.write_text("8\nfast\n\nx\n")),
        (".txt", lambda file: file.write_bytes(b"\xff\0" * 20)),
        (".txt", lambda file: file.write_text("")),
    ],
)
def test_a_damaged_entry_is_decoded_anew_and_counted(
    video: Path, store: FrameCache, suffix: str, damage: Damage
) -> None:
    kept = store.add(video)
    wanted = kept.file.read_bytes()
    assert not kept.renewed
    damage(kept.file.with_suffix(suffix))
    again = fill(store, [video])[video]
    assert isinstance(again, CachedVideo) and again.renewed
    assert again.file.read_bytes() == wanted
    assert not store.add(video).renewed


def test_an_entry_of_a_time_without_digests_is_no_damage(video: Path, store: FrameCache) -> None:
    kept = store.add(video)
    notes = kept.file.with_suffix(".txt")
    notes.write_text("\n".join([*notes.read_text().split("\n")[:3], ""]))
    wanted, before = kept.file.read_bytes(), kept.file.stat().st_mtime_ns
    again = store.add(video)
    assert not again.renewed and again.file.read_bytes() == wanted and again.file.stat().st_mtime_ns != before


def test_killed_while_writing(video: Path, store: FrameCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(*arguments: object) -> Iterator[object]:
        frames = frames_of(*arguments)  # type: ignore[arg-type]
        yield next(frames)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "frames_of", half)
        with pytest.raises(KeyboardInterrupt):
            store.add(video)
    assert ".npy" not in names(store.folder)
    assert len(read_cached(store.add(video))) == 8


def test_what_stopped_decoding_left_is_removed_a_day_later(video: Path, store: FrameCache) -> None:
    """A file that takes too long or too much memory ends its process, which cannot tidy up."""
    kept = store.add(video)
    drafts = [store.folder / f"{name}.part" for name in ("a.1", "a.1.txt", "b.2")]
    for draft, hours in zip(drafts, (25, 25, 23), strict=True):
        draft.write_bytes(b"x" * 100)
        os.utime(draft, (time.time() - 3600 * hours,) * 2)
    assert fill(store, [video]) == {video: kept}
    assert [draft.exists() for draft in drafts] == [False, False, True]


def test_the_name_tells_edited_files_and_other_settings_apart(
    video: Path, store: FrameCache, make_clip: Callable[..., Path]
) -> None:
    first = store.file(video)
    assert store.file(video) == first
    link = video.with_name("link.mp4")
    link.symlink_to(video)
    assert store.file(link) == first  # the same file by another name
    assert len({first, replace(store, size=(24, 20)).file(video), replace(store, fps=5.0).file(video)}) == 3
    stat = video.stat()
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    later = store.file(video)
    video.write_bytes(video.read_bytes() + b"x")
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert len({first, later, store.file(video)}) == 3

    store.add(video)
    make_clip(video, "kick", seed=3, frames=5)
    assert store.add(video).frames == 5


def test_broken_files_give_their_error_and_no_file(tmp_path: Path, store: FrameCache) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video" * 50)
    gone = tmp_path / "gone.mp4"
    for path in (broken, gone):
        with pytest.raises(DecodeError) as caught:
            store.add(path)
        assert caught.value.path == path and "\n" not in caught.value.reason
    found = fill(store, [broken, gone])
    assert all(isinstance(result, DecodeError) for result in found.values())
    assert names(store.folder) == []


def test_a_file_that_breaks_part_way_is_kept_with_its_problem(
    tmp_path: Path, store: FrameCache, shared_data: Path
) -> None:
    kept = store.add(shared_data / "nasty" / "decord" / "corrupted.mp4")
    assert kept.frames == 49 and kept.problem is not None and "after 28 frames" in kept.problem


def test_fill(tmp_path: Path, store: FrameCache, make_clip: Callable[..., Path]) -> None:
    paths = [make_clip(tmp_path / f"{index}.mp4", seed=index, frames=3 + index) for index in range(4)]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"x" * 99)
    told: list[tuple[int, int]] = []
    found = fill(store, [*paths[:2], broken, *paths[2:]], 2, lambda done, all_: told.append((done, all_)))
    assert list(found) == [*paths[:2], broken, *paths[2:]]
    assert isinstance(found.pop(broken), DecodeError)
    for index, kept in enumerate(found.values()):
        assert isinstance(kept, CachedVideo)
        assert len(read_cached(kept)) == kept.frames == 3 + index
    assert told == [(done, 5) for done in range(1, 6)]
    assert names(store.folder) == [".npy"] * 4 + [".txt"] * 4


def test_ctrl_c_does_not_wait_for_all_files(
    tmp_path: Path, store: FrameCache, make_clip: Callable[..., Path]
) -> None:
    data = make_clip(tmp_path / "clip.mp4").read_bytes()
    paths = [tmp_path / f"{index}.mp4" for index in range(500)]
    for path in paths:
        path.write_bytes(data)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(store, paths, 2, stop)
    assert len(list(store.folder.glob("*.npy"))) < 400


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert frames_home() == tmp_path / "peakzoom" / "frames"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert frames_home() == tmp_path / ".cache" / "peakzoom" / "frames"
    assert free_bytes(tmp_path / "not" / "there") > 0
