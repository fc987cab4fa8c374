"""A web page for a trained model: drop a clip or use the camera, see the prediction and why. Gradio.

What a stranger may do is bounded here: how large, how long and how many their files are, how many wait; nothing that
they send is kept. A file counts only if Gradio itself put it into this server's folder of uploads, whatever path the
browser claims.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from peakzoom.apps.serve.about import about, averaged
from peakzoom.apps.serve.blocks import HANDLERS, Page, awaited_files
from peakzoom.apps.serve.result import DROP, LOADING, LOOKING, evidence_html, hint, prediction_html, problem
from peakzoom.apps.serve.service import PREDICTED, Service, display_name
from peakzoom.inference.prediction import Prediction
from peakzoom.utils.errors import UserError, printable

STYLE = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")
SESSIONS = 256  # that Gradio remembers, 60 kB each; it would keep 10,000, and nothing here needs one


def build(service: Service, examples: Sequence[Path]) -> gr.Blocks:
    """The page; the examples are files to try, shown below the first tab."""
    with Page(title="peakzoom", analytics_enabled=False) as page:
        gr.Markdown("# peakzoom\nWhich action is it, and where and when was it seen?")
        with gr.Tab("One clip"):
            _one_clip_tab(service, examples)
        with gr.Tab("Several files"):
            _several_files_tab(service)
        with gr.Tab("About"):
            gr.Markdown(about(service))
    page.queue(max_size=service.limits.waiting, default_concurrency_limit=1, api_open=False)
    return page


def _one_clip_tab(service: Service, examples: Sequence[Path]) -> None:
    limits = service.limits
    with gr.Row():
        with gr.Column(scale=3, min_width=280):
            clip = gr.Video(
                label=f"A clip of at most {limits.seconds:g} seconds and {limits.megabytes} MB",
                sources=["upload", "webcam"],
                include_audio=True,  # to leave it out Gradio would call a program named ffmpeg
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="clip",
            )
        with gr.Column(scale=1, min_width=200):
            if examples:
                gr.Examples(
                    [[str(each)] for each in examples],
                    [clip],
                    label="Clips to try",
                    example_labels=[display_name(each) for each in examples],
                )
    said = gr.HTML(hint(DROP), elem_id="prediction")
    choices = [(printable(name), name) for name in (PREDICTED, *service.recognizer.classes)]
    target = gr.Dropdown(choices, value=PREDICTED, label="Evidence for")
    seen = gr.HTML(elem_id="evidence")
    gr.on(
        [clip.change, target.input],
        partial(answers, service),
        [clip, target],
        [said, seen],
        api_name="one",
        api_visibility="private",
        trigger_mode="always_last",
        show_progress="hidden",  # the page says itself how far it is
    )


def _several_files_tab(service: Service) -> None:
    # No file_types: Gradio goes by the ending, and would refuse all files for one that is called otherwise, as GIFs
    # are. Here each has its row.
    files = gr.File(label=f"At most {service.limits.files} videos", file_count="multiple", type="filepath")
    go = gr.Button("Recognise all", variant="primary")
    table = gr.Dataframe(
        headers=["file", "class", "score", "problem"],
        interactive=False,
        wrap=True,
        column_widths=["27%", "20%", "21%", "32%"],  # also where a phone has no room for more
        label="Predictions",
        show_label=False,
    )
    scores = gr.File(label="All scores as CSV", interactive=False)
    said = gr.HTML(hint(averaged(service)), elem_id="predictions")
    go.click(
        *(partial(_predict, service), [files], [table, scores, said]),
        api_name="several",
        api_visibility="private",
    )


def answers(service: Service, file: str | None, target: str) -> Iterator[tuple[str, str]]:
    """What the first tab shows of a clip, as HTML: the prediction as soon as it is there, then the evidence with it."""
    if not file:
        yield hint(DROP), ""
        return
    yield hint(LOADING), ""
    first = ""
    try:
        with closing(service.look(file, target)) as steps:
            for step in steps:
                if isinstance(step, Prediction):
                    first = prediction_html(step, averaged(service))
                    yield first, hint(LOOKING)
                else:
                    yield first, evidence_html(service.show(step))
    except Exception as error:  # noqa: BLE001 (it is logged there, and the visitor is told)
        yield (first, problem(error)) if first else (problem(error), "")


def _predict(service: Service, files: list[str] | None) -> tuple[Any, ...]:
    """What the second tab shows of some files."""
    try:
        if not files:
            raise UserError("No file came: choose some videos")
        rows, file = service.table(files)
    except Exception as error:  # noqa: BLE001 (it is logged there, and the visitor is told)
        return [], None, problem(error)
    return rows, str(file), hint(averaged(service))


@contextmanager
def mounted(app: FastAPI, service: Service, examples: Sequence[Path]) -> Iterator[Callable[[], set[Path]]]:
    """The page at the root of an application, behind its other routes, while the block lasts.

    Gives a function for the files of requests to the page that are not answered yet.
    """
    with _uploads_go_to(str(service.folder)):
        page = build(service, examples)
        page.state_session_capacity = SESSIONS
        # Until these are set, Gradio reads any path that a request names and shows any drawing as a page of its own:
        # both are meant for an author at work, and a page that is mounted never sets them by itself.
        page.has_launched = page.is_running = True
        gr.mount_gradio_app(
            app,
            page,
            path="/",
            max_file_size=service.limits.megabytes * 1_000_000,
            allowed_paths=[],
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            app_kwargs={"exception_handlers": HANDLERS},
            # Gradio's plain theme with the system's fonts: the default one fetches fonts from elsewhere.
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css_paths=[STYLE],
            js=SCRIPT.read_text(encoding="utf-8"),
        )
        try:
            yield lambda: awaited_files(page)
        finally:
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
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
