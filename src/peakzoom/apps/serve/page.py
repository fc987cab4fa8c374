"""A web page for a trained model: drop a clip or use the camera, see the answer and why. Gradio.

What a stranger may do is bounded here: how large, how long and how many their files are, how many wait; nothing that
they send is kept. A file counts only if Gradio itself put it into this server's folder of uploads, whatever path the
browser claims.
"""

from __future__ import annotations

import html
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peakzoom.apps.serve.desk import ANSWER, Desk, Limits
from peakzoom.apps.serve.sweeper import Sweeper, _awaited
from peakzoom.inference.prediction import Prediction
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError
from peakzoom.video.sampling import Views

SESSIONS = 256  # that Gradio remembers, 60 kB each; it would keep 10,000, and nothing here needs one
BRANCHES = ("fused", "original", "discriminative", "complementary")


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
            gr.Markdown("What the network saw, as a video and as a figure:")
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
    count = desk.views.clips * desk.views.crops
    return (
        f"The model knows {len(desk.recognizer.classes)} classes: {names}. It names one of them whatever it sees.\n\n"
        f"It looks at clips of {pre.frames} frames of {pre.size} x {pre.size} pixels, {count} views of a video. "
        f"Scores add up to 1 and are not calibrated.\n\n"
        f"What you send stays on this server and is removed after {limits.minutes} minutes. "
        f"[peakzoom](https://doi.org/10.1155/2022/5094801) follows Zhou, Li, Wang and Li (2022)."
    )


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
    views: Views | None = None,
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    examples: Sequence[Path] = (),
) -> Iterator[str]:
    """The page while the block lasts; gives its address. Uploads and results are removed at the end.

    Args:
        recognizer: the model.
        views: views of a video; three clips of one crop when not given.
        limits: what is refused.
        host: address to listen on; "0.0.0.0" is every one of this machine.
        port: a free one from 7860 on when not given.
        examples: videos to try.

    Raises:
        UserError: the port is taken.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="peakzoom-serve-") as folder, _uploads_go_to(folder):
        desk = Desk(recognizer, views or Views(clips=3, crops=1), limits, Path(folder))
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
