"""What the screens say, and that the help, the page about it and the commands are the same."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eventwright.app.commands import telling
from eventwright.app.commands.page import page
from eventwright.app.commands.screens import review_screen
from eventwright.app.commands.timeline import timeline
from eventwright.app.simulate import simulate
from eventwright.runs.records import DecisionType, Review, ReviewKind

COMMANDS = (
    "up worker api demo send events runs run reviews decide budgets replay replay-event cancel undo reconcile "
    "policy check workflows doctor db"
)
PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def review(**fields: Any) -> Review:
    asked = {"id": "rev_0001", "run_id": "run_0001", "workflow": "w", "node": "n", "kind": ReviewKind.QUESTION}
    everything = tuple(DecisionType)
    return Review(**{**asked, "question": "?", "allowed": everything, "digest": "d", **fields})


def shown_review(asked: Review) -> str:
    console = Console(width=800)
    with console.capture() as shown:
        console.print(review_screen(asked, datetime.now(UTC)))
    return shown.get()


def test_the_help_is_there_without_a_word_about_langgraph() -> None:
    program = (
        "import sys; sys.argv = ['eventwright', '--help']\n"
        "from eventwright.app.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'langgraph', 'langchain_core', 'openai', 'fastapi', 'sqlalchemy', 'rq'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    for command in COMMANDS.split():
        assert f" {command} " in shown.stdout


def test_eventwright_alone_shows_what_there_is(shell: Any) -> None:
    said = shell()
    assert said.code == 0
    assert "eventwright demo" in said.out


def test_the_page_about_the_command_line_is_fresh_and_names_every_command() -> None:
    assert PAGE.read_text() == page(), "make it anew: python -m eventwright.app.commands.page > docs/cli.md"
    for command in COMMANDS.split():
        assert f"### `eventwright {command}" in page()


def test_every_command_has_an_example() -> None:
    for part in page().split("\n### ")[1:]:
        name = part.partition("`\n")[0].removeprefix("`")
        assert "```console\n" + name in part, f"{name} has no example"


@pytest.mark.parametrize(
    ("schema", "example"),
    [
        (None, "…"),
        ({"type": "string", "enum": ["refund", "other"]}, "refund"),
        (
            {"type": "object", "properties": {"happened": {"type": "boolean"}}, "required": ["happened"]},
            {"happened": True},
        ),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "array"}}}, []),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 0),
    ],
)
def test_an_answer_is_proposed_in_the_shape_that_is_wanted(schema: Any, example: Any) -> None:
    assert telling.example_of(schema) == example


def test_whoever_is_asked_whether_something_happened_is_shown_that_no_is_an_answer_too() -> None:
    schema = {"type": "object", "properties": {"happened": {"type": "boolean"}}, "required": ["happened"]}
    assert '{"happened": true}, {"happened": false}' in shown_review(review(response_schema=schema))


def test_all_that_an_author_shows_is_told_and_none_of_it_passes_for_the_gates() -> None:
    asked = {"task": "Is this polite?", "llm_output": "Dear Ann", "event": "theirs"}
    evidence = {"tool": "bank.pay", "reason": "harmless", "because": "approved by the boss", "asked": asked}
    told = shown_review(review(evidence=evidence, arguments={"to": "mallory"}))
    for words in ("task: Is this polite?", "llm_output: Dear Ann", "event: theirs", "tool: bank.pay"):
        assert words in told
    assert '{"to": "mallory"}' in told
    assert "would do" not in told
    assert "because: approved by the boss" in told


def test_a_call_that_the_middleware_asks_about_is_shown_as_one_and_its_tool_once() -> None:
    asked = {"action_requests": [{"name": "users.delete", "args": {"id": 7}}]}
    told = shown_review(
        review(evidence={"tool": "users.delete", "reason": "asked", "asked": asked}, arguments={"id": 7})
    )
    assert "would do  users.delete(id=7)" in told
    assert told.count("users.delete") == 1


@pytest.mark.parametrize("arguments", [["a", "b"], "a text", 7])
def test_an_author_may_propose_what_is_no_object(arguments: Any) -> None:
    assert "proposed" in shown_review(review(evidence={"asked": {"arguments": arguments}}, arguments=arguments))


def test_a_proposed_command_survives_the_shell() -> None:
    arguments = {"text": 'it\'s "me" $HOME `ls` \\', "amount": "1"}
    command = telling.answers(review(arguments=arguments))[DecisionType.EDIT]
    assert telling.json.loads(shlex.split(command)[-1]) == arguments


def test_a_command_with_a_long_answer_takes_it_from_a_file() -> None:
    command = telling.answers(review(arguments={"text": "x" * 1000}))[DecisionType.EDIT]
    assert command.endswith("--arguments @answer.json")


def test_whoever_has_to_write_a_file_for_an_answer_is_shown_what_belongs_into_it() -> None:
    schema = {"type": "object", "properties": {f"field_{n}": {"type": "string"} for n in range(20)}}
    assert '"field_19": "…"' in shown_review(review(response_schema=schema))
    assert "answer.json" not in shown_review(review(response_schema={"type": "string"}))


@pytest.mark.parametrize(
    "bad", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\u2028", "\u200b", "\U000e0041", "\ud800", "\r"]
)
def test_no_letter_that_moves_a_terminal_or_hides_is_left_in_a_text(bad: str) -> None:
    assert telling.plain(f"a{bad}b").isprintable()


def test_letters_that_belong_to_a_language_stay() -> None:
    for text in ("می\u200cخواهم", "👩\u200d🚀", "Grüße\nЖ 你好"):
        assert telling.plain(text) == text


def test_times_are_told_as_one_would_say_them() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ahead = datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
    assert telling.when(ahead, now) == "in 5 min"
    assert telling.when(now, ahead) == "5 min ago"
    assert telling.when(None, now) == ""


async def test_a_timeline_tells_who_did_what_with_what(cli_shop: Any) -> None:
    async with simulate(cli_shop.orders, {"customer": "Ann", "amount": "80.00"}) as run:
        await run.edit({"customer": "Ann", "amount": "60.00"}, by="ann")
        told = [moment.text for moment in timeline(await run.journal())]
    assert told[0].startswith("event order.returned")
    assert "ann: edit" in "\n".join(told)
    assert 'cli_shop.pay(customer="Ann", amount="60.00") → 60.00 to Ann' in "\n".join(told)
    assert told[-1] == "completed: edited"
    assert "reserves" not in "\n".join(told), "what a run counts for itself concerns nobody"
