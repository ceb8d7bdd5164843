"""What every tool promises: it opens only inside a gate, it takes what it declared and gives what it declared."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from eventwright.runs.errors import EventwrightError
from eventwright.runs.event import canonical
from eventwright.tools.contract import (
    LONGEST_STRING,
    Call,
    NotDone,
    OutsideGate,
    Permanent,
    ResourceMissing,
    Resources,
    Tool,
    ToolClass,
    ToolError,
    current_gate,
    tool,
)


class Quote(BaseModel):
    model_config = ConfigDict(frozen=True)

    amount: Decimal
    currency: str


@tool
async def quote(amount: Decimal, currency: str = "EUR") -> Quote:
    """Say what it costs.

    More words for developers.
    """
    return Quote(amount=amount, currency=currency)


@tool(writes="keyed")
async def charge(amount: float, *, call: Call) -> str:
    return f"{amount} with {call.idempotency_key} in attempt {call.attempt}"


def a_call(*resources: object) -> Call:
    return Call(run_id="run_1", node="pay", idempotency_key="key-1", attempt=2, resources=Resources(resources))


async def perform(some: Tool, **arguments: Any) -> Any:
    return await some.perform(some.arguments.model_validate_json(json.dumps(arguments)), a_call())


class OpenGate:
    """A gate that allows everything, to see what a tool asks of a gate."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.current_thread()
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def call(self, tool: Tool, arguments: Mapping[str, Any], *, ordinal: str | None = None) -> Any:
        self.asked.append((tool.name, dict(arguments)))
        # As the real one does it: from canonical JSON.
        jsonable = tool.arguments(**arguments).model_dump(mode="json")
        result = await tool.perform(tool.arguments.model_validate_json(canonical(jsonable)), a_call())
        return tool.load(tool.dump(result))


@contextmanager
def open_gate() -> Iterator[OpenGate]:
    gate = OpenGate()
    token = current_gate.set(gate)
    try:
        yield gate
    finally:
        current_gate.reset(token)


# Declarations that are refused


def test_a_parameter_without_a_type_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match="'amount' needs a type"):

        @tool
        async def bad(amount) -> None:  # type: ignore[no-untyped-def]
            pass


def test_parameters_without_names_are_refused() -> None:
    def gathered(*amounts: int) -> None: ...
    def collected(**amounts: int) -> None: ...
    def positional(amount: int, /) -> None: ...

    for bad in (gathered, collected, positional):
        with pytest.raises(TypeError, match="every parameter needs a name"):
            tool(bad)


def test_a_way_to_verify_goes_with_verifiable_and_with_nothing_else() -> None:
    async def read_back(amount: int) -> str | None: ...
    async def pay(amount: int) -> str:
        return f"paid {amount}"

    with pytest.raises(TypeError, match="belong together"):
        tool(writes="verifiable")(pay)
    with pytest.raises(TypeError, match="belong together"):
        tool(writes="plain", verify=read_back)(pay)


def test_a_write_is_of_a_class_that_exists() -> None:
    with pytest.raises(ValueError, match="exactly_once"):
        tool(writes="exactly_once")(lambda: None)  # type: ignore[call-overload]


# Calls that are refused


async def test_outside_a_gate_a_tool_does_not_open() -> None:
    with pytest.raises(OutsideGate, match="quote") as caught:
        await quote(Decimal(1))

    assert caught.value.tool == "test_contract.quote"
    assert isinstance(caught.value, PermissionError)
    assert isinstance(caught.value, EventwrightError)


async def test_outside_a_gate_a_tool_does_not_open_from_a_thread_either() -> None:
    with pytest.raises(OutsideGate, match="quote"):
        await asyncio.to_thread(quote.from_thread, Decimal(1))


