"""Fixtures of all tests."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # pytest-xdist's controller, which runs no test, need not wait for PyTorch
    from playwright.sync_api import Browser

    from peakzoom.data.entries import VideoSet
    from peakzoom.model import PeakZoom
    from peakzoom.training.recipes import Recipe

# Before anything imports the hub's client, which reads it once: no test asks the network.
os.environ["HF_HUB_OFFLINE"] = "1"

# What takes longest begins first, so that no process ends with it alone.
LONG = (
    "test_archive.py",
    "test_export.py",
    "test_cli.py",
    "test_lost.py",
    "test_processes.py",
    "test_train.py",
    "test_docs.py",
    "test_exactness.py",
    "test_serve.py",
    "test_bad_input.py",
    "test_inference.py",
    "test_guard.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one process, where what its fixtures make is made once (``--dist loadgroup``)."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos beside the checkout (``PEAKZOOM_DATA`` overrides it); skips when it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PEAKZOOM_DATA", default))
    if not (folder / "README.md").exists():
        pytest.skip(f"real videos are not here ({folder}); set PEAKZOOM_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded frames of tests go here, never into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home / "peakzoom" / "frames"


@pytest.fixture(scope="session", autouse=True)
def _few_are_enough() -> Iterator[None]:
    """Thresholds may be chosen on the few clips of a test; tests/cli/test_calibrated.py has the bound."""
    from peakzoom.evaluation import calibrate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "FEWEST", 1)
        yield


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic data set: three actions, 18 training and 6 test clips of 12 frames, with ``clips.csv``."""
    from tiny import render

    return render(tmp_path_factory.mktemp("synthetic") / "clips")


@pytest.fixture(scope="session")
def clip_data(clips: Path) -> VideoSet:
    """The synthetic clips as a list with splits and groups."""
    from peakzoom.data.datasets import open_data

    return open_data(clips / "clips.csv")


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Path]:
    """Write one clip: path, action, and any field of ``ClipSpec``."""
    from peakzoom.data.synthetic.clips import write_clip
    from peakzoom.data.synthetic.scene import ClipSpec

    def make(path: Path, action: str = "wave", **fields: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = {"height": 48, "width": 64, "frames": 8, "difficulty": 0.0}
        write_clip(ClipSpec(action, **{**shape, **fields}), path)  # type: ignore[arg-type]
        return path

    return make


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """A recipe that needs a second: 32 x 32 pixels, 8 frames, one epoch of each stage."""
    from tiny import recipe

    return recipe()


class Shared:
    """A folder that tests share, and how its files stood when it was made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = self.now()

    def now(self) -> dict[str, tuple[int, int]]:
        """Size and time of writing of each file."""
        stats = {file: file.stat() for file in self.folder.rglob("*") if file.is_file()}
        return {str(file): (stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()}


SHARED = pytest.StashKey[Shared]()


@pytest.fixture(scope="session")
def run(
    clip_data: VideoSet,
    tiny: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Path:
    """A run folder with both stages trained; a test that writes into it fails (:func:`_run_stays`)."""
    from peakzoom.display.figures import curves_figure
    from peakzoom.hub.card import write_missing_cards
    from peakzoom.training.options import Options
    from peakzoom.training.train import train

    out = tmp_path_factory.mktemp("runs") / "run"
    options = Options(val_fraction=0.2, workers=0, accelerator="cpu", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peakzoom.training.log.curves_figure", curves_figure)  # whatever a module asks for
        train(clip_data, tiny, out, options)
    write_missing_cards(out)
    request.session.stash[SHARED] = Shared(out)
    return out


@pytest.fixture(autouse=True)
def _run_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test depends on which others ran before it: what writes into ``run`` works on a copy."""
    yield
    shared = request.session.stash.get(SHARED, None)
    if shared is not None and (now := shared.now()) != shared.files:
        changed = sorted({name for name, _ in now.items() ^ shared.files.items()})
        shared.files = now  # the next test is not to blame
        pytest.fail(
            f"this test, or a fixture of its file, wrote into the run that all tests share: {changed}"
        )


@pytest.fixture(scope="session", autouse=True)
def decoders_are_kept() -> Iterator[None]:
    """A process that decodes serves the next tests too, and is forked: each takes three seconds to start."""
    from elsewhere import decoder

    from peakzoom.video import guard

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "KEPT", 3)
        patch.setattr(guard, "RENEW_AFTER", 5000)
        patch.setattr(guard, "_begin", decoder)
        yield


