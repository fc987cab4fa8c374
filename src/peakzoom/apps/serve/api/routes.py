"""The paths of the API. What they ask for is done by the desk; here is only how it is asked and answered."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from peakzoom.apps.serve.api import models
from peakzoom.apps.serve.api.desk import Desk
from peakzoom.apps.serve.errors import Told, told
from peakzoom.apps.serve.refusals import problem_response
from peakzoom.apps.serve.service import Picture

MEDIA: dict[Picture, str] = {"mp4": "video/mp4", "png": "image/png"}
MOST_FIELDS, MOST_FIELD_BYTES = 8, 8192  # of a form, beside its file


class WorkRoute(APIRoute):
    """A route whose form is small but for one file, which ends when its client leaves, and fails with a sentence."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                async with request.form(
                    max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES
                ):  # FastAPI takes it from here
                    return await _while_there(request, handler(request))
            except (HTTPException, RequestValidationError, ClientDisconnect):
                raise
            except Exception as error:  # noqa: BLE001 (it is logged there, and the client is told)
                return _refused(told(error))

        return answer


async def _while_there(request: Request, answering: Coroutine[Any, Any, Response]) -> Response:
    """The answer; what makes it is cancelled where the client leaves."""
    answer = asyncio.ensure_future(answering)
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        for each in (answer, left):
            each.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refused(what: Told) -> Response:
    return problem_response(*what, {"retry-after": "5"} if what.status == 503 else None)


def _desk(request: Request) -> Desk:
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk


DeskOf = Annotated[Desk, Depends(_desk)]
Upload = Annotated[UploadFile, File(description="A video, in any format that FFmpeg decodes.")]
Target = Annotated[
    str | None,
    Form(alias="class", description="The class that the evidence is for; the predicted one when not given."),
]
Kind = Literal["json", "mp4", "png"]
MP4_OR_PNG = {
    "description": "JSON, or the picture that `format` asks for.",
    "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA.values()},
}

router = APIRouter(route_class=WorkRoute)


@router.post(
    "/v1/predict",
    tags=["At once"],
    summary="Recognise the action in a clip",
    response_model=models.Prediction,
    response_model_exclude_unset=True,
)
async def predict(desk: DeskOf, file: Upload) -> Any:
    """The line that `peakzoom predict --jsonl` writes of the file, to the last digit.

    `curl -F file=@clip.mp4 http://127.0.0.1:7860/v1/predict`
    """
    return await desk.predict(file.filename or "", file.file)


@router.post(
    "/v1/explain",
    tags=["At once"],
    summary="Where, when and how sure",
    response_model=models.Evidence,
    response_model_exclude_unset=True,
    responses={200: MP4_OR_PNG},
)
async def explain(desk: DeskOf, file: Upload, target: Target = None, format: Kind = "json") -> Any:
    """The prediction and what the network saw: as JSON, as a video (`format=mp4`) or as a figure (`format=png`).

    `curl -F file=@clip.mp4 'http://127.0.0.1:7860/v1/explain?format=mp4' -o evidence.mp4`
    """
    if format == "json":
        return await desk.explain(file.filename or "", file.file, target)
    picture = await desk.picture(file.filename or "", file.file, target, format)
    return _picture(picture, format, BackgroundTask(shutil.rmtree, picture.parent, ignore_errors=True))


def _picture(file: Path, kind: Picture, afterwards: BackgroundTask | None = None) -> Response:
    return FileResponse(file, media_type=MEDIA[kind], filename=file.name, background=afterwards)


@router.post(
    "/v1/jobs",
    tags=["Jobs"],
    summary="Send a long file",
    status_code=202,
    response_model=models.Job,
)
async def add_job(
    desk: DeskOf,
    response: Response,
    file: Upload,
    task: Annotated[models.Task, Form(description="What to do with the file.")] = "predict",
    target: Target = None,
) -> Any:
    """The file is worked on when its turn comes; ask for the job until its state is done or failed.

    `curl -F file=@long.mp4 -F task=explain http://127.0.0.1:7860/v1/jobs`
    """
    job = await desk.add_job(file.filename or "", file.file, task, target)
    response.headers["location"] = job["links"]["self"]
    return job


@router.get("/v1/jobs/{job}", tags=["Jobs"], summary="How a job stands", response_model=models.Job)
async def job_state(desk: DeskOf, job: str) -> Any:
    """Its state and, once it is done, where its results are."""
    return desk.jobs.state(job)


@router.get(
    "/v1/jobs/{job}/result",
    tags=["Jobs"],
    summary="What a job found",
    response_model=models.Evidence | models.Prediction,
    response_model_exclude_unset=True,
)
async def job_result(desk: DeskOf, job: str) -> Any:
    """As `/v1/predict` or `/v1/explain` answer. Of a job that failed, the problem."""
    found = desk.jobs.result(job)
    return _refused(found) if isinstance(found, Told) else found


@router.get(
    "/v1/jobs/{job}/evidence.{kind}",
    tags=["Jobs"],
    summary="The video or the figure of a job's evidence",
    response_class=FileResponse,
    responses={200: MP4_OR_PNG},
)
async def job_picture(desk: DeskOf, job: str, kind: Picture) -> Any:
    """Of a job with `task=explain`."""
    found = desk.jobs.picture(job, kind)
    return _refused(found) if isinstance(found, Told) else _picture(found, kind)


@router.delete("/v1/jobs/{job}", tags=["Jobs"], summary="Remove a job", status_code=204)
async def remove_job(desk: DeskOf, job: str) -> None:
    """Its results are removed; one that is being worked on ends as soon as it can."""
    desk.jobs.remove(job)


@router.get("/v1/model", tags=["The server"], summary="The model", response_model=models.ModelInfo)
async def model(desk: DeskOf) -> Any:
    """Its classes, how many views are averaged, and what is refused."""
    return desk.about()


@router.get(
    "/healthz",
    tags=["The server"],
    summary="Is it well?",
    response_model=models.Health,
)
async def health(desk: DeskOf) -> Any:
    """Answers without a token."""
    unfinished = desk.jobs.count("waiting") + desk.jobs.count("running")
    return {"well": True, "waiting": desk.waiting, "jobs": unfinished}


@router.get(
    "/metrics",
    tags=["The server"],
    summary="Counts for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."}},
)
async def metrics(desk: DeskOf) -> Response:
    """Requests by path and status, how long they took, jobs by state."""
    return Response(desk.metrics.text(), media_type=desk.metrics.content_type)
