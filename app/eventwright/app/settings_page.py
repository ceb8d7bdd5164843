"""`docs/settings.md` is made from the settings: `python -m eventwright.app.settings_page > docs/settings.md`."""

from __future__ import annotations

import sys

from eventwright.app.settings import Settings

HEAD = """# Settings

Every process reads these from its environment, once, when it starts. Nothing has to be set, and
what is empty counts as not set. `eventwright doctor` names variables that nobody reads.

| variable | default | what it is |
|---|---|---|
"""
TAIL = (
    "| `EVENTWRIGHT_WEBHOOK_<SOURCE>_SECRET` | | the signing secrets of the webhook source, comma-separated; all are "
    "active, which is how they are rotated |\n"
    "| `EVENTWRIGHT_WEBHOOK_<SOURCE>_SCHEME` | | how the source signs: `standard`, `stripe`, `hubspot`, `slack`, "
    "`github`, `shopify` or `hmac`; default the provider that the source is called like, else `standard` "
    "([webhooks](webhooks.md)) |\n"
    "| `EVENTWRIGHT_WEBHOOK_<SOURCE>_URL` | | the address as it is registered with HubSpot, which signs it |\n"
    "| `EVENTWRIGHT_WEBHOOK_<SOURCE>_HEADER` | `X-Signature` | the header with the signature of the scheme `hmac` |\n"
    "| `EVENTWRIGHT_DATABASE_<NAME>_URL` | | a database of yours whose changes start runs: `postgresql://…` or "
    "`sqlite:///file` ([database changes](database-changes.md)) |\n"
    '| `EVENTWRIGHT_SECRET_<NAME>` | | a secret that a tool asks for with `call.secret("name")`, 8 characters at '
    "least; hidden in what models read, in journals and in logs |\n"
    "| `OTEL_*` | | OpenTelemetry's own, see [traces](observability.md#traces) |\n"
    "| `LANGSMITH_*` | | LangSmith's own, see [LangSmith](observability.md#langsmith) |\n"
)


def page() -> str:
    """The page as Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = alias if isinstance(alias, str) else f"EVENTWRIGHT_{name.upper()}"
        default = "" if field.default in (None, "") else f"`{field.default}`"
        rows.append(f"| `{variable}` | {default} | {field.description} |\n")
    return HEAD + "".join(rows) + TAIL


if __name__ == "__main__":
    sys.stdout.write(page())
