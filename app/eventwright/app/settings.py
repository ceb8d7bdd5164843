"""Settings: read once from the environment, checked, frozen, handed down. Nobody else reads the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventwright.app.durations import FOREVER, read_duration
from eventwright.graphs.workflow import NAME
from eventwright.queue.database_changes import postgres_address, sqlite_path
from eventwright.queue.engine import Lapse
from eventwright.queue.pressure import MOST_BACKLOG
from eventwright.runs.retention import Keep
from eventwright.runs.roles import Roles
from eventwright.tools.building import ModelSettings
from eventwright.tools.limits import Limits
from eventwright.tools.secrets import VARIABLE, Secrets

SHIPPED_WORKFLOWS = ",".join(
    f"eventwright.graphs.{name}" for name in ("support", "invoices", "leads", "discounts", "failed_payments")
)
_SIGNING = re.compile(r"EVENTWRIGHT_WEBHOOK_.+_SECRET")
_WATCHED = re.compile(r"EVENTWRIGHT_DATABASE_([A-Z0-9_]+)_URL")
#: Variables that are no fields: those with a name of yours in them, and the one that asks for tracebacks.
_NAMED = re.compile(rf"EVENTWRIGHT_(WEBHOOK_.+_(SECRET|SCHEME|URL|HEADER)|DATABASE_[A-Z0-9_]+_URL|DEBUG)|{VARIABLE}.+")


class Settings(BaseSettings):
    """Every setting of every process; each is the environment variable `EVENTWRIGHT_<NAME>` unless it says so."""

    # What is empty is not set: `docker compose` and unit files write variables that nobody gave a value.
    model_config = SettingsConfigDict(
        env_prefix="EVENTWRIGHT_", frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    home: Path = Field(
        default=Path(".eventwright"), description="the folder of the embedded default: database, Valkey, accounts"
    )
    database_url: str = Field(
        default="", description="sqlite:///file or postgresql://…; default a SQLite file in the home"
    )
    redis_url: str = Field(default="", description="redis://…, or none for the sweep alone; default an embedded Valkey")
    host: str = Field(default="127.0.0.1", description="the address the API listens on")
    port: int = Field(default=8585, ge=0, le=65535, description="the port the API listens on; 0 for any free one")
    workflows: str = Field(default=SHIPPED_WORKFLOWS, description="modules with workflows to load, comma-separated")
    concurrency: int = Field(default=100, ge=1, description="how many runs a worker takes on at once")
    lane: str = Field(
        default="default", description="the lane a worker listens to; several in order of urgency, comma-separated"
    )
    drain_seconds: float = Field(
        default=25.0, ge=0, description="how long a shutdown waits for running nodes, in seconds"
    )
    lease_seconds: float = Field(
        default=6.0, gt=0, description="how long a run stays with a worker after its last heartbeat"
    )
    heartbeat_seconds: float = Field(default=2.0, gt=0, description="time between two heartbeats")
    sweep_seconds: float = Field(default=2.0, gt=0, description="time between two sweeps, less some jitter")
    stall_seconds: float = Field(
        default=10.0,
        ge=0,
        description="how long a node may block a worker's event loop before the log says so; three times as long ends "
        "the process, whose runs others take over; 0 for never",
    )
    max_backlog: int = Field(
        default=MOST_BACKLOG, ge=1, description="how many runs may wait to be begun; above that, events get a 429"
    )
    keep_checkpoints: str = Field(
        default="7d", description="how long the checkpoints of finished runs are kept: 12h, 7d, 4w, forever"
    )
    keep_payloads: str = Field(
        default=FOREVER,
        description="how long data of events, and arguments and results of finished runs, are kept: 90d, forever",
    )
    keep_deliveries: str = Field(
        default="30d",
        description="how long the log of webhooks says what was delivered: 30d, forever; never longer than payloads",
    )
    api_key: SecretStr | None = Field(
        default=None, description="callers must bring it as a bearer token; needed beyond loopback"
    )
    roles: str = Field(
        default="",
        description="who has which role, where a review asks for one: sales-manager=ann,bo@example.org;"
        "sales-director=cleo",
    )
    inbox: bool = Field(
        default=True, description="whether the API shows people the [inbox](inbox.md) at /inbox; off for no"
    )
    forms_per_minute: int = Field(
        default=30,
        ge=1,
        description="how many posts of forms one address may send in a minute; above that it gets a 429",
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto",
        description="lines for people (console) or one JSON object a line (json); auto: console at a terminal",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least important lines that are logged"
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="a port on which `eventwright worker` shows its /metrics; an API has them at its own",
    )
    smtp_url: str = Field(
        default="",
        description="the mail server: smtp://user:password@host:port, smtps://, smtp+starttls://; "
        "?from=ADDRESS says whom mail comes from",
    )
    imap_url: str = Field(
        default="",
        description="a mailbox whose messages become events: imaps://user:password@host/INBOX, imap+starttls:// "
        "([mail](mail.md))",
    )
    stripe_api_key: SecretStr | None = Field(
        default=None, description="the key of a Stripe account, for billing; without one an embedded ledger stands in"
    )
    stripe_api_base: str = Field(default="https://api.stripe.com", description="the address of Stripe's API")
    signatures_url: str = Field(
        default="",
        description="the account at a provider of signatures: https://host/restapi/v2.1/accounts/… "
        "([discounts](discounts.md)); without one an embedded system stands in",
    )
    price_list: str = Field(
        default="", description="a price list (TOML) for quotes instead of the one that comes with the package"
    )
    enrichment_url: str = Field(
        default="", description="the provider that knows companies by their domain: https://… ([leads](leads.md))"
    )
    model: str | None = Field(default=None, description="the chat model; default the provider's usual one")
    fallback_model: str = Field(
        default="", description="a model of the same provider, asked when the chat model does not answer"
    )
    cheaper_model: str = Field(
        default="", description="a model of the same provider, asked in the chat model's place when a budget says so"
    )
    model_timeout: float = Field(
        default=30.0, gt=0, description="seconds for one question; with a fallback, the chat model has half of them"
    )
    model_max_tokens: int = Field(
        default=2048, ge=1, description="tokens that an answer may have, a reasoning model's thoughts among them"
    )
    model_logprobs: bool = Field(
        default=False,
        description="whether to ask for the probabilities of tokens, which not every model gives; "
        "they can only lower a confidence",
    )
    model_concurrency: int | None = Field(
        default=None, ge=1, description="how many calls of models a process makes at once; default as many as come"
    )
    model_requests_per_minute: int | None = Field(
        default=None, ge=1, description="how many calls of models a process makes in a minute; default as many as come"
    )
    model_tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="how many tokens a process lets models read and write in a minute; default as many as come",
    )
    prices: str = Field(default="", description="a price table (TOML) instead of the one that comes with the package")
    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="OPENAI_API_KEY",
        description="the model's key; or several, comma-separated: when one is refused the next is taken",
    )
    openai_base_url: str | None = Field(
        default=None, validation_alias="OPENAI_BASE_URL", description="the model's address"
    )

    def webhook_secrets(self, source: str) -> tuple[str, ...]:
        """The active signing secrets of a webhook source: EVENTWRIGHT_WEBHOOK_<SOURCE>_SECRET, comma-separated."""
        return _listed(self.webhook_setting(source, "SECRET"))

    def webhook_setting(self, source: str, what: str) -> str:
        """A setting of a webhook source, EVENTWRIGHT_WEBHOOK_<SOURCE>_<WHAT>: SECRET, SCHEME, URL or HEADER."""
        if not source.isascii():
            # In capitals, letters that differ become one: two sources would share a secret, and one signed request
            # would be two events.
            return ""
        return os.environ.get(f"EVENTWRIGHT_WEBHOOK_{source.upper().replace('-', '_')}_{what}", "").strip()

    @property
    def secrets(self) -> Secrets:
        """What tools may ask for by name, EVENTWRIGHT_SECRET_<NAME>, and our own keys and passwords, which nobody sees.

        Raises:
            BadSecret: a variable's name or value cannot be used.
        """
        named = {
            variable.removeprefix(VARIABLE).lower(): value
            for variable, value in os.environ.items()
            if variable.startswith(VARIABLE) and value
        }
        own = (self.api_key, self.stripe_api_key, self.openai_api_key)
        keys = [key.get_secret_value() for key in own if key is not None]
        keys += _listed(keys[-1]) if self.openai_api_key is not None else ()
        urls = (self.database_url, self.redis_url, self.smtp_url, self.imap_url, self.openai_base_url or "")
        passwords = (password for url in urls for password in _passwords(url))
        signing = (
            form
            for variable, value in os.environ.items()
            if _SIGNING.fullmatch(variable)
            for secret in _listed(value)
            for form in (secret, secret.removeprefix("whsec_"))
        )
        return Secrets(named, tuple(dict.fromkeys([*keys, *passwords, *signing])))

    @field_validator("home")
    @classmethod
    def _is_a_folder(cls, home: Path) -> Path:
        if home.exists() and not home.is_dir():
            raise ValueError(f"{home} is a file, and a folder is needed")
        return home

    @field_validator("lane")
    @classmethod
    def _lanes_are_told_apart(cls, lane: str) -> str:
        names = _listed(lane)
        if not names:
            raise ValueError(f"{lane!r} names no lane: write one, or several in order of urgency, as in urgent,default")
        if unusable := [name for name in names if not NAME.fullmatch(name)]:
            raise ValueError(f"{unusable[0]!r} can be no lane: its name is lower case letters, digits, - and _")
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"{', '.join(twice)} stands in {lane!r} more than once: leave it where it is most urgent")
        return lane

    @field_validator("keep_checkpoints", "keep_payloads", "keep_deliveries")
    @classmethod
    def _is_a_length_of_time(cls, written: str) -> str:
        read_duration(written)
        return written

    @field_validator("roles")
    @classmethod
    def _roles_are_held(cls, written: str) -> str:
        Roles.parse(written)
        return written

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                f"EVENTWRIGHT_LEASE_SECONDS={self.lease_seconds} must be at least twice "
                f"EVENTWRIGHT_HEARTBEAT_SECONDS={self.heartbeat_seconds}, or a single late heartbeat loses a run"
            )
        return self

    @model_validator(mode="after")
    def _databases_have_addresses(self) -> Self:
        for name, url in _watched().items():
            (sqlite_path if url.startswith("sqlite") else postgres_address)(name, url)
        return self

    @property
    def database(self) -> str:
        """The database's URL, the embedded default included."""
        return self.database_url or f"sqlite:///{self.home.resolve() / 'eventwright.db'}"

    @property
    def databases(self) -> dict[str, str]:
        """The addresses of the databases whose changes start runs, by name: EVENTWRIGHT_DATABASE_<NAME>_URL."""
        return _watched()

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes of a worker, the most urgent first."""
        return _listed(self.lane)

    @property
    def who_has_which_role(self) -> Roles:
        """Who has which role."""
        return Roles.parse(self.roles)

    @property
    def times(self) -> Lapse:
        """The engine's lease, heartbeat and sweep."""
        return Lapse(lease=self.lease_seconds, heartbeat=self.heartbeat_seconds, sweep=self.sweep_seconds)

    @property
    def keep(self) -> Keep:
        """How long what is not needed any more is kept."""
        return Keep(
            checkpoints=read_duration(self.keep_checkpoints),
            payloads=read_duration(self.keep_payloads),
            deliveries=read_duration(self.keep_deliveries),
        )

    @property
    def model_settings(self) -> ModelSettings:
        """What the tools need to build the chat models."""
        key = self.openai_api_key.get_secret_value() if self.openai_api_key else None
        return ModelSettings(
            model=self.model,
            fallback=self.fallback_model or None,
            cheaper=self.cheaper_model or None,
            api_key=key,
            base_url=self.openai_base_url,
            timeout=self.model_timeout,
            max_tokens=self.model_max_tokens,
            logprobs=self.model_logprobs,
            prices=Path(self.prices) if self.prices else None,
            limits=Limits(
                at_once=self.model_concurrency,
                requests_per_minute=self.model_requests_per_minute,
                tokens_per_minute=self.model_tokens_per_minute,
            ),
        )


def unread() -> list[str]:
    """The variables of ours in the environment that nobody reads: a setting that is typed wrongly."""
    read = {f"EVENTWRIGHT_{name.upper()}" for name in Settings.model_fields}
    given = (name.upper() for name in os.environ)  # settings are found in small letters, too
    ours = {name for name in given if name.startswith("EVENTWRIGHT_")}
    return sorted(name for name in ours - read if not _NAMED.fullmatch(name))


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _watched() -> dict[str, str]:
    found = ((_WATCHED.fullmatch(variable), value.strip()) for variable, value in sorted(os.environ.items()))
    return {name[1].lower().replace("_", "-"): url for name, url in found if name is not None and url}


def _passwords(url: str) -> tuple[str, ...]:
    """The password in a URL, as it is written and as it is meant."""
    try:
        written = urlsplit(url).password
    except ValueError:
        return ()  # no URL; who connects to it will say so
    return () if written is None else (written, unquote(written))
