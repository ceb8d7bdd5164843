"""The models of a process are those of its settings; a price table that is wrong stops it before it does anything."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TypedDict

import pytest
from langgraph.graph import START, StateGraph

from eventwright.app.composition import open_app
from eventwright.app.settings import Settings
from eventwright.app.simulate import simulate
from eventwright.graphs.judgement import classify
from eventwright.graphs.workflow import On, Workflow
from eventwright.tools.building import Models
from eventwright.tools.limits import Limits
from eventwright.tools.offline_model import OfflineModel
from eventwright.tools.prices import Prices, PricesUnusable
from eventwright.tools.providers import Providers

BAD = 'currency = "USD"\n[models.mine]\ninput = "-1"\noutput = "1"\n'


@pytest.mark.parametrize("content", [None, BAD])
async def test_a_process_that_works_does_not_start_with_a_price_table_that_is_wrong(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "prices.toml"
    if content is not None:
        file.write_text(content)
    settings = Settings(home=tmp_path, redis_url="none", prices=str(file))
    with pytest.raises(PricesUnusable, match=f"{file} cannot be used: (No such file|models.mine.input: )"):
        async with open_app(settings, workflows=[], works=True):
            pass


async def test_the_settings_say_which_models_are_asked_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(BAD.replace("-1", "1"))
    environment = {
        "EVENTWRIGHT_MODEL": "big",
        "EVENTWRIGHT_FALLBACK_MODEL": "other",
        "EVENTWRIGHT_CHEAPER_MODEL": "small",
        "EVENTWRIGHT_MODEL_TIMEOUT": "7",
        "EVENTWRIGHT_MODEL_MAX_TOKENS": "99",
        "EVENTWRIGHT_MODEL_LOGPROBS": "true",
        "EVENTWRIGHT_MODEL_CONCURRENCY": "5",
        "EVENTWRIGHT_MODEL_REQUESTS_PER_MINUTE": "60",
        "EVENTWRIGHT_MODEL_TOKENS_PER_MINUTE": "90000",
        "EVENTWRIGHT_PRICES": str(file),
        "OPENAI_API_KEY": "made-up, made-up-too",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with open_app(Settings(home=tmp_path, redis_url="none"), workflows=[], works=True) as app:
        models = Models.of(app.resources)
    names = [getattr(model, "model_name", None) for model in (models.primary, models.fallback, models.cheaper)]
    assert names == ["big", "other", "small"]
    assert (models.timeout, models.max_tokens, models.logprobs) == (7, 99, True)
    assert models.limits == Limits(at_once=5, requests_per_minute=60, tokens_per_minute=90_000)
    assert models.providers is app.resources.use(Providers)
    assert list(models.prices.models) == ["mine"]


async def test_settings_that_are_empty_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ("MODEL_CONCURRENCY", "MODEL_REQUESTS_PER_MINUTE", "MODEL_TOKENS_PER_MINUTE")
    for name in ("FALLBACK_MODEL", "CHEAPER_MODEL", "PRICES", *limits):
        monkeypatch.setenv(f"EVENTWRIGHT_{name}", "")
    monkeypatch.setenv("OPENAI_API_KEY", "made-up")
    async with open_app(Settings(home=tmp_path, redis_url="none"), workflows=[], works=True) as app:
        models = Models.of(app.resources)
    assert (models.fallback, models.cheaper, models.prices) == (None, None, Prices.packaged())
    assert models.limits == Limits()


class State(TypedDict, total=False):
    text: str
    cost: str
    tokens: int


async def judge(state: State) -> State:
    judgement = await classify(state["text"], ["card_delivery", "other"])
    return {"cost": f"{judgement.cost} {judgement.currency}", "tokens": judgement.tokens}


async def test_a_judgement_says_what_it_cost() -> None:
    graph = StateGraph(State)
    graph.add_node("judge", judge)
    graph.add_edge(START, "judge")
    workflow = Workflow("judging", version="1", graph=graph, triggers=[On("asked")])
    prices = Prices.model_validate({"currency": "EUR", "models": {"offline-rules": {"input": "0", "output": "0"}}})
    async with simulate(workflow, {"text": "My card has not arrived."}) as run:
        assert (await run.values())["cost"] == "0 USD"
        [effect] = await run.effects()
        assert Decimal(effect.result["cost"]) == 0
    resources = [Models(OfflineModel(), prices=prices)]
    async with simulate(workflow, {"text": "My card has not arrived."}, resources=resources) as run:
        values = await run.values()
        assert values["cost"] == "0 EUR"
        assert values["tokens"] > 0
