"""The face for users: the dozen names with which a workflow is written, sent events and tried out.

from eventwright.sdk import Backoff, Judgement, On, Policy, Workflow, classify, draft, review, simulate, tool
"""

from eventwright.app.sending import send
from eventwright.app.simulate import simulate
from eventwright.graphs.judgement import Judgement, choose, classify, draft
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Backoff, Policy, Rule, above, always, review
from eventwright.guardrails.verdicts import Denied, Rejected
from eventwright.runs.event import Event
from eventwright.tools.contract import Call, NotDone, Permanent, ToolError, tool

__all__ = [
    "Backoff",
    "Call",
    "Denied",
    "Event",
    "Judgement",
    "NotDone",
    "On",
    "Permanent",
    "Policy",
    "Rejected",
    "Rule",
    "ToolError",
    "Workflow",
    "above",
    "always",
    "choose",
    "classify",
    "draft",
    "review",
    "send",
    "simulate",
    "tool",
]
