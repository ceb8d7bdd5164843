"""Secrets: a tool has the value while it needs it, nobody else has it at any time."""

from __future__ import annotations

from typing import Any

import pytest
from tests.outside import chain

from eventwright.app.settings import Settings
from eventwright.app.simulate import simulate
from eventwright.graphs.workflow import On, Workflow
from eventwright.guardrails.policy import Policy
from eventwright.guardrails.redaction import Redactor
from eventwright.runs.states import RunState
from eventwright.tools.contract import Call, Permanent, Resources, tool
from eventwright.tools.secrets import BadSecret, SecretMissing, Secrets

KEY = "sk_live_4f9c2b7e"
USED: list[str] = []


@tool(writes="keyed", name="stripe.charge")
async def charge(amount: str, *, call: Call) -> str:
    """Charge a card."""
    key = call.secret("stripe_key")
    USED.append(key)
    if amount == "0":
        raise Permanent(f"the provider refuses the key {key}")
    return "charged"


def charging(amount: str = "5") -> Workflow:
    async def pay(_state: Any) -> dict[str, Any]:
        return {"log": [await charge(amount)]}

    return Workflow(
        "charging",
        version="1",
        graph=chain(pay=pay),
        triggers=[On("order", trusted=True)],
        policies={"pay": Policy(tools=[charge])},
    )


def call(*secrets: Secrets) -> Call:
    return Call(run_id="r", node="n", idempotency_key="k", attempt=1, resources=Resources(secrets))


# -- what is missing or cannot be used is said, and the value never ----------------------------------------------------


@pytest.mark.parametrize("secrets", [[], [Secrets()], [Secrets({"other_key": KEY})]])
def test_a_secret_that_is_not_there_is_named_with_its_variable(secrets: list[Secrets]) -> None:
    with pytest.raises(LookupError, match="EVENTWRIGHT_SECRET_STRIPE_KEY") as caught:
        call(*secrets).secret("stripe_key")
    assert isinstance(caught.value, SecretMissing)
    assert caught.value.name == "stripe_key"


@pytest.mark.parametrize("name", ["", "Stripe", "stripe-key", "1key", "schlüssel", "a b"])
def test_a_name_that_no_variable_can_have_is_refused(name: str) -> None:
    with pytest.raises(BadSecret, match="name"):
        Secrets({name: KEY})


def test_a_value_too_short_to_be_hidden_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadSecret, match="'stripe_key' has 6 characters") as caught:
        Secrets({"stripe_key": "hunter"})
    assert "hunter" not in str(caught.value)


def test_secrets_do_not_show_themselves() -> None:
    assert KEY not in repr(Secrets({"stripe_key": KEY}, (KEY,)))
    assert KEY not in repr(call(Secrets({"stripe_key": KEY})))


def test_of_two_values_for_one_name_the_last_one_counts_and_both_are_hidden() -> None:
    both = (Secrets({"stripe_key": KEY}, ("process-password",)), Secrets({"stripe_key": "sk_test_00000000"}))
    assert call(*both).secret("stripe_key") == "sk_test_00000000"
    assert {KEY, "sk_test_00000000", "process-password"} <= set(Secrets.of(Resources(both)).literals)


# -- where they come from ----------------------------------------------------------------------------------------------


def test_the_settings_read_them_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTWRIGHT_SECRET_STRIPE_KEY", KEY)
    monkeypatch.setenv("EVENTWRIGHT_SECRET_EMPTY", "")
    secrets = Settings().secrets
    assert secrets.value("stripe_key") == KEY
    with pytest.raises(SecretMissing):
        secrets.value("empty")


def test_a_processs_own_keys_and_passwords_are_hidden_and_given_to_no_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTWRIGHT_API_KEY", "api-key-1")
    monkeypatch.setenv("OPENAI_API_KEY", "openai-key-1, openai-key-2")
    monkeypatch.setenv("EVENTWRIGHT_SMTP_URL", "smtp://ann:p%40ss-word@mail.example")
    monkeypatch.setenv("EVENTWRIGHT_DATABASE_URL", "postgresql://ew:database-pw@db.example/ew")
    monkeypatch.setenv("EVENTWRIGHT_REDIS_URL", "redis://:redis-password@redis.example")
    monkeypatch.setenv("EVENTWRIGHT_WEBHOOK_STRIPE_SECRET", "whsec_Zmlyc3Qtb25l, whsec_c2Vjb25kLW9uZQ")
    secrets = Settings().secrets
    assert dict(secrets.named) == {}
    hidden = Redactor((), secrets.literals)
    for value in (
        "api-key-1",
        "openai-key-1",
        "openai-key-2",
        "p@ss-word",
        "p%40ss-word",
        "database-pw",
        "redis-password",
        "whsec_Zmlyc3Qtb25l",
        "Zmlyc3Qtb25l",
        "c2Vjb25kLW9uZQ",
    ):
        assert value not in hidden.text(f"it said: {value}!")


def test_an_address_that_is_none_is_no_reason_to_stop_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTWRIGHT_DATABASE_URL", "postgresql://[::1")
    assert Settings().secrets.literals == ()


# -- where they go -----------------------------------------------------------------------------------------------------


async def test_a_tool_has_the_value_and_the_run_has_no_trace_of_it() -> None:
    USED.clear()
    async with simulate(charging(), {"log": []}, resources=[Secrets({"stripe_key": KEY})]) as run:
        assert (await run.run()).state is RunState.COMPLETED
        assert USED == [KEY]
        for shown in (await run.run(), await run.journal(), await run.effects(), await run.values()):
            assert KEY not in str(shown)


async def test_an_error_that_repeats_the_value_is_kept_without_it() -> None:
    async with simulate(charging("0"), {"log": []}, resources=[Secrets({"stripe_key": KEY})]) as run:
        failed = await run.run()
        assert failed.state is RunState.FAILED
        assert "refuses the key [secret 1]" in str(failed.error)
        for shown in (failed, await run.journal(), await run.effects()):
            assert KEY not in str(shown)


async def test_a_run_that_asks_for_a_secret_nobody_gave_fails_with_the_variables_name() -> None:
    async with simulate(charging(), {"log": []}) as run:
        assert "EVENTWRIGHT_SECRET_STRIPE_KEY" in str((await run.run()).error)
