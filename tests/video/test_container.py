"""A file opens no other file, and where it cannot be opened its reason says what it is."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import odd_videos
import pytest
from av.format import formats_available

from peakzoom.utils.errors import DecodeError
from peakzoom.video import container as module
from peakzoom.video.container import FORMATS, open_file
from peakzoom.video.decode import decode
from peakzoom.video.guard import guarded
from peakzoom.video.scan import probe

DASH = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"
profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4"><Representation id="0"
bandwidth="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>"""
# Files that lead to another one, {0}: their names and what they hold.
LEADERS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile '{0}'\n",
    "list.avi": "ffconcat version 1.0\nfile '{0}'\n",
    "list.pls": "[playlist]\nFile1={0}\nNumberOfEntries=1\n",
    "list.mpd": DASH,
    "stream.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=x:{0}\n",
    "sub.idx": "# VobSub index file, v7 (do not modify this line!)\nid: en\ntimestamp: 00:00:00:000, filepos: 0",
    "text.txt": "what a terminal shows of {0}\n",
    "text.ans": "what a terminal shows of {0}\n",
    "settings.ffmeta": ";FFMETADATA1\ntitle={0}\n",
    "manifest.xml": DASH,
}

linux = pytest.mark.skipif(sys.platform == "win32", reason="makes pipes")


def reason(path: Path) -> str:
    with pytest.raises(DecodeError) as caught:
        guarded(path, probe, path)  # which a file that blocks cannot hold for ever
    assert "\n" not in caught.value.reason
    return caught.value.reason


