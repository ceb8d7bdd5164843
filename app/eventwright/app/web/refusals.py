"""Every error as the caller is told: a problem document with the right status, whoever raised it."""

from __future__ import annotations

import logging
from dataclasses import replace

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from eventwright.app.wire.problems import MEDIA_TYPE, Problem, ProblemType, problem_of
from eventwright.runs.errors import EventwrightError

log = logging.getLogger(__name__)

#: Headers that belong to a problem.
_HEADERS = {
    ProblemType.UNAUTHENTICATED: {"WWW-Authenticate": "Bearer"},
}


def problem_response(problem: Problem, path: str) -> Response:
    """The answer that tells the caller of this path about a problem."""
    body = (problem if problem.instance else replace(problem, instance=path)).body()
    headers = dict(_HEADERS.get(problem.type, {}))
    if "retry_after" in problem.extensions:
        headers["Retry-After"] = str(problem.extensions["retry_after"])
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def tell_problems(api: FastAPI) -> None:
    """Let this API answer every error with a problem document."""
    api.exception_handler(EventwrightError)(_ours)
    api.exception_handler(RequestValidationError)(_bad_parameter)
    api.exception_handler(HTTPException)(_frameworks)
    api.exception_handler(ClientDisconnect)(_gone)
    api.exception_handler(Exception)(_unforeseen)


def logged_problem(error: Exception) -> Problem:
    """The problem that an error is; what the caller is not told stands in the log."""
    problem = problem_of(error)
    if problem.type in (ProblemType.INTERNAL, ProblemType.UNAVAILABLE):
        log.error(
            "answered with %s: %s", problem.status, error, exc_info=problem.type is ProblemType.INTERNAL and error
        )
    elif problem.type is ProblemType.BAD_SIGNATURE:
        log.warning("a webhook was refused: %r", error.__cause__ or "no signature fits")
    return problem


async def _ours(request: Request, error: EventwrightError) -> Response:
    return problem_response(logged_problem(error), request.url.path)


async def _bad_parameter(request: Request, error: RequestValidationError) -> Response:
    """A parameter of the address or the query. One in the path names something that cannot be there."""
    errors = [{"at": ".".join(map(str, fault["loc"])), "problem": fault["msg"]} for fault in error.errors()]
    in_path = any(fault["loc"][0] == "path" for fault in error.errors())
    problem_type = ProblemType.NOT_FOUND if in_path else ProblemType.BAD_REQUEST
    detail = "; ".join(f"{fault['at']}: {fault['problem']}" for fault in errors)
    return problem_response(Problem(type=problem_type, detail=detail, extensions={"errors": errors}), request.url.path)


async def _frameworks(request: Request, error: HTTPException) -> Response:
    """An address that does not exist, or a method that it does not know."""
    types = {404: ProblemType.NOT_FOUND, 405: ProblemType.METHOD_NOT_ALLOWED}
    details = {404: "no such address; GET / names them all", 405: f"{request.method} is not for this address"}
    problem_type = types.get(error.status_code, ProblemType.BAD_REQUEST)
    response = problem_response(Problem(type=problem_type, detail=details.get(error.status_code)), request.url.path)
    response.headers.update(error.headers or {})
    return response


async def _gone(request: Request, _: Exception) -> Response:
    """The caller hung up in the middle of the body; nobody hears this."""
    return problem_response(Problem(type=ProblemType.BAD_REQUEST), request.url.path)


async def _unforeseen(request: Request, _: Exception) -> Response:
    """A fault of ours. The framework raises the error again afterwards, and the server logs it."""
    return problem_response(Problem(type=ProblemType.INTERNAL), request.url.path)