@pytest.fixture(scope="module")
def started_decoders() -> Iterator[None]:
    """Processes that decode are started as a user's are, and not forked."""
    from elsewhere import START

    from peakzoom.video import guard

    with pytest.MonkeyPatch.context() as patch:
        guard._end_idle()
        patch.setattr(guard, "_begin", START)
        yield
        guard._end_idle()


@pytest.fixture(scope="session", autouse=True)
def converted_once() -> Iterator[None]:
    """A network is traced and converted once for all tests that want its graph: that takes twenty seconds.

    They belong into one process, so they are marked with :data:`GRAPH`.
    """
    try:
        from peakzoom.inference.engines import onnx, openvino
    except ImportError:  # without the extra export; its tests skip themselves
        yield
        return
    from peakzoom.model.load import digest

    true, graphs = onnx.to_onnx, {}

    def once(model: PeakZoom) -> bytes:
        key = digest(model), json.dumps(model._hub_mixin_config, sort_keys=True, default=str)
        if key not in graphs:
            graphs[key] = true(model)
        return graphs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "to_onnx", once)
        patch.setattr(openvino, "to_onnx", once)
        yield


@pytest.fixture(scope="module")
def no_curves() -> Iterator[None]:
    """Trainings of this module draw none, which takes longer than they do; ``run`` has them."""
    from tiny import undrawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("peakzoom.training.log.curves_figure", undrawn)
        yield


class DecodesHere:
    """A guard that decodes in this process, where a test can watch it."""

    pid, files = 1, 1

    def run(self, path: Path, work: Callable[..., Any], *arguments: Any, rest: bool = False) -> Any:
        return work(*arguments)

    stream = run


@pytest.fixture
def decoded_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Every file that was opened to be decoded, one entry a decode, where a video is held."""
    from peakzoom.video import held, holding, scan, stored

    files: list[Path] = []
    true = scan.open_file

    def counted(path: Path) -> Any:
        files.append(path)
        return true(path)

    @contextmanager
    def here() -> Iterator[list[DecodesHere]]:
        yield [DecodesHere()]

    monkeypatch.setattr(held, "guards", here)
    for module in (scan, stored):
        monkeypatch.setattr(module, "open_file", counted)
    yield files
    holding.drop()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the library has logged so far in this test."""
    caplog.set_level(logging.INFO, logger="peakzoom")
    return lambda: [each.getMessage() for each in caplog.records if each.name.startswith("peakzoom")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
    program = os.environ.get("PEAKZOOM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt install chromium, or name one in PEAKZOOM_CHROMIUM")
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--use-fake-ui-for-media-stream",  # a camera that shows a moving test picture
        "--use-fake-device-for-media-stream",
    ]
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=program, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """Twelve seconds, ten frames each, a key frame every second."""
    return make_clip(tmp_path_factory.mktemp("long") / "a b.mp4", frames=120, fps=10)


@pytest.fixture
def drawn_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure is empty, which takes a tenth of the time; other tests draw it."""
    from peakzoom.apps.watch.evidence import exhibit
    from peakzoom.display.figures import Plot

    monkeypatch.setattr(exhibit, "draw_figure", lambda evidence, moments: Plot(figsize=(3, 2)))


@pytest.fixture
def by_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run ``peakzoom watch`` in this process: exit code, standard output, standard error."""

    from peakzoom.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["peakzoom", "watch", *map(str, arguments), "--device", "cpu"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return run
