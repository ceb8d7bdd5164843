"""Problems: every error that reaches a client is an RFC 9457 document of a closed set of types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventwright.app.web.refusals import problem_response
from eventwright.app.wire.problems import Problem, ProblemType, Refused, problem_of
from eventwright.app.wire.strict_json import BadJSON, TooLarge
from eventwright.queue.webhooks import BadWebhook, SignatureRefused
from eventwright.runs.errors import (
    DecisionRefused,
    DuplicateEvent,
    IllegalMove,
    LeaseLost,
    Overloaded,
    StoreUnavailable,
    Trouble,
    UnknownEvent,
    UnknownReview,
    UnknownRun,
)


@pytest.mark.parametrize("name", ["type", "title", "status", "detail", "instance"])
def test_an_extension_cannot_take_the_place_of_a_standard_member(name: str):
    with pytest.raises(ValueError, match=name):
        Problem(type=ProblemType.STALE, extensions={name: "other"})


def test_a_problem_renders_all_that_it_has():
    problem = Problem(
        type=ProblemType.DECIDED,
        detail="ann was first",
        instance="/v1/reviews/rev_1",
        extensions={"decision": {"type": "reject", "by": "ann"}},
    )
    assert json.loads(problem.body()) == {
        "type": "urn:eventwright:problem:decided",
        "title": "Another decision on this review was first.",
        "status": 409,
        "detail": "ann was first",
        "instance": "/v1/reviews/rev_1",
        "decision": {"type": "reject", "by": "ann"},
    }


def test_members_that_are_absent_are_left_out():
    assert Problem(type=ProblemType.STALE).document().keys() == {"type", "title", "status"}


def test_any_text_of_a_stranger_can_stand_in_a_problem():
    problem = Problem(type=ProblemType.BAD_EVENT, detail='half a pair \ud800 and "quotes"\n')
    assert json.loads(problem.body())["detail"] == problem.detail


@pytest.mark.parametrize("problem_type", list(ProblemType))
def test_every_type_is_an_error_with_a_sentence_and_a_name_of_its_own(problem_type: ProblemType):
    assert 400 <= problem_type.status < 600
    assert problem_type.meaning.endswith(".")
    assert [other for other in ProblemType if other.meaning == problem_type.meaning] == [problem_type]


@pytest.mark.parametrize(
    ("error", "status", "problem_type"),
    [
        (BadJSON("not JSON"), 400, "bad-json"),
        (TooLarge(2, 1), 413, "too-large"),
        (BadWebhook("shop", "type", "must not be empty"), 400, "bad-event"),
        (UnknownRun("run_1"), 404, "not-found"),
        (UnknownReview("rev_1"), 404, "not-found"),
        (UnknownEvent("evt_1"), 404, "not-found"),
        (DuplicateEvent("/shop", "1"), 409, "event-conflict"),
        (IllegalMove("run_1", "completed", "processing"), 409, "illegal-move"),
        (DecisionRefused("rev_1", "decided"), 409, "decided"),
        (DecisionRefused("rev_1", "expired"), 410, "review-closed"),
        (DecisionRefused("rev_1", "superseded"), 410, "review-closed"),
        (DecisionRefused("rev_1", "cancelled"), 410, "review-closed"),
    ],
)
def test_an_error_tells_its_client_what_to_do(error: Exception, status: int, problem_type: str):
    problem = problem_of(error)
    assert (problem.status, problem.type) == (status, f"urn:eventwright:problem:{problem_type}")
    assert problem.detail == str(error)


def test_a_refusal_carries_its_own_problem():
    problem = Problem(type=ProblemType.UNSUPPORTED_MEDIA_TYPE, detail="send JSON")
    assert problem_of(Refused(problem)) is problem
    assert str(Refused(problem)) == "send JSON"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SignatureRefused(), 401),
        (LeaseLost("run_1", 1, 2), 500),
        (RuntimeError("password=hunter2"), 500),
    ],
)
def test_what_is_not_meant_for_a_stranger_is_told_without_detail(error: Exception, status: int):
    document: dict[str, Any] = problem_of(error).document()
    assert document.keys() == {"type", "title", "status"}
    assert document["status"] == status


@pytest.mark.parametrize("trouble", list(Trouble))
def test_of_a_database_that_is_away_the_kind_of_trouble_is_told_and_when_to_come_again(trouble: Trouble):
    problem = problem_of(StoreUnavailable("connection to db.internal as alice failed", trouble=trouble))
    assert problem.document().keys() == {"type", "title", "status", "detail", "retry_after"}
    assert (problem.status, problem.detail) == (503, trouble)
    assert problem_response(problem, "/v1/events").headers["retry-after"] == "2"


def test_a_service_with_too_much_waiting_says_when_to_come_again():
    problem = problem_of(Overloaded("9 runs wait", retry_after=7.2))
    assert (problem.status, problem.document()["retry_after"]) == (429, 8)
    assert problem_response(problem, "/v1/events").headers["retry-after"] == "8"
