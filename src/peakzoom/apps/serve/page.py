"""A web page for a trained model: drop a clip or use the camera, see the prediction and why. Gradio.

What a stranger may do is bounded here: how large, how long and how many their files are, how many wait; nothing that
they send is kept. A file counts only if Gradio itself put it into this server's folder of uploads, whatever path the
browser claims.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from peakzoom.apps.serve.border import Border, listenable
from peakzoom.apps.serve.errors import HANDLERS, Page, errors_shown
from peakzoom.apps.serve.limits import Limits
from peakzoom.apps.serve.service import PREDICTED, Service
from peakzoom.apps.serve.sweeper import Sweeper, awaited_files
from peakzoom.apps.serve.uploads import Uploads
from peakzoom.inference.prediction import MEASURES, NONE, best_classes
from peakzoom.inference.recognizer import Recognizer
from peakzoom.utils.errors import UserError, printable
from peakzoom.utils.temporary import temporary_folder
from peakzoom.video.sampling import Views

# The clip leaves room for the buttons below it; those of the evidence lie above it, not on what it shows.
STYLE = "#clip video { max-height: 15rem; } #evidence-video, #evidence-figure img { padding-top: 2rem; }"
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
            gr.Markdown(_about(service))
    page.queue(max_size=service.limits.waiting, default_concurrency_limit=1, api_open=False)
    return page


def _one_clip_tab(service: Service, examples: Sequence[Path]) -> None:
    limits = service.limits
    with gr.Row():
        with gr.Column(min_width=280):
            gr.Markdown(f"A clip of at most {limits.seconds:g} seconds and {limits.megabytes} MB:")
            clip = gr.Video(
                show_label=False,
                sources=["upload", "webcam"],
                include_audio=True,  # to leave it out Gradio would call a program named ffmpeg
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="clip",
            )
            choices = [(printable(name), name) for name in (PREDICTED, *service.recognizer.classes)]
            target = gr.Dropdown(choices, value=PREDICTED, label="Evidence for")
            go = gr.Button("Recognise", variant="primary")
        with gr.Column(min_width=280):
            line = gr.Textbox(label="Prediction", interactive=False, elem_id="prediction")
            # Its heading is the class with the highest score, also where that is not what is named.
            always = service.recognizer.rejection is None and not service.recognizer.multi_label
            scores = gr.Label(label="Fused scores", num_top_classes=5, show_heading=always)
            branches = gr.Dataframe(
                headers=["branch", "class", "score"],
                label="What each branch predicts",
                interactive=False,
            )
    gr.Markdown(_averaged(service))
    gr.Markdown("What the network saw, as a video and as a figure:")
    video = gr.Video(
        show_label=False,
        interactive=False,
        autoplay=True,
        loop=True,
        buttons=["download"],
        elem_id="evidence-video",
    )
    figure = gr.Image(
        show_label=False,
        interactive=False,
        type="filepath",
        format="png",
        buttons=["download", "fullscreen"],
        elem_id="evidence-figure",
    )
    if examples:
        gr.Examples([[str(each)] for each in examples], [clip], label="Clips to try")
    outputs = [line, scores, branches, video, figure]
    go.click(partial(_explain, service), [clip, target], outputs, api_name="one", api_visibility="private")


def _several_files_tab(service: Service) -> None:
    # No file_types: Gradio goes by the ending, and would refuse all files for one that is called otherwise, as GIFs
    # are. Here each has its row.
    files = gr.File(label=f"At most {service.limits.files} videos", file_count="multiple", type="filepath")
    go = gr.Button("Recognise all", variant="primary")
    table = gr.Dataframe(headers=["file", "class", "score", "problem"], interactive=False, wrap=True)
    scores = gr.File(label="All scores as CSV", interactive=False)
    gr.Markdown(_averaged(service))
    go.click(
        partial(_predict, service), [files], [table, scores], api_name="several", api_visibility="private"
    )


def _explain(service: Service, file: str | None, target: str) -> tuple[Any, ...]:
    """What the first tab shows of a clip."""
    with errors_shown():
        if not file:
            raise UserError("No clip came: drop a video file, or record one")
        evidence, video, figure = service.explain(file, target)
    prediction = evidence.prediction
    name, score = prediction.top(1)[0]
    line = f"{name}, {score:.2f}."
    if prediction.thresholds is not None:
        named = ", ".join(f"{each} {its:.2f}" for each, its in prediction.labels)
        line = f"{named}." if named else f"{NONE.capitalize()}. Closest: {line}"
    if (confidence := prediction.confidence) and confidence.rejected:
        line = f"{NONE.capitalize()} ({confidence.said}). Closest: {line}"
    line += f" Evidence for {evidence.target}: {len(evidence.peaks)} peaks."
    if prediction.problem:
        line += f" The file: {prediction.problem}."
    scores = {printable(name): score for name, score in prediction.top(5)}
    rows = []
    for branch in ("fused", *prediction.shown_branches):
        ((best, high),) = best_classes(prediction.classes, prediction.scores[branch], 1)
        named = best if prediction.thresholds is None else ", ".join(prediction.reached(branch)) or NONE
        rows.append([branch, printable(named), f"{high:.3f}"])
    return printable(line), scores, rows, str(video), str(figure)


def _predict(service: Service, files: list[str] | None) -> tuple[Any, ...]:
    """What the second tab shows of some files."""
    with errors_shown():
        if not files:
            raise UserError("No file came: choose some videos")
        rows, file = service.table(files)
    return rows, str(file)


def _averaged(service: Service) -> str:
    """What a score is the mean of; where `peakzoom predict` takes other views, its scores are not these."""
    here, usual = service.views, service.recognizer.choose_views(None)
    said = f"Scores are means over {here.clips * here.crops} views of a video"
    if here == usual:
        return f"{said}, as those of `peakzoom predict`."
    return (
        f"{said}; `peakzoom predict` takes {usual.clips * usual.crops}, so that its scores differ a little. This page "
        f"gives the same when it is started with `--num-clips {usual.clips} --crops {usual.crops}`, and takes longer."
    )


def _meant(service: Service) -> str:
    """How far a score can be relied on."""
    if service.recognizer.multi_label:
        return "Scores are of each class by itself and are not calibrated."
    found = service.recognizer.temperature
    if found is None:
        return "Scores add up to 1 and are not calibrated: `peakzoom calibrate`, then `--calibrated`, makes them so."
    return (
        f"Scores add up to 1; fused ones are at the temperature {found.temperature:.2g}, which `peakzoom calibrate` "
        "has found, and come closer to how often such a prediction is right."
    )


def _named(service: Service) -> str:
    """When it names a class."""
    if service.recognizer.multi_label:
        return "It names each that reaches its own threshold: several, one or none."
    found = service.recognizer.rejection
    if found is None:
        return "It names one of them whatever it sees."
    return (
        f"It says {NONE} where the {MEASURES[found.measure]} of its prediction is below {found.threshold:.4g}, which "
        "`peakzoom calibrate --reject` has chosen."
    )


def _about(service: Service) -> str:
    classes, pre = service.recognizer.classes, service.recognizer.preprocess
    names = ", ".join(f"`{printable(name).replace('`', chr(39))}`" for name in classes)
    views = service.views.clips * service.views.crops
    return (
        f"The model knows {len(classes)} classes: {names}. {_named(service)}\n\n"
        f"It looks at clips of {pre.frames} frames of {pre.size} x {pre.size} pixels, {views} views of a video. "
        f"{_meant(service)}\n\n"
        f"What you send stays on this server and is removed after {service.limits.minutes} minutes. "
        f"[peakzoom](https://doi.org/10.1155/2022/5094801) follows Zhou, Li, Wang and Li (2022)."
    )


@contextmanager
def server(
    recognizer: Recognizer,
    views: Views,
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    examples: Sequence[Path] = (),
    allowed_hosts: Sequence[str] = (),
) -> Iterator[str]:
    """The page while the block lasts; gives its address. Uploads and results are removed at the end.

    Args:
        recognizer: the model.
        views: which are averaged.
        limits: what is refused.
        host: address to listen on; "0.0.0.0" is every one of this machine.
        port: a free one from 7860 on when not given.
        examples: videos to try.
        allowed_hosts: other names that the page is reached by, as through a proxy; see
            :mod:`peakzoom.apps.serve.border`.

    Raises:
        UserError: the port is taken, or the host is none of this machine's.
    """
    limits, host = limits or Limits(), listenable(host)
    with temporary_folder("peakzoom-serve-") as folder, _uploads_go_to(str(folder)):
        service = Service(recognizer, views, limits, folder)
        page = build(service, examples)
        local = _launch(page, limits, host, port, allowed_hosts)
        most = limits.megabytes * limits.waiting  # one of the largest files from each request that waits
        sweeper = Sweeper(service.folder, limits.minutes, most, lambda: awaited_files(page))
        sweeper.sweep(time.time())  # what fails here is seen; in the thread it would not be
        sweeper.start()
        try:
            yield local
        finally:
            sweeper.stop()
            page.close(verbose=False)


def _launch(
    page: gr.Blocks, limits: Limits, host: str, port: int | None, allowed_hosts: Sequence[str]
) -> str:
    """Start the server in threads of its own; its address."""
    middleware = [Middleware(Border, host=host, allowed=tuple(allowed_hosts)), Middleware(Uploads)]
    try:
        _, local, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            max_file_size=limits.megabytes * 1_000_000,
            state_session_capacity=SESSIONS,
            allowed_paths=[],
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            app_kwargs={"middleware": middleware, "exception_handlers": HANDLERS},
            # Gradio's plain theme with the system's fonts: the default one fetches fonts from elsewhere.
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=STYLE,
            strict_cors=True,
        )
    except OSError as error:
        which = "all ports from 7860 on" if port is None else f"port {port}"
        raise UserError(f"{which} cannot be used, name another with --port: {error}") from error
    return str(local)


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
