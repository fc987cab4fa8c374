"""A web page for a trained model: drop a clip or use the camera, see the answer and why. Gradio.

What a stranger may do is bounded here: how large, how long and how many their files are, how many wait; nothing that
they send is kept. A file counts only if Gradio itself put it into this server's folder of uploads, whatever path the
browser claims.
"""

from __future__ import annotations

import csv
import html
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peakzoom.errors import DecodeError, UserError, printable
from peakzoom.evidence import Evidence
from peakzoom.evidence.draw import sheet
from peakzoom.evidence.save import write_film
from peakzoom.memory import return_freed_memory
from peakzoom.predict import Prediction, Protocol, Recognizer
from peakzoom.video.decode import scan
from peakzoom.video.guard import guarded

ANSWER = "the answer"  # in place of a class: the evidence for whatever the answer is
MOST_RATE = 60  # frames a second, for the limit on length
SESSIONS = 256  # that Gradio remembers, 60 kB each; it would keep 10,000, and nothing here needs one
BRANCHES = ("fused", "original", "discriminative", "complementary")


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        megabytes: of a file.
        seconds: of a video.
        files: in the batch tab.
        waiting: requests that may wait; more are turned away.
        minutes: after which everything a visitor sent or got is removed.
    """

    megabytes: int = 100
    seconds: float = 60.0
    files: int = 20
    waiting: int = 50
    minutes: int = 10


class Desk:
    """Answers requests, one after the other: the network uses all cores by itself.

    Args:
        recognizer: the model.
        protocol: views of a video.
        limits: what is refused.
        folder: where uploads are (Gradio's) and results go.
    """

    def __init__(self, recognizer: Recognizer, protocol: Protocol, limits: Limits, folder: Path) -> None:
        self.recognizer, self.protocol, self.limits = recognizer, protocol, limits
        self.folder = folder.resolve()
        self._one = threading.Lock()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One request at a time. What it freed is given back, or the heaps grow with every film."""
        with self._one:
            try:
                yield
            finally:
                return_freed_memory()

    def admit(self, path: str | Path) -> Path:
        """A file that may be looked at.

        Raises:
            UserError: it is no upload of this server, too large, or too long; or gives no frame.
        """
        limits = self.limits
        file = Path(path).resolve()
        if not file.is_relative_to(self.folder) or not file.is_file():
            raise UserError("this is no file that was uploaded here: choose one from your device")
        size = file.stat().st_size / 1e6
        if size > limits.megabytes:
            raise UserError(f"the file has {size:.0f} MB, expected at most {limits.megabytes} MB: cut it")
        most = round(limits.seconds * MOST_RATE)
        try:
            seconds = guarded(file, scan, file, 0, most).info.duration
        except DecodeError as error:
            raise UserError(f"{shown_name(file)}: {error.reason}") from error
        if seconds > limits.seconds:
            raise UserError(
                f"the video lasts {seconds:.0f} seconds, expected at most {limits.seconds:g}: cut it, "
                "or use 'peakzoom watch' for long ones"
            )
        return file

    def explain(self, path: str | Path, target: str = ANSWER) -> tuple[Evidence, Path, Path]:
        """The answer, and the film and the sheet of its evidence. Errors as of :meth:`admit`."""
        if target != ANSWER and target not in self.recognizer.classes:
            raise UserError("no class is called so: choose one from the list")
        with self._turn(), _named(path):
            file = self.admit(path)
            asked = None if target == ANSWER else target
            evidence = self.recognizer.explain(file, asked, self.protocol, progress=False)
            made = self._new_folder()
            film, picture = made / "evidence.mp4", made / "evidence.png"
            write_film(evidence, film)
            sheet(evidence).savefig(picture, dpi=80)
            return evidence, film, picture

    def predict(self, path: str | Path) -> Prediction:
        """The answer alone. Errors as of :meth:`admit`."""
        with self._turn(), _named(path):
            return self.recognizer.predict(self.admit(path), self.protocol)

    def table(self, paths: Sequence[str | Path]) -> tuple[list[list[str]], Path]:
        """A row a file, what could not be read with its reason; and the same as CSV, with every class's score.

        Raises:
            UserError: too many files.
        """
        if len(paths) > self.limits.files:
            raise UserError(
                f"{len(paths)} files came, expected at most {self.limits.files}: send them in parts"
            )
        classes = self.recognizer.classes
        rows: list[list[str]] = []
        lines = [["file", "class", "score", "problem", *classes]]
        for path in paths:
            name = shown_name(path)
            try:
                found = self.predict(path)
            except UserError as error:
                lines.append([_cell(name), "", "", str(error), *([""] * len(classes))])
                rows.append([name, "", "", str(error)])
                continue
            best, score = found.top(1)[0]
            values = [repr(value) for value in found.scores["fused"].tolist()]
            lines.append([_cell(name), _cell(best), repr(score), found.problem or "", *values])
            rows.append([name, best, f"{score:.3f}", found.problem or ""])
        file = self._new_folder() / "answers.csv"  # only now: the sweeper goes by age
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(lines)
        return rows, file

    def _new_folder(self) -> Path:
        made = self.folder / "made" / uuid4().hex
        made.mkdir(parents=True)
        return made


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Whatever goes wrong with a file is told by its name alone, never by where it lies."""
    try:
        yield
    except DecodeError as error:
        raise UserError(f"{shown_name(path)}: {error.reason}") from error


def shown_name(path: str | Path) -> str:
    """A file's name for people: one line that any page or table can hold, not too long."""
    name = printable(" ".join(Path(path).name.split()))
    return name if len(name) <= 80 else name[:60] + "..." + name[-16:]


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


class Sweeper(threading.Thread):
    """Removes what is older than the limit, every half minute, but for what was there at the start (the examples).

    What a request still waits for stays, however old, unless there is too much of it.

    Args:
        folder: of uploads and results.
        minutes: how old a file may get.
        megabytes: that may lie there; above, the oldest go first, whatever their age, and then what is waited for,
            the newest first: those who came early are answered sooner.
        awaited: gives the files of requests that are not answered yet.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float,
        megabytes: float = float("inf"),
        awaited: Callable[[], set[Path]] = set,
    ) -> None:
        super().__init__(daemon=True)
        self.folder, self.seconds, self.bytes = folder, 60 * minutes, 1e6 * megabytes
        self.awaited = awaited
        self.kept = {each for each in folder.rglob("*") if each.is_file()}
        self._stop_now = threading.Event()

    def run(self) -> None:
        """Until :meth:`stop`."""
        while not self._stop_now.wait(30):
            self.sweep(time.time())

    def sweep(self, now: float) -> int:
        """Remove what is too old at that time (seconds since 1970); how many files that were."""
        files: list[tuple[float, int, Path]] = []
        folders: list[tuple[float, int, Path]] = []
        for each in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # gone already
                state = each.lstat()
                kind = folders if stat.S_ISDIR(state.st_mode) else files
                kind.append((state.st_mtime, state.st_size, each))
        count, total = 0, sum(size for _, size, _ in files)
        files = sorted(each for each in files if each[2] not in self.kept)
        awaited = self.awaited()
        free = [each for each in files if each[2] not in awaited]
        bound = [each for each in reversed(files) if each[2] in awaited]
        for changed, size, each in [*free, *bound]:
            if total > self.bytes or (now - changed > self.seconds and each not in awaited):
                each.unlink(missing_ok=True)
                count, total = count + 1, total - size
        for changed, _, each in sorted(
            folders, key=lambda folder: folder[2], reverse=True
        ):  # inner ones first
            if now - changed > self.seconds:
                with suppress(OSError):  # it is not empty
                    each.rmdir()
        return count

    def stop(self) -> None:
        """Let the thread end."""
        self._stop_now.set()


def build(desk: Desk, examples: Sequence[Path] = ()) -> gr.Blocks:
    """The page.

    Args:
        desk: answers.
        examples: files to try, shown below the first tab.
    """
    limits, classes = desk.limits, desk.recognizer.classes

    def one(file: str | None, target: str) -> tuple[Any, ...]:
        if not file:
            raise gr.Error("No clip came: drop a video file, or record one.", print_exception=False)
        try:
            evidence, film, picture = desk.explain(file, target)
        except UserError as error:
            raise gr.Error(_sentence(error), print_exception=False) from error
        found = evidence.prediction
        best = dict(found.top(5))
        rows = [
            [name, *_best(found, name)] for name in BRANCHES if name in found.scores
        ]  # the four predictions, one answer
        name, score = found.top(1)[0]
        line = f"{name}, {score:.2f}. Evidence for {evidence.target}: {len(evidence.peaks)} peaks."
        if found.problem:
            line += f" The file: {found.problem}."
        return line, best, rows, str(film), str(picture)

    def several(files: list[str] | None) -> tuple[Any, ...]:
        if not files:
            raise gr.Error("No file came: choose some videos.", print_exception=False)
        try:
            rows, file = desk.table(files)
        except UserError as error:
            raise gr.Error(_sentence(error), print_exception=False) from error
        return rows, str(file)

    with gr.Blocks(title="peakzoom", analytics_enabled=False) as page:
        gr.Markdown("# peakzoom\nWhich action is it, and where and when was it seen?")
        with gr.Tab("One clip"):
            with gr.Row():
                with gr.Column(min_width=280):
                    gr.Markdown(f"A clip of at most {limits.seconds:g} seconds and {limits.megabytes} MB:")
                    clip = gr.Video(
                        show_label=False,
                        sources=["upload", "webcam"],
                        include_audio=True,  # to leave it out Gradio would call a program named ffmpeg
                        webcam_options=gr.WebcamOptions(mirror=False),
                        height=300,
                    )
                    target = gr.Dropdown([ANSWER, *classes], value=ANSWER, label="Evidence for")
                    go = gr.Button("Recognise", variant="primary")
                with gr.Column(min_width=280):
                    answer = gr.Textbox(label="Answer", interactive=False, elem_id="answer")
                    scores = gr.Label(label="Fused answer", num_top_classes=5)
                    branches = gr.Dataframe(
                        headers=["branch", "class", "score"],
                        label="Branches: four predictions, one answer",
                        datatype=["str", "str", "str"],
                        interactive=False,
                    )
            gr.Markdown("What was seen, as a film and as a sheet:")
            film = gr.Video(
                show_label=False, interactive=False, autoplay=True, loop=True, buttons=["download"]
            )
            picture = gr.Image(
                show_label=False,
                interactive=False,
                type="filepath",
                format="png",
                buttons=["download", "fullscreen"],
            )
            if examples:
                gr.Examples([[str(each)] for each in examples], [clip], label="Clips to try")
            go.click(
                one,
                [clip, target],
                [answer, scores, branches, film, picture],
                api_visibility="private",
                concurrency_limit=1,
                concurrency_id="desk",
            )
        with gr.Tab("Several files"):
            # No file_types: Gradio goes by the ending, and would refuse all files for one that is called otherwise, as
            # GIFs are. Here each has its row.
            files = gr.File(label=f"At most {limits.files} videos", file_count="multiple", type="filepath")
            all_go = gr.Button("Recognise all", variant="primary")
            table = gr.Dataframe(
                headers=["file", "class", "score", "problem"],
                datatype=["str", "str", "str", "str"],
                interactive=False,
                wrap=True,
            )
            sheet_file = gr.File(label="All scores as CSV", interactive=False)
            all_go.click(
                several,
                [files],
                [table, sheet_file],
                api_visibility="private",
                concurrency_limit=1,
                concurrency_id="desk",
            )
        with gr.Tab("About"):
            gr.Markdown(_about(desk))
    page.queue(max_size=limits.waiting, default_concurrency_limit=1, api_open=False)
    return page


def _best(found: Prediction, branch: str) -> tuple[str, str]:
    values = found.scores[branch]
    index = int(values.argmax())
    return found.classes[index], f"{float(values[index]):.3f}"


def _sentence(error: UserError) -> str:
    """For a box that shows HTML: names of files and classes are text."""
    return html.escape(str(error), quote=False) + "."


def _about(desk: Desk) -> str:
    pre, limits = desk.recognizer.preprocess, desk.limits
    names = ", ".join(f"`{name.replace('`', chr(39))}`" for name in desk.recognizer.classes)
    views = desk.protocol.clips * desk.protocol.crops
    return (
        f"The model knows {len(desk.recognizer.classes)} classes: {names}. It names one of them whatever it sees.\n\n"
        f"It looks at clips of {pre.frames} frames of {pre.size} x {pre.size} pixels, {views} views of a video. "
        f"Scores add up to 1 and are not calibrated.\n\n"
        f"What you send stays on this server and is removed after {limits.minutes} minutes. "
        f"[peakzoom](https://doi.org/10.1155/2022/5094801) follows Zhou, Li, Wang and Li (2022)."
    )


def _awaited(page: gr.Blocks) -> set[Path]:
    """The files that unanswered requests name, waiting or being answered: only Gradio's queue knows of those."""
    events = list(page._queue.event_ids_to_events.values())
    return {file for event in events if event.data for file in _named_files(event.data.data)}


def _named_files(data: Sequence[Any]) -> Iterator[Path]:
    """What a request says its files are: a file or a list of them in each place. A stranger may write anything."""
    for part in data:
        for each in part if isinstance(part, list) else [part]:
            if isinstance(each, dict) and isinstance(each.get("path"), str):
                with suppress(
                    OSError, ValueError, RuntimeError
                ):  # no path: a null, too long, links in a circle
                    yield Path(each["path"]).resolve()


class HangUp:
    """Closes the connection of an upload that was refused as too large.

    Gradio says so at once, but the server would go on taking, and throwing away, whatever is still sent, for ever if
    the sender likes.

    Args:
        app: what is served.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 413:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self.app(scope, receive, told)


def theme() -> gr.Theme:
    """Gradio's plain theme with the system's fonts: the default one fetches fonts from elsewhere."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


@contextmanager
def server(
    recognizer: Recognizer,
    protocol: Protocol | None = None,
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    examples: Sequence[Path] = (),
) -> Iterator[str]:
    """The page while the block lasts; gives its address. Uploads and results are removed at the end.

    Args:
        recognizer: the model.
        protocol: views of a video; three clips of one crop when not given.
        limits: what is refused.
        host: address to listen on; "0.0.0.0" is every one of this machine.
        port: a free one from 7860 on when not given.
        examples: videos to try.

    Raises:
        UserError: the port is taken.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="peakzoom-serve-") as folder, _uploads_go_to(folder):
        desk = Desk(recognizer, protocol or Protocol(clips=3, crops=1), limits, Path(folder))
        page = build(desk, examples)
        try:
            _, local, _ = page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                inbrowser=False,
                max_file_size=limits.megabytes * 1_000_000,
                state_session_capacity=SESSIONS,
                allowed_paths=[],
                footer_links=[],
                ssr_mode=False,
                enable_monitoring=False,
                mcp_server=False,
                app_kwargs={"middleware": [Middleware(HangUp)]},
                theme=theme(),
                strict_cors=True,
            )
        except OSError as error:
            raise UserError(f"port {port} cannot be used, name another with --port: {error}") from error
        # Room for one of the largest files from each that waits.
        most = limits.megabytes * limits.waiting
        sweeper = Sweeper(desk.folder, limits.minutes, most, lambda: _awaited(page))
        sweeper.sweep(time.time())  # what fails here is seen; in the thread it would not be
        sweeper.start()
        try:
            yield local
        finally:
            sweeper.stop()
            page.close(verbose=False)


@contextmanager
def _uploads_go_to(folder: str) -> Iterator[None]:
    """Gradio reads where uploads go from the environment."""
    name = "GRADIO_TEMP_DIR"
    before = os.environ.get(name)
    os.environ[name] = folder
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
