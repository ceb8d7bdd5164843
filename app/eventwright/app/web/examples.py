"""One ticket's story as JSON: the examples in the API's document. A test holds them against the models."""

from __future__ import annotations

from typing import Any

CLOUD_EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "ticket-4711",
    "source": "/shop/berlin",
    "type": "ticket.created",
    "payloadversion": "1",
    "data": {"sender": "ann@example.org", "subject": "Refund", "text": "Please refund 120.00 for order 17."},
}
WEBHOOK: dict[str, Any] = {
    "type": "ticket.created",
    "timestamp": "2026-01-31T09:29:58Z",
    "data": CLOUD_EVENT["data"],
}
#: A button of Slack's, as it comes in a form.
FORM: dict[str, Any] = {
    "payload": '{"type": "block_actions", "trigger_id": "13.2.a", "actions": [{"action_id": "ok"}]}'
}

EVENT: dict[str, Any] = {
    "uid": "evt_019c135e7d0a7c3f8d1f2b6a9e4c5d70",
    "id": CLOUD_EVENT["id"],
    "source": CLOUD_EVENT["source"],
    "type": CLOUD_EVENT["type"],
    "subject": None,
    "time": None,
    "version": "1",
    "data": CLOUD_EVENT["data"],
    "extensions": {},
    "principal": None,
    "expired_at": None,
    "received_at": "2026-01-31T09:30:00Z",
}
RUN: dict[str, Any] = {
    "id": "run_019c135e7d0b7a91b3c4d5e6f7081920",
    "workflow": "support",
    "version": "1",
    "state": "pending_approval",
    "outcome": None,
    "reason": None,
    "error": None,
    "attempts": 1,
    "lane": "default",
    "event": EVENT,
    "created_at": "2026-01-31T09:30:00Z",
    "updated_at": "2026-01-31T09:30:02Z",
    "reviews": ["rev_019c135e84f27b6c9d8e7f6a5b4c3d2e"],
    "serial_key": None,
    "waits_for": None,
    "waiting_for": [],
    "gathered": [],
}
RUNS: dict[str, Any] = {"items": [RUN], "next": RUN["id"]}
REPLAYED: dict[str, Any] = {"runs": [RUN["id"]]}
ACCEPTED: dict[str, Any] = {
    "events": [
        {
            "id": EVENT["id"],
            "source": EVENT["source"],
            "duplicate": False,
            "runs": [{"id": RUN["id"], "workflow": "support", "state": "received"}],
        }
    ]
}
REFUSED_EVENT: dict[str, Any] = {
    **EVENT,
    "version": "7",
    "state": "refused",
    "problem": {
        "title": "UnknownPayloadVersion",
        "detail": "payload version '7' of 'ticket.created' is not known; known: 1",
        "errors": [],
    },
    "runs": [],
}
EVENTS: dict[str, Any] = {"items": [REFUSED_EVENT], "next": None}
DELIVERY: dict[str, Any] = {
    "id": "dlv_019c135e7d097b6a8c9d0e1f2a3b4c5d",
    "source": "shop",
    "outcome": "refused",
    "received_at": "2026-01-31T09:30:00Z",
    "last_at": None,
    "times": 1,
    "size": 213,
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "message_id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "signed_at": "2026-01-31T09:29:58Z",
    "problem": None,
    "events": [
        {
            "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "uid": EVENT["uid"],
            "outcome": "refused",
            "problem": REFUSED_EVENT["problem"],
            "runs": [],
        }
    ],
    "replayed_at": None,
    "replayed_by": None,
}
SHOWN_DELIVERY: dict[str, Any] = {**DELIVERY, "headers": None, "body": None}
JOURNAL: dict[str, Any] = {
    "items": [
        {
            "seq": 1,
            "at": "2026-01-31T09:30:00Z",
            "kind": "transition",
            "actor": "intake",
            "node": None,
            "data": {"to": "received", "event": EVENT["id"], "source": EVENT["source"], "type": EVENT["type"]},
            "version": 1,
            "prev": "",
            "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        }
    ]
}

EFFECT_KEY = "5f3e" + 60 * "0"
LEDGER: dict[str, Any] = {
    "items": [
        {
            "key": EFFECT_KEY,
            "tool": "payments.refund",
            "class": "keyed",
            "state": "done",
            "node": "refund",
            "attempt": 1,
            "arguments": {"account": "acc_17", "amount": "120.00"},
            "result": {"id": "ref_17"},
            "left_out": [],
            "error": None,
            "at": "2026-01-31T09:30:03Z",
            "undo": "payments.cancel_refund",
            "undone_by": None,
            "undone": False,
            "obstacle": None,
            "expired_at": None,
        }
    ]
}

APPROVE: dict[str, Any] = {"type": "approve", "comment": "The order came back.", "digest": "c0ffee" + 58 * "0"}
EDIT: dict[str, Any] = {"type": "edit", "arguments": {"account": "acc_17", "amount": "100.00"}}
REJECT: dict[str, Any] = {"type": "reject", "comment": "The order was never paid."}
RESPOND: dict[str, Any] = {"type": "respond", "response": "billing"}
REVIEW: dict[str, Any] = {
    "id": RUN["reviews"][0],
    "run_id": RUN["id"],
    "workflow": "support",
    "node": "refund",
    "kind": "approval",
    "question": "Refund 120.00 to ann@example.org?",
    "arguments": {"account": "acc_17", "amount": "120.00"},
    "evidence": {"tool": "payments.refund", "reason": "amount 120.00 is above 50", "event": EVENT["data"]},
    "response_schema": {"type": "object", "properties": {"account": {"type": "string"}, "amount": {"type": "string"}}},
    "allowed": ["approve", "edit", "reject"],
    "digest": APPROVE["digest"],
    "deadline": "2026-02-01T09:30:02Z",
    "default": {"type": "reject"},
    "rule": {"rule": "amount above 50", "version": "1"},
    "state": "open",
    "created_at": "2026-01-31T09:30:02Z",
    "decision": None,
    "people": 1,
    "approvers": [],
    "roles": [],
    "barred": [],
    "agreed": [],
    "expired_at": None,
    "warnings": [],
}
DECIDED: dict[str, Any] = {
    **REVIEW,
    "state": "decided",
    "decision": {
        "type": "approve",
        "by": "ann",
        "at": "2026-01-31T09:41:00Z",
        "verified": False,
        "arguments": None,
        "response": None,
        "comment": "The order came back.",
    },
}
REVIEWS: dict[str, Any] = {"items": [REVIEW], "next": None}

WORKFLOW: dict[str, Any] = {
    "name": "support",
    "version": "1",
    "newest": True,
    "fingerprint": "952e92f7a9cda762ceeacf02698443274298abfb3f0d51592c92f1cfe4cc9df6",
    "description": "Answers tickets",
    "lane": "default",
    "triggers": [{"type": "ticket.created", "source": None, "versions": ["1"], "key": None}],
    "nodes": [
        {
            "name": "refund",
            "tools": [{"name": "payments.refund", "class": "keyed", "approval": "amount above 50"}],
            "min_confidence": None,
            "retries": 3,
            "timeout": 10.0,
            "fallback": False,
            "lane": "default",
        }
    ],
}
WORKFLOWS: dict[str, Any] = {"items": [WORKFLOW]}
SCHEDULES: dict[str, Any] = {
    "items": [
        {
            "workflow": "report",
            "name": "daily",
            "type": "report.due",
            "source": "/schedules/report/daily",
            "cron": "0 9 * * MON-FRI",
            "words": "At 09:00 on Monday through Friday",
            "zone": "Europe/Berlin",
            "missed": "one",
            "last": "2026-01-30T08:00:00Z",
            "runs": [RUN["id"]],
            "next": "2026-02-02T08:00:00Z",
        }
    ]
}
GRAPH: dict[str, Any] = {
    "nodes": ["__start__", "classify", "refund", "__end__"],
    "edges": [
        {"source": "__start__", "target": "classify", "conditional": False, "label": None},
        {"source": "classify", "target": "refund", "conditional": True, "label": None},
        {"source": "refund", "target": "__end__", "conditional": False, "label": None},
    ],
}
FORM_FIELDS: dict[str, Any] = {
    "name": "Ann Waller",
    "email": "ann@example.org",
    "seats": "7",
    "form_token": "5f0c9e52-7a1c-4a8e-9d8e-0f6f4f3a2b1c",
}
FORM_ANSWER: dict[str, Any] = {"id": f"{FORM_FIELDS['form_token']}.9f86d081884c7d65", "duplicate": False}
PROBLEM: dict[str, Any] = {
    "type": "urn:eventwright:problem:decided",
    "title": "Another decision on this review was first.",
    "status": 409,
    "detail": f"review {REVIEW['id']} was decided already: ann said approve",
    "instance": f"/v1/reviews/{REVIEW['id']}/decision",
    "review": REVIEW["id"],
    "state": "decided",
    "decision": DECIDED["decision"],
}
