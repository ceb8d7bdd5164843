"""What the store writes no journal without, and what no trace leaves without: each workflow's own redaction, and the
secrets of this process."""

from __future__ import annotations

from functools import cache
from typing import Any

from eventwright.graphs.workflow import UnknownWorkflow, Workflows
from eventwright.guardrails.redaction import Redaction
from eventwright.runs.batch import Redact
from eventwright.tools.secrets import Secrets


def journal_redaction(workflows: Workflows, secrets: Secrets) -> Redact:
    """Redacts an entry of a run's journal as the run's workflow wants it; all personal data, where it is not loaded."""

    @cache
    def redaction(name: str, version: str) -> Redaction:
        return _own(workflows, name, version).knowing(secrets.literals)

    def redact(workflow: str, version: str, value: Any) -> Any:
        return redaction(workflow, version).for_journal(value)

    return redact


def leaving_redaction(workflows: Workflows, secrets: Secrets) -> Redact:
    """The same for what leaves to a third party that only watches: nothing of what is kept from models or journals."""

    @cache
    def redaction(name: str, version: str) -> Redaction:
        own = _own(workflows, name, version)
        both = Redaction(journal=tuple(dict.fromkeys((*own.journal, *own.model))), literals=own.literals)
        return both.knowing(secrets.literals)

    def redact(workflow: str, version: str, value: Any) -> Any:
        return redaction(workflow, version).for_journal(value)

    return redact


def _own(workflows: Workflows, name: str, version: str) -> Redaction:
    try:
        return workflows.get(name, version).redaction
    except UnknownWorkflow:
        return Redaction()
