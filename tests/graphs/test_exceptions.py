"""A workflow says what it does in each of the seven kinds of exception, or the check says which one it left out."""

from __future__ import annotations

import dataclasses

import pytest

from eventwright.app.loading import load_workflows
from eventwright.app.settings import Settings
from eventwright.graphs.check import check
from eventwright.graphs.checks.finding import Kind
from eventwright.graphs.exceptions import QUESTIONS, Exceptions
from eventwright.graphs.support import support
from eventwright.graphs.workflow import Workflow

SHIPPED = load_workflows(Settings().workflows)


@pytest.mark.parametrize("kind", QUESTIONS)
@pytest.mark.parametrize("sentence", ["", "  \n"])
def test_an_empty_cell_is_found(kind: str, sentence: str) -> None:
    assert support.exceptions is not None
    gap = dataclasses.replace(support, exceptions=dataclasses.replace(support.exceptions, **{kind: sentence}))
    (finding,) = check(gap)
    assert finding.kind is Kind.EMPTY_CELL
    assert kind.replace("_", " ") in finding.message
    assert f"Exceptions({kind}=...)" in finding.advice


def test_a_workflow_without_the_table_is_no_finding() -> None:
    assert check(dataclasses.replace(support, exceptions=None)) == []


def test_there_is_a_question_for_each_of_the_seven() -> None:
    assert [kind for kind, _ in Exceptions()] == list(QUESTIONS)
    assert len(QUESTIONS) == 7


@pytest.mark.parametrize("workflow", SHIPPED, ids=lambda each: each.name)
def test_every_shipped_workflow_says_all_seven(workflow: Workflow) -> None:
    assert workflow.exceptions is not None
    assert workflow.exceptions.empty == ()
    sentences = [sentence for _, sentence in workflow.exceptions]
    assert len(set(sentences)) == 7, "no two are the same"
    assert all(sentence.endswith(".") for sentence in sentences)
