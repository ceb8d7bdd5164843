"""What operators read about policies, and what `eventwright check` says; on the terminal, in the docs, to programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from eventwright.app.commands.processes import greet
from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.graphs.checks.finding import Kind

ROOT = Path(__file__).parents[3]
#: Those that are shipped; each has a page.
WORKFLOWS = ["support", "invoices", "leads", "discounts", "failed_payments"]
SHIPPED = {"EVENTWRIGHT_WORKFLOWS": "eventwright.graphs.support"}
UNWELL = {"EVENTWRIGHT_WORKFLOWS": "cli_unwell"}


class TestPolicyShow:
    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (("nothing",), "no workflow nothing is loaded"),
            (("support", "refunds"), "support has no node 'refunds'; its nodes are: set_aside, tell_front_desk"),
        ],
    )
    def test_a_name_that_is_not_there_is_told_with_those_that_are(
        self, shell: Any, words: tuple[str, ...], error: str
    ) -> None:
        said = shell("policy", "show", *words, **SHIPPED)
        assert (said.code, said.out) == (1, "")
        assert error in said.err

    def test_it_says_who_may_do_what_within_which_limits(self, shell: Any) -> None:
        shown = shell("policy", "show", "unwell", "pay", **UNWELL).out
        for words in (
            "cli_unwell.transfer (keyed write, undone by cli_unwell.call_back)",
            "to: one of rent, power",
            "amount: free unless 'amount above 50, by two people' asks",
            "approve when 'amount above 50, by two people' asks (version 1), 2 of them",
            "asked: May this be paid?",
            "only ann",
            "within 2 days, else it is rejected",
            "a person answers below 75% confidence",
            "“sorry”, if the model is away",
            "3 retries on TimeoutError, else none; up to 1, later 300 s apart",
            "10 s at most",
            "at most 5 cli_unwell.transfer calls per run, for each to; then the call is denied",
            "in what leaves: example.org; others need a person",
            "what the run has done is undone, where its tools can; then it waits for an operator",
            "order.made: untrusted",
            "at most 500 cli_unwell.transfer amount per day (UTC); then the run waits until the next day",
            "from models: card, iban, email, phone",
            "every call of cli_unwell.transfer; eventwright check proves it",
        ):
            assert words in shown, words

    def test_a_node_without_a_policy_may_call_nothing(self, shell: Any) -> None:
        assert re.search(r"look +may call +nothing", shell("policy", "show", "unwell", **UNWELL).out)

    @pytest.mark.parametrize("columns", [80, 120])
    def test_it_fits_a_terminal(self, shell: Any, columns: int) -> None:
        shown = shell("policy", "show", "support", **SHIPPED, COLUMNS=str(columns)).out
        assert max(map(len, shown.splitlines())) <= columns
        assert "…\n" not in shown, "nothing is cut"

    def test_programs_get_the_same(self, shell: Any) -> None:
        told = shell("policy", "show", "support", "--json", **SHIPPED).json
        nodes = {node["name"]: node["policy"] for node in told["nodes"]}
        assert nodes["send_reply"]["tools"][0] == "mail.send (plain write)"
        assert nodes["ask_sender"] == {}
        assert told["whole"]["events"][0] == "ticket.created: untrusted"

    @pytest.mark.parametrize("name", WORKFLOWS)
    def test_the_page_of_a_workflow_holds_its_policy(self, shell: Any, name: str) -> None:
        own = {"EVENTWRIGHT_WORKFLOWS": f"eventwright.graphs.{name}"}
        table = shell("policy", "show", name, "--markdown", **own).out
        page = (ROOT / "docs" / f"{name.replace('_', '-')}.md").read_text()
        blocks = re.findall(r"<!-- policy -->\n(.*?)<!-- end of policy -->", page, re.DOTALL)
        assert blocks == [table], f"make it anew: eventwright policy show {name} --markdown"


class TestCheck:
    def test_a_tool_that_no_policy_names_is_told_with_those_that_are(self, shell: Any) -> None:
        said = shell("check", "--approved", "payments.refunt", **SHIPPED)
        assert (said.code, said.out) == (1, "")
        assert "no policy of support names a tool 'payments.refunt'" in said.err
        assert "payments.refund," in said.err

    def test_what_is_found_is_told_with_the_way_there_and_what_to_do(self, shell: Any) -> None:
        said = shell("check", **UNWELL)
        assert said.code == 1
        assert "✗ unwell 1: 3 findings" in said.out
        for lines in (
            "  nobody_can_approve at pay\n"
            "    2 different people must agree, and approvers= names 1: ann\n"
            "    → name more people\n",
            "  endless_loop at pay\n"
            "    START → look → ?pay → look → ?pay\n"
            "    a loop calls cli_unwell.transfer and model.ask, and no budget ends it\n",
            "  not_proved at pay\n    START → look → ?pay\n    cli_unwell.transfer is called without approval whenever",
        ):
            assert lines in said.out

    def test_the_shipped_workflows_are_well(self, shell: Any) -> None:
        said = shell("check", **SHIPPED)
        assert said.code == 0, said.out
        assert re.fullmatch(r"✓ support 1: \d+ nodes, 8 writes, each bounded: .*\n", said.out)

    def test_what_is_proved_is_told(self, shell: Any) -> None:
        said = shell("check", "wishes", "--approved", "cli_unwell.transfer", **UNWELL)
        assert said.code == 0, said.out
        assert said.out.rstrip().endswith("proved: cli_unwell.transfer never without an approval")

    def test_a_tool_is_proved_about_where_it_is_called_and_no_more(self, shell: Any) -> None:
        findings = shell("check", "--approved", "cli_unwell.transfer", "--json", **UNWELL).json["workflows"]
        assert {each["name"]: each["approved"] for each in findings} == {
            "unwell": ["cli_unwell.transfer"],
            "wishes": ["cli_unwell.transfer"],
            "quiet": [],
        }

    def test_programs_get_the_same(self, shell: Any) -> None:
        told = shell("check", "--json", **UNWELL)
        assert (told.code, told.json["ok"]) == (1, False)
        unwell = told.json["workflows"][0]
        assert [finding["kind"] for finding in unwell["findings"]] == [
            "nobody_can_approve",
            "endless_loop",
            "not_proved",
        ]
        assert unwell["findings"][-1]["path"] == ["__start__", "look", "pay"]
        assert unwell["writes"] == [{"node": "pay", "tool": "cli_unwell.transfer", "bounded_by": "rules"}]

    def test_the_doctor_warns(self, shell: Any) -> None:
        said = shell("doctor", "--json", **UNWELL)
        checks = {check["name"]: check for check in said.json["checks"]}
        assert (said.code, checks["checks"]["status"]) == (0, "warn")
        assert checks["checks"]["detail"] == "findings: unwell 1: 3"

    async def test_a_service_starts_and_warns(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.syspath_prepend(Path(__file__).parent)
        async with open_app(Settings(home=tmp_path, redis_url="none", workflows="cli_unwell")) as app:
            greet(app, None)
        said = " ".join(capsys.readouterr().err.split())
        assert "! unwell 1 is not well, the gate will ask or refuse: eventwright check unwell (3 findings)" in said
        assert "wishes 1 is not well" not in said

    def test_the_page_shows_what_is_really_said(self, shell: Any) -> None:
        said = shell("check", "support", "--approved", "payments.refund", **SHIPPED).out
        shown = re.findall(
            r"\$ eventwright check support [^\n]*\n(.*?)```", (ROOT / "docs/checks.md").read_text(), re.DOTALL
        )
        assert shown == [said]

    def test_the_page_describes_every_kind_of_finding(self) -> None:
        page = (ROOT / "docs/checks.md").read_text()
        for kind in Kind:
            assert f"| `{kind}` | {kind.meaning} |" in page
