"""Loading workflows: the modules that EVENTWRIGHT_WORKFLOWS names are imported and their workflows collected."""

from __future__ import annotations

import importlib

from eventwright.graphs.workflow import Workflow
from eventwright.runs.errors import EventwrightError


class WorkflowsNotLoaded(EventwrightError, ImportError):
    """A module that should hold workflows cannot be imported, or holds none."""

    def __init__(self, module: str, problem: str) -> None:
        self.module = module
        super().__init__(f"EVENTWRIGHT_WORKFLOWS names {module!r}: {problem}")


def load_workflows(modules: str) -> list[Workflow]:
    """Every Workflow at the top level of these comma-separated modules, in the order they are written.

    Raises:
        WorkflowsNotLoaded: a module is not there, fails, or holds no workflow.
    """
    found: list[Workflow] = []
    for name in (part.strip() for part in modules.split(",")):
        if not name:
            continue
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise WorkflowsNotLoaded(name, f"{type(error).__name__}: {error}") from error
        workflows = [value for value in vars(module).values() if isinstance(value, Workflow)]
        if not workflows:
            raise WorkflowsNotLoaded(name, "it holds no Workflow at its top level")
        found += [workflow for workflow in workflows if workflow not in found]
    return found
