"""The application of the API: its routes, its document at /docs, and a sentence for every error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from peakzoom import __version__
from peakzoom.apps.serve.api.desk import Desk
from peakzoom.apps.serve.api.models import Problem
from peakzoom.apps.serve.api.routes import router
from peakzoom.apps.serve.bearer import OPEN
from peakzoom.apps.serve.errors import OWN_MISTAKE
from peakzoom.apps.serve.refusals import PROBLEM, problem_response
from peakzoom.utils.errors import printable

ABOUT = (
    "Recognises actions in videos and shows what it saw. One video a request, as the field `file` of a form "
    "(multipart/form-data). Errors are one sentence, as problem details (RFC 9457)."
)
NO_FILE = "The form has no file: send a video as its field 'file', as curl -F file=@clip.mp4 does."
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
ALWAYS = (403, 500)  # of every path: another host or origin, a mistake of the server
WORK = (400, 408, 413, 422, 503, 507)  # of a path that takes a file
MORE = {  # of single paths
    "/v1/explain": (501,),
    "/v1/jobs/{job}": (404, 422),
    "/v1/jobs/{job}/result": (404, 409, 413, 422, 507),
    "/v1/jobs/{job}/evidence.{kind}": (404, 409, 413, 422, 501, 507),
}


def build_api(desk: Desk, middleware: list[Middleware], with_token: bool) -> FastAPI:
    """The application, whose pages need no other server.

    Args:
        desk: does the work.
        middleware: what a request passes first, the outermost first.
        with_token: whether the document says that a token is wanted.
    """
    app = FastAPIOffline(
        title="peakzoom",
        version=__version__,
        description=ABOUT,
        redoc_url=None,
        middleware=middleware,
        exception_handlers={
            HTTPException: _http_problem,
            RequestValidationError: _form_problem,
            Exception: _own_mistake,
        },
        swagger_ui_parameters={"defaultModelsExpandDepth": 0},
    )
    app.state.desk = desk
    app.include_router(router, dependencies=[Depends(HTTPBearer(auto_error=False))] if with_token else None)
    for path in ("/v1/{path:path}", "/healthz", "/metrics"):  # or else they were the page's
        app.add_route(path, _nothing, METHODS, include_in_schema=False)
    document = app.openapi()
    _document_problems(document, with_token)
    return app


async def _nothing(request: Request) -> Response:
    """A path that is none, or takes other methods."""
    known = [route for route in router.routes if isinstance(route, Route)]
    fitting = [route for route in known if route.matches(request.scope)[0] is not Match.NONE]
    allowed = sorted({method for route in fitting for method in route.methods or ()})
    raise HTTPException(405 if allowed else 404, headers={"allow": ", ".join(allowed)} if allowed else None)


def _http_problem(request: Request, error: Exception) -> Response:
    """What a path or method gives that is none, and a form that cannot be read."""
    assert isinstance(error, HTTPException)
    sentence = {
        404: f"There is nothing at {printable(request.url.path)[:200]}: /docs lists what there is.",
        405: f"{printable(request.url.path)[:200]} takes no {printable(request.method)}: /docs lists what it takes.",
        400: f"The form cannot be read: {str(error.detail)[:1].lower()}{str(error.detail)[1:].rstrip('.')}.",
    }.get(error.status_code, f"{error.detail}.")
    return problem_response(error.status_code, sentence, error.headers)


def _form_problem(request: Request, error: Exception) -> Response:
    """A field that is missing or not as expected: the first of them."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    name, said = str(first["loc"][-1]), str(first["msg"])
    if name == "file":
        return problem_response(422, NO_FILE)
    return problem_response(
        422, f"The field {name} cannot be used: {said[:1].lower()}{said[1:].rstrip('.')}."
    )


def _own_mistake(request: Request, error: Exception) -> Response:
    return problem_response(500, OWN_MISTAKE)  # Starlette raises the error on, for the log


def _document_problems(document: dict[str, Any], with_token: bool) -> None:
    """Name in an OpenAPI document the problems that each path may answer with."""
    schemas = document["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            statuses = [*ALWAYS, *(WORK if "requestBody" in operation else ()), *MORE.get(path, ())]
            if path in OPEN:
                operation.pop("security", None)
            elif with_token:
                statuses.append(401)
            operation["responses"].pop("422", None)
            for status in sorted(set(statuses)):
                operation["responses"][str(status)] = {
                    "description": HTTPStatus(status).phrase,
                    "content": content,
                }