@linux
@pytest.mark.parametrize("name", LEADERS)
def test_a_file_leads_to_no_other(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it say whether there is one: the reason is the same for a video, a pipe and nothing."""
    monkeypatch.setenv("PEAKZOOM_DECODE_SECONDS", "20")
    video, pipe = odd_videos.write(tmp_path / "video.mkv"), tmp_path / "pipe.mkv"
    os.mkfifo(pipe)
    targets = [str(video), f"file:{video}", video.name, str(pipe), pipe.name, str(tmp_path / "nothing.mkv")]
    path = tmp_path / name
    reasons = set()
    for target in targets:
        path.write_text(LEADERS[name].format(target))
        (tmp_path / "sub.sub").write_bytes(b"")
        reasons.add(reason(path))
    assert len(reasons) == 1
    (said,) = reasons
    assert (
        "not a video" in said
        or said == "is in no format of videos that is read here"
        or "Invalid data" in said
    )


@linux
def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    """FFmpeg would go from a%d.png to a0.png, a1.png and so on, and from a name with * to all that fit."""
    for number in range(3):
        frame = av.VideoFrame.from_ndarray(odd_videos.shown(number, 48, 64), format="rgb24")
        frame.save(tmp_path / f"a{number}.png")
    odd = av.VideoFrame.from_ndarray(odd_videos.shown(9, 20, 30), format="rgb24")
    for name in ("a%d.png", "a%01d.png", "a*.png", "a[0-9].png", "a{0,1}.png"):
        odd.save(tmp_path / "odd.png")
        (tmp_path / "odd.png").rename(tmp_path / name)
        video = decode(tmp_path / name)
        assert (video.info.frames, video.info.height, video.info.width) == (1, 20, 30)
    (tmp_path / "a%d.png").write_text("no picture")
    with pytest.raises(DecodeError):
        decode(tmp_path / "a%d.png")
    with pytest.raises(DecodeError, match="no such file"):
        decode(tmp_path / "b%d.png")


def first_frame(path: Path) -> object:
    with open_file(path) as opened:
        return next(opened.decode(video=0))


@pytest.mark.parametrize("leader", ["list.m3u8", "list.ffconcat", "list.mpd"])
def test_what_is_read_opens_nothing_either(
    tmp_path: Path, leader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second line: a format that leads elsewhere gets no file."""
    monkeypatch.setattr(module, "FORMATS", "hls,concat,dash," + FORMATS)
    asked: list[str] = []
    refuse = module._nothing_else

    def noted(url: str, flags: int, options: object) -> None:
        asked.append(url)
        refuse(url, flags, options)

    monkeypatch.setattr(module, "_nothing_else", noted)
    video = odd_videos.write(tmp_path / "video.mkv")
    path = tmp_path / leader
    path.write_text(LEADERS[leader].format(video))
    with pytest.raises((DecodeError, av.FFmpegError)):
        first_frame(path)
    assert path.exists() and all(str(video) in each for each in asked)


def test_formats_are_known_and_lead_nowhere() -> None:
    names = FORMATS.split(",")
    assert set(names) <= set(formats_available) and len(names) == len(set(names))
    leading = {
        "hls",
        "dash",
        "concat",
        "image2",
        "image2pipe",
        "sdp",
        "rtsp",
        "tty",
        "vobsub",
        "lavfi",
        "imf",
    }
    assert not leading & set(names)


@linux
def test_a_pipe_that_takes_the_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a file and its opening."""
    path = odd_videos.write(tmp_path / "v.mkv")
    status = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    with pytest.raises(DecodeError, match="is a pipe"):
        probe(path)


def without_index(path: Path) -> None:
    odd_videos.write(path.with_suffix(".mp4"), "libx264")
    data = path.with_suffix(".mp4").read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("clips/a.mp4")
        member.size = 99
        archive.addfile(member, io.BytesIO(bytes(99)))


S3 = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 12345\n"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            without_index,
            "cannot be read as a video: .*moov atom not found: its index is missing, the recording or",
        ),
        (
            lambda path: path.write_text(LFS),
            "is a Git LFS pointer, not a video: 'git lfs pull' fetches the video",
        ),
        (lambda path: path.write_text("/annex/objects/SHA256E-s1--0.mp4\n"), "is a git-annex pointer"),
        (
            lambda path: path.write_text("\n<!DOCTYPE html><html><body>404"),
            "is an HTML page, not a video: a server",
        ),
        (lambda path: path.write_text("\ufeff<HTML><body>404"), "is an HTML page"),
        (lambda path: path.write_text("<!-- saved -->\n<!DOCTYPE html><html>"), "is an HTML page"),
        (lambda path: path.write_text("<head><title>Sign in</title>"), "is an HTML page"),
        (
            lambda path: path.write_text('<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML">'),
            "is an HTML page",
        ),
        (lambda path: path.write_text("<!doctype HTML><html>", "utf-16"), "is an HTML page"),
        (lambda path: path.write_text("404: Not Found\n"), "is a text, not a video: a server may have sent"),
        (lambda path: path.write_text("не найдено " * 200), "is a text, not a video"),
        (lambda path: path.write_text('{"error": "quota"}'), "is a JSON text, not a video"),
        (lambda path: path.write_bytes(b"PK\3\4" + bytes(99)), "is a ZIP archive, not a video: unpack it"),
        (lambda path: path.write_bytes(bz2.compress(b"a" * 999)), "is a bzip2 archive, not a video: unpack"),
        (lambda path: path.write_bytes(lzma.compress(b"a" * 999)), "is an xz archive, not a video: unpack"),
        (write_tar, "is a tar archive, not a video: unpack it"),
        (lambda path: path.write_text("../.git/annex/objects/f8/7J/S--1.mp4"), "is a git-annex pointer"),
        (lambda path: path.write_text(S3), "is an XML text, not a video: a server may have sent it"),
        (lambda path: path.write_text('[{ "error": 1}]'), "is a JSON text, not a video"),
        (lambda path: path.write_text("{\\rtf1 text}"), "is a text, not a video"),
        # Of which FFmpeg says that the index is missing, where they are called .mp4.
        (lambda path: path.write_bytes(b"\x7fELF\2\1\1" + bytes(500)), "as a video: [^()]*$"),
        (lambda path: path.write_bytes(b"\xff" * 5000), "as a video: [^()]*$"),
        (lambda path: path.write_bytes(b"%PDF-1.7\n" + bytes(99)), "is a PDF, not a video"),
        (
            lambda path: path.write_bytes(bytes(10_000)),
            "is empty but for zeros, not a video: the recording or the",
        ),
        (lambda path: path.write_bytes(bytes(range(256)) * 40), "cannot be read as a video: "),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".html"])
def test_the_reason_names_it(
    tmp_path: Path, make: Callable[[Path], None], said: str, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"v{suffix}"
    make(path)
    with pytest.raises(DecodeError, match=said):
        probe(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "clips" / "wave").mkdir(parents=True)
    there = tmp_path / "clips" / "wave" / "first.mp4"
    there.touch()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere")
    cases = {
        there.with_name("frist.mp4"): f"no such file: did you mean {there}?",
        tmp_path / "clps" / "wvae" / "first.mp4": f"no such file: did you mean {there}?",
        there.with_name("quite_another.avi"): "no such file",
        there.with_name("thing.mp4"): "no such file",  # only the ending is alike
        tmp_path / "link.mp4": "a link that leads nowhere",
    }
    for path, said in cases.items():
        assert reason(path) == said


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_file_that_is_cut_off_before_it_says_what_it_holds(codec: str, tmp_path: Path) -> None:
    """Within what names the index, or in it, up to where a stream is known to be there."""
    data = odd_videos.write(tmp_path / "whole.mp4", codec, 30).read_bytes()
    index, known = data.rindex(b"moov") - 4, data.rindex(b"mdhd")
    for place in (index - 5, index + 3, index + 9, *np.linspace(index + 20, known, 12).astype(int)):
        path = tmp_path / "cut.mp4"
        path.write_bytes(data[:place])
        assert "the recording or the download was not finished" in reason(path), place
    path.write_bytes(data[: index + 8] + bytes(len(data) - index - 8))  # whole, and damaged
    assert "not finished" not in reason(path)
