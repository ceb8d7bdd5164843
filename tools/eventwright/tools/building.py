"""The chat models of a process: which ones there are, and which of them is asked."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import openai
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from eventwright.tools.asking import MAX_TOKENS, answer_limit, ask, model_name, request_for
from eventwright.tools.breaker import ProviderDown
from eventwright.tools.contract import ResourceMissing, Resources
from eventwright.tools.keys import KeyRing
from eventwright.tools.limits import Limits
from eventwright.tools.models import Answer, Estimate, ModelDown, ModelMisconfigured, ModelUnavailable, Question
from eventwright.tools.offline_model import OfflineModel
from eventwright.tools.prices import Prices
from eventwright.tools.providers import UNLIMITED, Providers

#: The model that is asked when there is a key and no model was named.
DEFAULT_MODEL = "gpt-4.1-mini"

#: Providers want some key even where a server of one's own asks for none.
NO_KEY = "no-key"


class Counted(Protocol):
    """What a model answered, with the tokens as its provider counts them."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def counted(self) -> bool: ...


Answered = TypeVar("Answered", bound=Counted)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which models to ask. Without key and base URL it is the offline model alone."""

    model: str | None = None
    #: Asked when the model does not answer; at the same provider.
    fallback: str | None = None
    #: Asked in the model's place when a budget says so; at the same provider.
    cheaper: str | None = None
    #: One, or several, comma-separated: when one is refused the next is taken.
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    #: Of the provider, all its models together.
    limits: Limits = UNLIMITED
    #: Seconds for one question, the fallback included.
    timeout: float = 30
    #: Tokens that an answer may have.
    max_tokens: int = MAX_TOKENS
    #: Whether to ask for the probabilities of tokens.
    logprobs: bool = False
    #: A price table instead of the packaged one.
    prices: Path | None = None


def build_model(settings: ModelSettings) -> BaseChatModel:
    """The chat model of these settings. Connects to nothing yet; give it to `close_model` in the end.

    It never retries by itself: the retries of a run are durable and visible.
    """
    if not (settings.api_key or settings.base_url):
        return OfflineModel()
    keys = keys_in(settings.api_key or NO_KEY)
    return ChatOpenAI(
        model=settings.model or DEFAULT_MODEL,
        api_key=SecretStr(keys[0]),
        base_url=settings.base_url,
        timeout=settings.timeout,
        max_retries=0,
        # Its own connections: the ones that it would share by default outlive every event loop.
        http_async_client=openai.DefaultAsyncHttpxClient(
            timeout=settings.timeout, auth=KeyRing(keys) if len(keys) > 1 else None
        ),
    )


def keys_in(written: str) -> list[str]:
    """The keys in a setting that names one or several, comma-separated. Without any, the text itself."""
    return [key.strip() for key in written.split(",") if key.strip()] or [written]


def host_of(model: BaseChatModel) -> str:
    """The system that answers for a model, as its users know it: `api.openai.com`, or what else can be told."""
    asked = getattr(getattr(model, "root_async_client", None), "base_url", None)
    return urlsplit(str(asked)).netloc.rpartition("@")[2] or model._llm_type


async def close_model(model: BaseChatModel) -> None:
    """Close the connections of a model from `build_model`."""
    if isinstance(model, ChatOpenAI) and model.http_async_client is not None:
        await model.http_async_client.aclose()


def _is_away(error: Exception) -> bool:
    return isinstance(error, ModelUnavailable)


def build_prices(settings: ModelSettings) -> Prices:
    """The price table of these settings. Raises PricesUnusable."""
    return Prices.packaged() if settings.prices is None else Prices.read(settings.prices)


def build_models(settings: ModelSettings) -> Models:
    """All the models of these settings. Connects to nothing yet; call `close()` in the end.

    Raises:
        PricesUnusable: the price table is wrong.
    """
    prices = build_prices(settings)
    is_offline = not (settings.api_key or settings.base_url)

    def other(name: str | None) -> BaseChatModel | None:
        return None if is_offline or not name else build_model(replace(settings, model=name))

    return Models(
        primary=build_model(settings),
        fallback=other(settings.fallback),
        cheaper=other(settings.cheaper),
        prices=prices,
        max_tokens=settings.max_tokens,
        timeout=settings.timeout,
        logprobs=settings.logprobs,
        limits=settings.limits,
    )


@dataclass(frozen=True)
class Models:
    """The chat models of a process. A resource for tools: `Models.of(call.resources)`.

    Attributes:
        primary: the model that is asked.
        fallback: asked in the same call when the primary is not available, or known to be down. Never when it refused
            or answered badly, for a refusal is an answer; and never when the provider does not accept the request, for
            then an operator has to act, and would not notice.
        cheaper: asked in the primary's place when a budget asks for economy. Nothing stands in for it: the fallback
            might cost what the budget has not.
        prices: what their calls cost.
        max_tokens: the limit of an answer's tokens that is sent to the provider.
        timeout: seconds for a question. With a fallback the primary has half of them, the fallback what is left. The
            time in which it waits for a place among the calls to its provider does not count.
        logprobs: whether to ask for the probabilities of tokens, for closed questions.
        limits: how much of each provider is used at a time.
        providers: what is known of them: whether they are there.
    """

    primary: BaseChatModel
    fallback: BaseChatModel | None = None
    cheaper: BaseChatModel | None = None
    prices: Prices = field(default_factory=Prices.packaged)
    max_tokens: int = MAX_TOKENS
    timeout: float = 30
    logprobs: bool = False
    limits: Limits = UNLIMITED
    providers: Providers = field(default_factory=Providers, compare=False)

    @classmethod
    def of(cls, resources: Resources) -> Models:
        """The models among the resources, the last ones given. A bare chat model is a primary without the others. What
        the process knows of its providers is known here.

        Raises:
            ResourceMissing: there is no chat model.
        """
        given = [item for item in resources.items if isinstance(item, Models | BaseChatModel)]
        if not given:
            raise ResourceMissing(cls)
        last, known = given[-1], [item for item in resources.items if isinstance(item, Providers)]
        if isinstance(last, Models):
            return replace(last, providers=known[-1]) if known else last
        before = next((item for item in reversed(given) if isinstance(item, Models)), None)
        models = cls(last) if before is None else replace(before, primary=last, fallback=None, cheaper=None)
        return replace(models, providers=known[-1]) if known else models

    async def ask(self, question: Question, *, economy: bool = False) -> Answer:
        """Ask once; the answer says which model gave it.

        Args:
            economy: ask the cheaper model.

        Raises:
            ModelUnavailable: none of the models answers now.
            ModelDown: they have failed again and again, and are not asked for now.
            ModelAnswerInvalid: an answer in the wrong form.
            ModelRefused: the model or its provider will not answer this.
            ModelMisconfigured: the provider does not accept the request, or there is no cheaper model.
        """
        return await self.first(
            lambda model, timeout: self._ask(model, question, timeout),
            read=lambda model: self._read(model, question),
            economy=economy,
        )

    async def first(
        self,
        ask: Callable[[BaseChatModel, float], Awaitable[Answered]],
        *,
        read: Callable[[BaseChatModel], int],
        economy: bool,
    ) -> Answered:
        """What the first model that is available answers to `ask(model, seconds)`. Raises what `ask` raises.

        Args:
            read: how many tokens a model reads at most.
        """
        if economy or self.fallback is None:
            [model] = self._asked(economy=economy)
            return await self._in_turn(model, self.timeout, ask, read)
        spent = 0.0

        async def timed(model: BaseChatModel, seconds: float) -> Answered:
            nonlocal spent
            started = time.monotonic()
            try:
                return await ask(model, seconds)
            finally:
                spent = time.monotonic() - started

        try:
            return await self._in_turn(self.primary, self.timeout / 2, timed, read)
        except ModelUnavailable as error:
            unavailable = error
        try:
            return await self._in_turn(self.fallback, self.timeout - spent, ask, read)
        except (ModelUnavailable, ModelMisconfigured) as error:
            raise self._both(unavailable, error) from error

    async def _in_turn(
        self,
        model: BaseChatModel,
        seconds: float,
        ask: Callable[[BaseChatModel, float], Awaitable[Answered]],
        read: Callable[[BaseChatModel], int],
    ) -> Answered:
        """Ask one model when there is a place among the calls to its provider, if the provider is not down."""
        tokens = 0 if self.limits.tokens_per_minute is None else read(model) + answer_limit(model, self.max_tokens)
        asked = self.providers.asked(
            host_of(model), part=model_name(model), limits=self.limits, tokens=tokens, is_away=_is_away
        )
        try:
            async with asked as place:
                answer = await ask(model, seconds)
                if answer.counted:
                    place.took(answer.input_tokens + answer.output_tokens)
        except ProviderDown as down:
            raise ModelDown(str(down), providers=down.providers, retry_after=down.retry_after) from down
        return answer

    def _both(self, primary: ModelUnavailable, fallback: ModelUnavailable | ModelMisconfigured) -> ModelUnavailable:
        """What it means that neither answers. Never for good, even if the fallback's name is wrong: the primary may be
        back."""
        words = f"{model_name(self.primary)}: {primary}"
        if self.fallback is not None:
            words += f"; its fallback {model_name(self.fallback)}: {fallback}"
        waits = [error.retry_after for error in (primary, fallback) if error.retry_after is not None]
        downs = [error for error in (primary, fallback) if isinstance(error, ModelDown)]
        others = [error for error in (primary, fallback) if not isinstance(error, ModelDown | ModelMisconfigured)]
        if downs and not others:
            names = tuple(name for down in downs for name in down.providers)
            return ModelDown(words, providers=names, retry_after=min(waits))
        return ModelUnavailable(words, retry_after=min(waits, default=None))

    def estimate(self, question: Question, *, economy: bool = False) -> Estimate:
        """What asking this will take at most, for a budget to set aside.

        It is a bound: a question has no more tokens than bytes (see `Request.tokens`), an answer no more than the
        limit that is sent to the provider, and where there is a fallback, both models may be asked and paid. It
        holds as far as the provider keeps to its limit; what was really used stands in the answer.

        Raises:
            ModelMisconfigured: there is no cheaper model.
        """
        return self._at_most(lambda model: self._read(model, question), economy=economy)

    def estimate_chat(self, size: int, *, economy: bool = False) -> Estimate:
        """The same for a conversation of so many bytes."""
        return self._at_most(lambda _model: size, economy=economy)

    def _at_most(self, read: Callable[[BaseChatModel], int], *, economy: bool) -> Estimate:
        estimates = [self._estimate(model, read(model)) for model in self._asked(economy=economy)]
        unknown = next((one for one in estimates if one.cost is None), None)
        return Estimate(
            tokens=sum(one.tokens for one in estimates),
            cost=sum((one.cost for one in estimates if one.cost is not None), Decimal(0)) if unknown is None else None,
            currency=self.prices.currency,
            model=(unknown or estimates[0]).model,
        )

    async def close(self) -> None:
        """Close the connections of models from `build_models`."""
        for model in (self.primary, self.fallback, self.cheaper):
            if model is not None:
                await close_model(model)

    def _asked(self, *, economy: bool) -> list[BaseChatModel]:
        """The models that one question may reach, in their order."""
        if not economy:
            return [self.primary] if self.fallback is None else [self.primary, self.fallback]
        if self.cheaper is not None:
            return [self.cheaper]
        if isinstance(self.primary, OfflineModel):
            return [self.primary]  # nothing is cheaper
        raise ModelMisconfigured(
            "a budget asks for a cheaper model and there is none: set EVENTWRIGHT_CHEAPER_MODEL, or Models(cheaper=...)"
        )

    def _estimate(self, model: BaseChatModel, read: int) -> Estimate:
        name, limit = model_name(model), answer_limit(model, self.max_tokens)
        cost = self.prices.at_most(name, read, limit)
        return Estimate(tokens=read + limit, cost=cost, currency=self.prices.currency, model=name)

    def _read(self, model: BaseChatModel, question: Question) -> int:
        return request_for(model, question, logprobs=self.logprobs).tokens

    async def _ask(self, model: BaseChatModel, question: Question, timeout: float) -> Answer:
        return await ask(
            model,
            question,
            timeout=timeout,
            max_tokens=self.max_tokens,
            logprobs=self.logprobs,
            prices=self.prices,
        )