async def test_a_bare_thread_pool_takes_no_gate_along() -> None:
    with open_gate() as gate:
        with pytest.raises(OutsideGate):
            await asyncio.get_running_loop().run_in_executor(None, partial(quote.from_thread, Decimal(1)))

        assert gate.asked == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ('{"amount": "1", "extra": 1}', "extra"),
        ("{}", "amount"),
        ('{"amount": "a lot"}', "decimal"),
        ('{"amount": true}', "decimal"),
        ('{"amount": "NaN"}', "finite"),
        ('{"amount": "Infinity"}', "finite"),
        ('{"amount": NaN}', "amount"),
        ('{"amount": "1", "currency": 7}', "string"),
        ('{"amount": "1", "currency": null}', "string"),
        ('["1"]', "object"),
        ('{"amount": "1"', "JSON"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        quote.arguments.model_validate_json(arguments)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"12"'])
def test_a_number_that_is_not_finite_or_is_a_text_is_refused(number: str) -> None:
    with pytest.raises(ValidationError, match="amount"):
        charge.arguments.model_validate_json(f'{{"amount": {number}}}')


def test_a_text_too_long_for_a_person_to_approve_is_refused() -> None:
    longest = "x" * LONGEST_STRING

    assert quote.arguments(amount=Decimal(1), currency=longest)
    with pytest.raises(ValidationError, match=str(LONGEST_STRING)):
        quote.arguments(amount=Decimal(1), currency=longest + "x")


def test_the_call_cannot_be_given_as_an_argument() -> None:
    with pytest.raises(ValidationError, match="call"):
        charge.arguments.model_validate_json('{"amount": 1.0, "call": {}}')
    with pytest.raises(TypeError, match="call"):
        charge.bind(1.0, call=a_call())


def test_a_wrong_number_of_arguments_is_refused_as_the_function_would() -> None:
    with pytest.raises(TypeError, match="amount"):
        quote.bind()
    with pytest.raises(TypeError, match="too many"):
        quote.bind(Decimal(1), "EUR", "more")


async def test_a_tool_that_can_not_be_read_back_says_so() -> None:
    with pytest.raises(TypeError, match="cannot be read back"):
        await charge.verify(charge.arguments(amount=1.0), a_call())


@pytest.mark.parametrize("result", [None, "1 EUR", {"amount": "1"}, {"amount": "x", "currency": "EUR"}, 7])
def test_a_result_of_another_type_than_declared_is_refused(result: object) -> None:
    with pytest.raises(ValidationError):
        quote.dump(result)


def test_a_client_that_nobody_gave_is_named() -> None:
    with pytest.raises(ResourceMissing, match="no dict was provided") as caught:
        a_call([]).use(dict)

    assert caught.value.kind is dict
    assert isinstance(caught.value, LookupError)


def test_a_fault_says_what_the_outside_may_have_seen() -> None:
    assert issubclass(Permanent, NotDone)
    assert issubclass(NotDone, ToolError)
    assert NotDone("busy", retry_after=3.5).retry_after == 3.5
    assert NotDone("busy").retry_after is None


# Calls that go through


async def test_inside_a_gate_a_tool_hands_its_arguments_to_the_gate_by_name() -> None:
    with open_gate() as gate:
        assert await quote(Decimal("12.50")) == Quote(amount=Decimal("12.50"), currency="EUR")
        assert await quote(currency="AUD", amount=Decimal(1)) == Quote(amount=Decimal(1), currency="AUD")

    assert gate.asked == [
        ("test_contract.quote", {"amount": Decimal("12.50"), "currency": "EUR"}),
        ("test_contract.quote", {"amount": Decimal(1), "currency": "AUD"}),
    ]


async def test_a_synchronous_node_in_its_thread_reaches_the_gate_and_waits_for_the_answer() -> None:
    with open_gate() as gate:
        answer = await asyncio.to_thread(quote.from_thread, Decimal("12.50"), currency="AUD")

        assert answer == Quote(amount=Decimal("12.50"), currency="AUD")
        assert len(gate.asked) == 1


def test_an_amount_may_come_as_text_in_canonical_json_and_is_exact() -> None:
    arguments: Any = quote.arguments.model_validate_json(b'{"amount":"12.50"}')

    assert arguments.amount == Decimal("12.50")
    assert arguments.currency == "EUR"
    assert canonical(arguments.model_dump(mode="json")) == b'{"amount":"12.50","currency":"EUR"}'


async def test_a_tool_that_asks_for_the_call_knows_its_key_and_attempt() -> None:
    assert await perform(charge, amount=1.5) == "1.5 with key-1 in attempt 2"


async def test_a_synchronous_tool_runs_in_a_thread_and_leaves_the_loop_free() -> None:
    @tool
    def where() -> int:
        return threading.get_ident()

    assert await perform(where) != threading.get_ident()


async def test_a_verifiable_tool_reads_back_whether_it_happened() -> None:
    happened: dict[str, str] = {}

    async def read_back(amount: int, *, call: Call) -> str | None:
        return happened.get(call.idempotency_key)

    @tool(writes="verifiable", verify=read_back)
    async def pay(amount: int, *, call: Call) -> str:
        happened[call.idempotency_key] = f"paid {amount}"
        return happened[call.idempotency_key]

    arguments = pay.arguments(amount=3)

    assert await pay.verify(arguments, a_call()) is None
    assert await pay.perform(arguments, a_call()) == "paid 3"
    assert await pay.verify(arguments, a_call()) == "paid 3"


async def test_a_replayed_result_equals_the_first() -> None:
    first = await perform(quote, amount="12.50")

    recorded = json.loads(canonical(quote.dump(first)))

    assert recorded == {"amount": "12.50", "currency": "EUR"}
    assert quote.load(recorded) == first
    assert isinstance(quote.load(recorded), Quote)


def test_the_last_client_given_of_a_class_is_the_one_in_use() -> None:
    first, second = ["first"], ["second"]

    assert a_call(first, {}, second).use(list) is second


def test_a_tool_tells_a_policy_and_a_person_what_it_is() -> None:
    named = tool(name="bank.charge", writes="plain")(charge.function)

    assert (quote.name, quote.tool_class, quote.writes) == ("test_contract.quote", ToolClass.READ, False)
    assert (charge.name, charge.tool_class, charge.writes) == ("test_contract.charge", ToolClass.KEYED, True)
    assert (named.name, named.tool_class) == ("bank.charge", ToolClass.PLAIN)
    assert quote.description == "Say what it costs."
    assert charge.description == "test_contract.charge"
    assert all(member.meaning for member in ToolClass)
