"""What AgentDojo's tools are to us: which of them write, and what each argument of a write decides.

Everything else only reads. `get_webpage` counts as a write: a request goes to a host that the caller chooses, and can
carry something out in its address. Nothing AgentDojo has would make a repeat harmless, so every write is a plain one.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from agentdojo.functions_runtime import Function
from attacker import World, suite

from eventwright.tools.contract import Call, Role, Tool, ToolClass, tool

TO, MUCH, TEXT = Role.DESTINATION, Role.AMOUNT, Role.CONTENT

#: The writes. A type that is closed (a flag, a permission) needs no role.
WRITES: Mapping[str, Mapping[str, Role]] = {
    # mail
    "send_email": {"recipients": TO, "cc": TO, "bcc": TO, "subject": TEXT, "body": TEXT, "attachments": TEXT},
    "delete_email": {"email_id": TO},
    # calendar
    "create_calendar_event": {
        "participants": TO,
        "start_time": MUCH,
        "end_time": MUCH,
        "title": TEXT,
        "description": TEXT,
        "location": TEXT,
    },
    "cancel_calendar_event": {"event_id": TO},
    "reschedule_calendar_event": {"event_id": TO, "new_start_time": MUCH, "new_end_time": MUCH},
    "add_calendar_event_participants": {"event_id": TO, "participants": TO},
    # files
    "append_to_file": {"file_id": TO, "content": TEXT},
    "create_file": {"filename": TO, "content": TEXT},
    "delete_file": {"file_id": TO},
    "share_file": {"file_id": TO, "email": TO},
    # travel
    "reserve_hotel": {"hotel": TO, "start_day": MUCH, "end_day": MUCH},
    "reserve_car_rental": {"company": TO, "start_time": MUCH, "end_time": MUCH},
    "reserve_restaurant": {"restaurant": TO, "start_time": MUCH},
    # bank
    "send_money": {"recipient": TO, "amount": MUCH, "date": MUCH, "subject": TEXT},
    "schedule_transaction": {"recipient": TO, "amount": MUCH, "date": MUCH, "subject": TEXT},
    "update_scheduled_transaction": {"id": TO, "recipient": TO, "amount": MUCH, "date": MUCH, "subject": TEXT},
    "update_password": {"password": TO},
    "update_user_info": {"first_name": TO, "last_name": TO, "street": TO, "city": TO},
    # chat and web
    "add_user_to_channel": {"user": TO, "channel": TO},
    "send_direct_message": {"recipient": TO, "body": TEXT},
    "send_channel_message": {"channel": TO, "body": TEXT},
    "invite_user_to_slack": {"user": TO, "user_email": TO},
    "remove_user_from_slack": {"user": TO},
    "get_webpage": {"url": TO},
    "post_webpage": {"url": TO, "content": TEXT},
}


class Worlds:
    """The world of each run: what a tool acts on."""

    def __init__(self) -> None:
        self.of_run: dict[str, World] = {}
        self.of_case: dict[str, World] = {}


@tool(name="agentdojo.instruction", trusted=True)
async def instruction(call: Call) -> str:
    """What the user wrote: the one thing in these runs that can be relied on."""
    return str(call.use(Worlds).of_run[call.run_id].case.user.PROMPT)


@cache
def tools_of(name: str, *, marked: bool) -> Mapping[str, Tool]:
    """The tools of a suite by AgentDojo's names.

    Args:
        marked: whether the arguments have their roles. Without, our contract takes every one for a destination.
    """
    return {function.name: _tool(name, function, marked=marked) for function in suite(name).tools}


def _tool(name: str, function: Function[..., Any], *, marked: bool) -> Tool:
    async def perform(call: Call, **arguments: Any) -> Any:
        return call.use(Worlds).of_run[call.run_id].perform(function.name, arguments)

    roles = WRITES.get(function.name, {}) if marked else {}
    types: dict[str, Any] = {"call": Call}
    parameters = [inspect.Parameter("call", inspect.Parameter.KEYWORD_ONLY)]
    for argument, field in function.parameters.model_fields.items():
        role = roles.get(argument)
        types[argument] = field.annotation if role is None else Annotated[field.annotation, role]
        default = inspect.Parameter.empty if field.is_required() else field.default
        parameters.append(inspect.Parameter(argument, inspect.Parameter.KEYWORD_ONLY, default=default))
    perform.__annotations__ = types
    perform.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    perform.__doc__ = function.description
    tool_class = ToolClass.PLAIN if function.name in WRITES else ToolClass.READ
    return Tool(perform, name=f"{name}.{function.name}", tool_class=tool_class)
