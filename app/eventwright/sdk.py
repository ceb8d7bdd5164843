"""The face for users: the names with which a workflow is written, sent events and tried out.

from eventwright.sdk import Backoff, Judgement, On, Policy, Workflow, classify, draft, review, simulate, tool
"""

from eventwright.app.sending import send
from eventwright.app.simulate import simulate
from eventwright.graphs.check import check
from eventwright.graphs.flow import Batch, Flow, Throttle
from eventwright.graphs.forms import Form
from eventwright.graphs.judgement import Judgement, choose, classify, draft
from eventwright.graphs.schedules import Every, Missed
from eventwright.graphs.waiting import Continues, sleep, sleep_until, wait_for
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.budgets import Budget
from eventwright.guardrails.detectors import CARD, IBAN, PERSONAL, Detector
from eventwright.guardrails.policy import Backoff, DeadLetter, Policy, review
from eventwright.guardrails.redaction import Redaction
from eventwright.guardrails.rules import (
    ArgumentRule,
    Ask,
    Facts,
    Rule,
    above,
    always,
    at_least,
    at_most,
    equals,
    from_person,
    from_record,
    matches,
    one_of,
    two_people,
    unless,
)
from eventwright.guardrails.verdicts import Denied, Rejected
from eventwright.runs.event import Event
from eventwright.tools.chat_models import process_model
from eventwright.tools.contract import Call, NotDone, Permanent, Role, ToolError, Undo, tool
from eventwright.tools.langchain_tools import as_langchain, langchain_tool
from eventwright.tools.limits import Limits
from eventwright.tools.model_tool import ask_model
from eventwright.tools.providers import Providers
from eventwright.tools.secrets import Secrets

__all__ = [
    "CARD",
    "IBAN",
    "PERSONAL",
    "ArgumentRule",
    "Ask",
    "Backoff",
    "Batch",
    "Budget",
    "Call",
    "Continues",
    "DeadLetter",
    "Denied",
    "Detector",
    "Event",
    "Every",
    "Facts",
    "Flow",
    "Form",
    "Judgement",
    "Limits",
    "Missed",
    "NotDone",
    "On",
    "Permanent",
    "Policy",
    "Providers",
    "Redaction",
    "Rejected",
    "Role",
    "Rule",
    "Secrets",
    "Throttle",
    "ToolError",
    "Undo",
    "Workflow",
    "above",
    "always",
    "as_langchain",
    "ask_model",
    "at_least",
    "at_most",
    "check",
    "choose",
    "classify",
    "draft",
    "equals",
    "from_person",
    "from_record",
    "langchain_tool",
    "matches",
    "one_of",
    "process_model",
    "review",
    "send",
    "simulate",
    "sleep",
    "sleep_until",
    "tool",
    "two_people",
    "unless",
    "wait_for",
]
