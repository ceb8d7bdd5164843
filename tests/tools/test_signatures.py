"""The signature system: one letter for one key, whatever breaks, and what an envelope holds is read back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.tools.model_provider import Reply, cut_off, hang, http, reset
from tests.tools.signature_provider import TOKEN, SignatureProvider, signature_provider

from eventwright.tools import signatures
from eventwright.tools.contract import Call, NotDone, OutsideGate, Permanent, Resources, Tool, ToolClass, ToolError
from eventwright.tools.embedded_signatures import EmbeddedSignatures, _main
from eventwright.tools.providers import Providers
from eventwright.tools.signatures import Envelope, EnvelopeEnded, HttpSignatures, Letter, Signatures

LETTER = Letter(
    email="ann@example.org",
    name="Ann",
    reference="quo_1",
    amount=Decimal("1200.50"),
    currency="EUR",
    subject="Your quote quo_1",
    document="Ten seats, 1200.50 EUR\n",
)


@pytest.fixture
async def provider() -> AsyncIterator[SignatureProvider]:
    async with signature_provider() as it:
        yield it


@pytest.fixture
async def over_http(provider: SignatureProvider) -> AsyncIterator[HttpSignatures]:
    async with HttpSignatures.open(provider.url, token=TOKEN, seconds=5) as system:
        yield system


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedSignatures]:
    async with EmbeddedSignatures.open(tmp_path / "signatures.db") as system:
        yield system


@pytest.fixture(params=["http", "embedded"])
async def system(request: pytest.FixtureRequest, over_http: HttpSignatures, embedded: EmbeddedSignatures) -> Signatures:
    return over_http if request.param == "http" else embedded


@pytest.fixture
def customer(system: Signatures, provider: SignatureProvider) -> Any:
    """Who signs or declines."""
    return system if isinstance(system, EmbeddedSignatures) else provider


def call(system: Signatures, key: str = "key-1") -> Call:
    resources = Resources((system, Providers()))
    return Call(run_id="run_1", node="send", idempotency_key=key, attempt=1, resources=resources)


async def perform(tool: Tool, system: Signatures, key: str = "key-1", **arguments: Any) -> Any:
    return await tool.perform(tool.arguments.model_validate(arguments), call(system, key))


# -- both systems ------------------------------------------------------------------------------------------------------


async def test_what_was_sent_is_what_is_read_back_to_the_cent(system: Signatures) -> None:
    sent = await system.send(LETTER, key="key-1")
    assert (sent.status, sent.ended_at, sent.reason) == ("sent", None, "")
    told = LETTER.model_dump(exclude={"subject", "document"})
    assert sent.model_dump(include=set(told)) == told
    assert await system.read(sent.id) == sent


async def test_a_letter_that_went_is_found_by_its_key_and_one_that_did_not_is_not(system: Signatures) -> None:
    sent = await system.send(LETTER, key="key-1")
    assert await system.by_key("key-1") == sent
    assert await system.by_key("key-2") is None


async def test_an_envelope_that_never_was_is_not_found(system: Signatures) -> None:
    assert await system.read("env-none") is None
    with pytest.raises(Permanent):
        await system.void("env-none", "no more")


async def test_a_signature_is_seen_with_its_time(system: Signatures, customer: Any) -> None:
    sent = await system.send(LETTER, key="key-1")
    await customer.sign(sent.id)
    signed = await system.read(sent.id)
    assert signed is not None
    assert signed.status == "completed"
    assert signed.ended_at is not None


async def test_who_declines_says_why(system: Signatures, customer: Any) -> None:
    sent = await system.send(LETTER, key="key-1")
    await customer.decline(sent.id, "too expensive")
    declined = await system.read(sent.id)
    assert declined is not None
    assert (declined.status, declined.reason) == ("declined", "too expensive")


async def test_a_letter_is_taken_back_once_and_stays_taken_back(system: Signatures) -> None:
    sent = await system.send(LETTER, key="key-1")
    first = await system.void(sent.id, "expired")
    assert (first.status, first.reason) == ("voided", "expired")
    assert await system.void(sent.id, "expired") == first


@pytest.mark.parametrize("ending", ["sign", "decline"])
async def test_a_letter_at_its_end_is_not_taken_back(system: Signatures, customer: Any, ending: str) -> None:
    sent = await system.send(LETTER, key="key-1")
    await (customer.sign(sent.id) if ending == "sign" else customer.decline(sent.id, "no"))
    with pytest.raises(EnvelopeEnded, match=r"was (completed|declined)"):
        await system.void(sent.id, "expired")


# -- the tools ---------------------------------------------------------------------------------------------------------


async def test_outside_a_node_no_letter_goes() -> None:
    with pytest.raises(OutsideGate, match=r"signatures\.send"):
        await signatures.send(**LETTER.model_dump())


def test_sending_and_voiding_can_be_read_back_and_sending_can_be_undone() -> None:
    classes = [tool.tool_class for tool in (signatures.send, signatures.void, signatures.read)]
    assert classes == [ToolClass.VERIFIABLE, ToolClass.VERIFIABLE, ToolClass.READ]
    assert signatures.send.undo is not None
    assert signatures.send.undo.tool is signatures.void


async def test_a_sender_who_was_cut_off_reads_back_whether_the_letter_went(system: Signatures) -> None:
    arguments = signatures.send.arguments.model_validate(LETTER.model_dump())
    assert await signatures.send.verify(arguments, call(system)) is None
    sent = await perform(signatures.send, system, **LETTER.model_dump())
    assert await signatures.send.verify(arguments, call(system)) == sent
    assert await signatures.send.verify(arguments, call(system, "another key")) is None


async def test_voiding_reads_back_whether_it_happened(system: Signatures) -> None:
    sent: Envelope = await perform(signatures.send, system, **LETTER.model_dump())
    wanted = signatures.void.arguments.model_validate({"envelope_id": sent.id, "reason": "expired"})
    assert await signatures.void.verify(wanted, call(system)) is None
    voided = await perform(signatures.void, system, envelope_id=sent.id, reason="expired")
    assert await signatures.void.verify(wanted, call(system)) == voided
    assert await perform(signatures.read, system, envelope_id=sent.id) == voided


@pytest.mark.parametrize("amount", ["-1", "0.001", "NaN", "1e20"])
def test_an_impossible_amount_is_refused_before_anybody_is_asked(amount: str) -> None:
    with pytest.raises(ValidationError, match="amount"):
        signatures.send.arguments.model_validate({**LETTER.model_dump(), "amount": Decimal(amount)})


# -- the provider's failures -------------------------------------------------------------------------------------------


async def test_the_document_arrives_as_it_was_written(provider: SignatureProvider, over_http: HttpSignatures) -> None:
    await over_http.send(LETTER, key="key-1")
    assert provider.envelopes["env-1"]["text"] == LETTER.document
    assert provider.envelopes["env-1"]["transactionId"] == "key-1"


@pytest.mark.parametrize("reply", [reset, cut_off, http({}, 500), http("<html>", 502), http("ok", 200)])
@pytest.mark.parametrize("happens", [True, False])
async def test_when_the_answer_is_lost_whether_the_letter_went_is_unknown_until_it_is_read_back(
    provider: SignatureProvider, over_http: HttpSignatures, reply: Reply, happens: bool
) -> None:
    provider.fails(reply, happens=happens)
    with pytest.raises(ToolError) as unknown:
        await over_http.send(LETTER, key="key-1")
    assert not isinstance(unknown.value, NotDone)
    assert ((await over_http.by_key("key-1")) is not None) == happens


async def test_a_provider_that_hangs_is_given_up(provider: SignatureProvider) -> None:
    provider.fails(hang)
    async with HttpSignatures.open(provider.url, token=TOKEN, seconds=0.05) as impatient:
        with pytest.raises(ToolError, match="unknown"):
            await impatient.send(LETTER, key="key-1")


async def test_a_provider_that_is_away_has_sent_nothing(provider: SignatureProvider) -> None:
    async with HttpSignatures.open("http://127.0.0.1:1/restapi", token=TOKEN, seconds=5) as nobody:
        with pytest.raises(NotDone, match="no connection"):
            await nobody.send(LETTER, key="key-1")


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (http({}, 429, Retry_After="7"), 7),
        (http({}, 503, Retry_After="7"), 7),
        (http({"errorCode": "HOURLY_APIINVOCATION_LIMIT_EXCEEDED"}, 400), 3600),
    ],
)
async def test_a_provider_with_too_much_to_do_is_asked_again_later(
    provider: SignatureProvider, over_http: HttpSignatures, reply: Reply, seconds: float
) -> None:
    provider.fails(reply)
    with pytest.raises(NotDone) as refused:
        await over_http.send(LETTER, key="key-1")
    assert refused.value.retry_after == seconds
    assert not isinstance(refused.value, Permanent)
    assert provider.envelopes == {}


async def test_a_letter_that_went_is_never_said_not_to_have_gone(
    provider: SignatureProvider, over_http: HttpSignatures
) -> None:
    provider.fails(http({"status": "sent"}, 201), happens=True)
    with pytest.raises(ToolError) as unknown:
        await over_http.send(LETTER, key="key-1")
    assert not isinstance(unknown.value, NotDone)
    provider.fails(http({}, 429))
    with pytest.raises(NotDone):
        await over_http.by_key("key-1")
    found = await over_http.by_key("key-1")
    assert found is not None
    assert found.id == "env-1"


async def test_an_id_of_an_envelope_is_no_path(provider: SignatureProvider, over_http: HttpSignatures) -> None:
    assert await over_http.read("env-1/../../users?x=1") is None
    assert provider.requests[-1][1].startswith("/envelopes/env-1%2F..%2F..%2Fusers%3Fx%3D1")


async def test_what_the_provider_does_not_accept_is_not_tried_again(
    provider: SignatureProvider, over_http: HttpSignatures
) -> None:
    with pytest.raises(Permanent, match="INVALID_EMAIL"):
        await over_http.send(LETTER.model_copy(update={"email": "nobody"}), key="key-1")
    async with HttpSignatures.open(provider.url, token="wrong", seconds=5) as stranger:
        with pytest.raises(Permanent, match="401"):
            await stranger.send(LETTER, key="key-1")


@pytest.mark.parametrize(
    "change",
    [{"status": "teleported"}, {"customFields": {}}, {"recipients": {"signers": []}}, {"sentDateTime": "soon"}],
)
async def test_an_envelope_in_unknown_words_is_no_envelope(
    provider: SignatureProvider, over_http: HttpSignatures, change: dict[str, Any]
) -> None:
    sent = await over_http.send(LETTER, key="key-1")
    provider.envelopes[sent.id] |= change
    with pytest.raises(ToolError, match="not known"):
        await over_http.read(sent.id)


async def test_an_amount_that_was_changed_at_the_provider_is_seen(
    provider: SignatureProvider, over_http: HttpSignatures
) -> None:
    sent = await over_http.send(LETTER, key="key-1")
    provider.envelopes[sent.id]["customFields"]["textCustomFields"][1]["value"] = "1.00"
    changed = await over_http.read(sent.id)
    assert changed is not None
    assert changed.amount == Decimal("1.00")


# -- the embedded one --------------------------------------------------------------------------------------------------


async def test_the_same_key_again_sends_no_second_letter(embedded: EmbeddedSignatures) -> None:
    first = await embedded.send(LETTER, key="key-1")
    assert await embedded.send(LETTER, key="key-1") == first
    assert await embedded.sent() == [first]


async def test_who_tries_it_out_signs_on_the_command_line(tmp_path: Path, embedded: EmbeddedSignatures) -> None:
    file = str(tmp_path / "signatures.db")
    first, second = [await embedded.send(LETTER, key=key) for key in ("1", "2")]
    assert await _main([file]) == [first, second]
    assert [one.status for one in await _main([file, "sign", first.id])] == ["completed"]
    assert [one.reason for one in await _main([file, "decline", second.id, "too late"])] == ["too late"]
    for nonsense in ([], [file, "burn", first.id]):
        with pytest.raises(SystemExit, match="sign ENVELOPE"):
            await _main(nonsense)
