"""The offline model: answers the shipped workflows without a key or a network, from rules that everyone can read.

It is no language model and says so: its name is `offline-rules`. Where no rule fires its confidence is low, so
that a person decides. It is deterministic. The token counts it reports are counts of words.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from eventwright.tools.offline_agent import Step, next_step
from eventwright.tools.offline_discounts import GROUNDS_RULES
from eventwright.tools.offline_invoices import read_invoice
from eventwright.tools.offline_leads import LEAD_RULES
from eventwright.tools.offline_reading import fields_of, material_of, words_of

NAME = "offline-rules"

#: The rules of each label: a weight, and the words that speak for the label. In a pattern ` & ` means that both
#: sides occur somewhere, `|` one word or the other, `*` any ending; words side by side stand side by side in the
#: message. 4 points are enough to be sure as long as nothing speaks for another label; below zero speaks against.
Rules = dict[str, tuple[tuple[float, str], ...]]

TICKET_RULES: Rules = {
    # Getting a card: ordering it, tracking it, waiting for it.
    "card_delivery": (
        (5, "card|cards & deliver*|shipped|shipping|ship|mailed|track|tracking|courier"),
        (5, "card|cards & arrive|arrived|arrives|arriving|arrival"),
        (4, "card|cards & order|ordered|ordering|reorder"),
        (4, "virtual|physical|second|another|additional|spare|extra|replacement|new card|cards"),
        (2, "physical|virtual|disposable card|cards & get|order|want|need|have|apply"),
        (3, "disposable virtual card|cards"),
        (4, "card|cards & expire|expires|expired|expiring|expiration"),
        (3, "card & mail|post & my|the"),
        (3, "card|cards & sent|send|express|receive|received|expect|coming & me|new|when|yet|how"),
        (3, "card|cards & daughter|son|wife|husband|family|partner & order|get|another|second|add"),
        (2, "waiting & card"),
        (2, "card & yet"),
        (-3, "pin|passcode"),
        (-3, "limit|limits|restrict*|many|times"),
        (-3, "work|works|working|activat*|declin*|charged|charge"),
    ),
    # A card that is lost, stolen, damaged, kept by a machine or does not work.
    "card_problem": (
        (5, "card|cards|visa|mastercard|amex & lost|lose|stolen|stole|misplaced|swallow*|steal"),
        (3, "lost|stolen|missing|damaged|broken|cracked card"),
        (4, "card & damaged|broken|cracked|bent|snapped|chip|ate|eaten|eat|cloned|copied|hacked"),
        (4, "card & atm|machine|it & stuck|swallowed|kept|keep|retained"),
        (4, "took|ate|has|kept my card & atm|machine"),
        (5, "card|cards & work|working|function & not|isnt|wont|doesnt|stopped|quit|dont|cant|cannot|why"),
        (5, "activate|activated|activating|activation|reactivate|reactivating & card|cards|it"),
        (5, "contactless"),
        (4, "card & link|linking|linked|relink"),
        (4, "card & found & app|link|lost|again|back|my"),
        (4, "someone|somebody|anyone & using|used|use|has|have & card|details"),
        (4, "card & compromised|fraud|fraudulent|fraudulently|thief"),
        (3, "freeze|block|unfreeze my card|it"),
        (2, "card & unauthorized|permission"),
        (-3, "declined|payment|withdrawal|withdraw|transfer"),
        (-4, "topup"),
        (-3, "phone"),
    ),
    # Money that moves, or does not: transfers, top-ups, payments, cash.
    "payment_problem": (
        (5, "topup|topups"),
        (2, "pending|declined|declining|declines|reverted|rejected|denied"),
        (4, "pending|declin*|reverted|rejected|denied & card|payment*|cash|money|atm|purchase*|transact*|withdraw*"),
        (4, "pending|declin*|reverted|rejected|denied & transfer*|topup|statement|app|bank"),
        (4, "transfer|transfers|transferred|transferring"),
        (3, "bank transfer"),
        (4, "payment|payments|transaction|transfer & fail*|cancel*|stuck|missing|wrong|not|didnt"),
        (3, "payment|payments"),
        (5, "cheque|cheques|deposit|deposited|deposits|beneficiary"),
        (5, "direct debit|debits"),
        (4, "salary|paycheck|wages & account|receive|received|paid|into|here|card"),
        (4, "balance & not|updated|update|changed|change|up|didnt|hasnt|same"),
        (4, "google|apple pay|watch"),
        (4, "recognize|recognise|recognized|authorize|authorise|dont know & payment|debit|transaction|withdrawal"),
        (5, "charge|charges|debit & didnt|not|never|dont|unauthorized & make|made|recogni*|authori*"),
        (4, "cash|money|withdraw* & didnt|never|not & make|made|do|did|me & withdrawal|atm|withdrew|withdraw"),
        (4, "cash|atm|withdraw* & wrong|less|only|partial|different|incorrect|more & amount|gave|got|received"),
        (3, "cash|withdraw*|atm & wouldnt|couldnt|cant|tried|trying|unable|not"),
        (3, "money|funds & sent|send|arrive*|received|receive|recipient|friend|into|show|showing|available"),
        (3, "add|put|load money|funds"),
        (2, "didnt|not|hasnt|doesnt go|gone|went|going through"),
        (3, "auto|automatic|automatically & topup|add|money"),
        (2, "purchase & not|cancelled|declined|through|recognize"),
        (-3, "fee|fees|charged|charge|charges|cost|costs|free"),
        (-3, "exchange|rate|rates|currency|currencies"),
        (-3, "refund|refunded"),
        (-2, "identity|pin|passcode"),
    ),
    # What we charged.
    "charges_and_fees": (
        (5, "fee|fees"),
        (5, "charged|charging & twice|double|extra|duplicate|multiple|two|again"),
        (4, "charged|charge|charges & me|i|was|were|get|be|been|for|there|extra|if"),
        (4, "extra & pound|1|fee|charge|charges|statement|money & statement|account|app|on|for"),
        (4, "twice|duplicate|duplicated|double & payment|transaction|transactions|charge|paid|bill*"),
        (4, "cost|costs|free|charge|charges & transfer*|withdraw*|topup|payment*|international|atm"),
        (-3, "order|card & virtual|physical|additional|spare|second|new|another|expire*"),
        (-4, "charge|charges|debit & didnt|not|never|dont|unauthorized & make|made|recogni*|authori*|do"),
        (-5, "exchange|rate|rates|currency|currencies"),
        (-3, "refund"),
    ),
    # Money back.
    "refund_request": (
        (6, "refund|refunds|refunded|refunding|reimburse*"),
        (4, "money back & bought|purchase*|item|order*|merchant|seller|store|return*"),
        (4, "cancel|return & purchase|item|bought"),
        (2, "cancel|return & order"),
        (3, "item|seller|merchant & bought|purchased|ordered|return & not|never|back|dont|cancel"),
        (1, "want|get my|the money back"),
        (-2, "twice|double|duplicate|charged"),
        (-2, "atm|cash"),
    ),
    # Who you are, and the account itself.
    "identity_and_account": (
        (6, "identity|identification|passcode"),
        (5, "pin & my|card|atm|change|number|reset|blocked|unblock|forgot*|wrong|get|where|new|attempts"),
        (5, "verify|verifying|verification|prove|proof & id|me|my|account|documents|need|funds|myself|who"),
        (4, "password & my|reset|forgot*|dont|app|account"),
        (5, "delete|close|closing|terminate|deactivate|cancel my|the account|accounts"),
        (5, "open|opening|create & account|accounts & child*|kids|son|daughter|age|old|teen*|minor"),
        (4, "open an account"),
        (3, "age|old|children|kids & account|card|customer|need|be|for"),
        (5, "change|edit|update|modify|changing|updating & details|address|personal|email"),
        (3, "change|edit|update|changed|changing|updating & my|last|maiden name"),
        (2, "name & married|marriage|legal*|maiden|last|account|app|card|divorce*"),
        (4, "change|edit|update|changed & phone number"),
        (3, "phone & lost|stolen|stole|lose|missing & my"),
        (4, "phone & account|app|card|cards|bank|money|someone|use & lost|stolen|access|new|stole|missing"),
        (5, "source|origin|come|came|comes & funds|money & where|source|from"),
        (4, "too many & attempts|times|tries & wrong|pin|passcode|enter*|incorrect"),
        (-6, "topup"),
    ),
    # One money for another.
    "exchange_rates": (
        (6, "exchange rate|rates"),
        (6, "exchang* & currency|currencies|money|fee|app|gbp|usd|eur|aud|my|foreign|for"),
        (5, "convert|converting|conversion & currency|currencies|money|gbp|usd|eur|aud|foreign|rate|fee"),
        (5, "currency|currencies & hold|many|which|what|support*|other|foreign|different|multiple|fiat"),
        (5, "rate & wrong|incorrect|bad|applied|conversion|off|different|abroad|foreign"),
        (4, "gbp|usd|eur|aud|pounds|dollars|euros & change|exchange|convert|to"),
        (4, "fiat"),
    ),
    # About us, and for a person: where we are, where a card is taken, which brand and which limits it has.
    "other": (
        (5, "country|countries & card|cards|account|accounts|support|supported|operate|available|your|you"),
        (5, "mastercard & want|get|have|prefer|offer|choose|or|can|do|instead|need"),
        (5, "visa card|debit|credit|or & want|get|have|prefer|offer|choose|or|can|do|instead|need"),
        (5, "where|places|merchants|stores|shops|anywhere|everywhere|businesses & accept*|use|used|pay & card|cards"),
        (5, "atm|atms & which|what|where|find|any|closest|nearest & use|card|find|near|locations|accept*"),
        (5, "disposable|virtual & limit|limits|many|restrict*|maximum|per|max|times"),
        (4, "live & us|uk|eu|europe|i & card|account|service"),
        (-4, "topup|pin|charged|fee|identity"),
    ),
}

PRIORITY_RULES: Rules = {
    "urgent": (
        (6, "fraud|fraudulent|fraudulently|hacked|mugged|robbed|thief|scam|scammed|compromised"),
        (5, "stolen|stole|steal"),
        (5, "urgent|urgently|emergency|immediately|asap"),
        (4, "locked out"),
        (4, "someone|somebody & using|used & card|account|details"),
    ),
    "high": (
        (4, "lost|swallowed|blocked|stuck|stranded|locked"),
        (4, "not|didnt|never & recogni*|authori*|make|made & payment|withdrawal|debit|transaction|charge"),
        (4, "need & money|card|help & soon|today|now|tomorrow"),
        (3, "twice|declined|failed|missing|disappeared|gone"),
        (3, "weeks|days & still|yet|waiting"),
        (-4, "stolen|stole|fraud*|hacked|mugged|robbed|urgent*|immediately|asap|emergency"),
        (-4, "locked out"),
    ),
    "low": (
        (4, "wondering|curious|interested|someday"),
        (4, "how do|can|does i|you|it"),
        (4, "what|which|are|is & countries|currencies|limits|rates|fees|possible|available"),
        (-4, "stolen|stole|lost|fraud*|hacked|mugged|robbed|urgent*|immediately|asap|emergency|locked|blocked"),
    ),
}

_CLOSING = "Kind regards,\nYour support team"

#: A reply per ticket type. None promises what only a person or a tool can keep.
REPLIES = {
    "card_delivery": "thank you for asking about your card. We are checking where it is and will write to you "
    "as soon as we know when it reaches you.",
    "card_problem": "thank you for telling us about the trouble with your card. If it is lost or somebody else may "
    "have used it, please freeze it in the app now; we are looking into it.",
    "payment_problem": "thank you for your message about your payment. We are checking what happened to it and "
    "will write to you with what we find. Please do not send it a second time until then.",
    "charges_and_fees": "thank you for asking about this charge. We are checking what it was for and will explain "
    "it to you, or correct it if it is wrong.",
    "refund_request": "thank you for your message about a refund. We are looking at the payment in question and "
    "will tell you what happens next.",
    "identity_and_account": "thank you for your message about your account. We are looking into it. For your "
    "safety, please never send us your PIN or your passcode.",
    "exchange_rates": "thank you for asking about exchanging money. We are checking which rate applies to you and "
    "will write to you with the details.",
    "other": "thank you for your message. A colleague will read it and write to you.",
}

#: The words with which the offline model excuses itself.
NO_RULES = (
    "the offline model (offline-rules) is a table of keyword rules and has none for this; "
    "set OPENAI_API_KEY or OPENAI_BASE_URL to ask a language model"
)

#: Characters of a message that are read: who wants something says it earlier.
LONGEST_READ = 20_000

Judged = tuple[Any, float, str]


class OfflineModel(BaseChatModel):
    """A chat model made of keyword rules and templates.

    Asked to call a function with a parameter `value`, it answers by the function's name and the schema of
    `value`: `classify` among the ticket types, `choose` among low, normal, high and urgent, `draft` a reply,
    any other enum by word overlap (confidence at most 0.5), any other text by quoting the material (0.1). The last
    message is what it reads. With the tools of the support workflow's research it calls them one after the other
    (`offline_agent`). It refuses everything else.
    """

    model_name: str = NAME

    @property
    def _llm_type(self) -> str:
        return NAME

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with functions in OpenAI's form to choose from."""
        return self.bind(tools=list(tools), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        tools = kwargs.get("tools") or []
        calls = next_step(messages, tools) or _filled(tools, material_of(messages[-1].text))
        spoken = json.dumps(calls) if calls else NO_RULES
        read = sum(len(message.text.split()) for message in messages)
        written = len(spoken.split())
        number = len(messages)
        message = AIMessage(
            content="" if calls else NO_RULES,
            additional_kwargs={"refusal": NO_RULES} if tools and not calls else {},
            tool_calls=[
                {"name": name, "args": args, "id": f"offline_{number}_{place}"}
                for place, (name, args) in enumerate(calls)
            ],
            response_metadata={"model_name": NAME, "finish_reason": "tool_calls" if calls else "stop"},
            usage_metadata={"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def _filled(tools: Sequence[Any], material: str) -> Step:
    """The one function of a question, filled in; nothing where there is no rule at all."""
    if not tools:
        return []
    function = tools[0]["function"]
    answer = _answer(function["name"], function["parameters"]["properties"].get("value", {}), material)
    return [(function["name"], answer)] if answer else []


def _answer(purpose: str, schema: dict[str, Any], material: str) -> dict[str, Any] | None:
    """The filled envelope, or None where there is no rule at all."""
    labels = schema.get("enum")
    judged: Judged | None = None
    if labels:
        judged = _choice(labels, material)
    elif "seller_name" in schema.get("properties", {}):
        judged = read_invoice(material)
    elif schema.get("type") == "string":
        judged = _reply(material) if purpose == "draft" else _quote(material)
    if judged is None:
        return None
    value, confidence, reason = judged
    return {"value": value, "confidence": round(confidence, 2), "reason": f"{NAME}: {reason}"}


def _choice(labels: list[Any], material: str) -> Judged:
    for rules, fallback in (
        (TICKET_RULES, "other"),
        (PRIORITY_RULES, "normal"),
        (LEAD_RULES, "other"),
        (GROUNDS_RULES, "other"),
    ):
        known = {*rules, fallback}
        # Two labels in common: one word that happens to be the same makes no ticket type of a colour.
        if len(known.intersection(map(str, labels))) >= 2:
            return _by_rules(rules, fallback, labels, fields_of(material).get("message") or material)
    return _by_overlap(labels, material)


def _by_rules(rules: Rules, fallback: str, labels: list[Any], text: str) -> Judged:
    """The label with most points. It is sure as far as it has points and the second has none."""
    points, patterns = score(rules, text)
    best, second = list(points)[:2]
    if points[best] <= 0:
        value = fallback if fallback in labels else labels[0]
        # That nothing marks a message as special is itself a weak sign that it is normal.
        return value, 0.5 if fallback == "normal" else 0.1, "no rule fires"
    confidence = min(points[best] / (points[best] + max(points[second], 0.0) + 1.0), 0.97)
    reason = f"{best}, for {', '.join(patterns[best])}"
    if best in labels:
        return best, confidence, reason
    allowed = [label for label in points if label in labels and points[label] > 0]
    value = allowed[0] if allowed else fallback if fallback in labels else labels[0]
    return value, min(1.0 - confidence, 0.5), f"it looks like {reason}, which is no possible answer"


def score(rules: Rules, text: str) -> tuple[dict[str, float], dict[str, list[str]]]:
    """The points of each label for a text, best first, and the patterns that spoke for it."""
    plain = " ".join(words_of(text[:LONGEST_READ]))
    points: dict[str, float] = {}
    patterns: dict[str, list[str]] = {}
    for label, ones in rules.items():
        fired = [(weight, pattern) for weight, pattern in ones if all(side.search(plain) for side in _sides(pattern))]
        points[label] = sum(weight for weight, _ in fired)
        patterns[label] = [f"`{pattern}`" for weight, pattern in fired if weight > 0]
    return dict(sorted(points.items(), key=lambda item: -item[1])), patterns


@functools.cache
def _sides(pattern: str) -> tuple[re.Pattern[str], ...]:
    def side(words: str) -> re.Pattern[str]:
        alternatives = ("|".join(one.replace("*", r"\w*") for one in word.split("|")) for word in words.split())
        return re.compile(r"\b" + r" ".join(f"(?:{word})" for word in alternatives) + r"\b")

    return tuple(side(words) for words in pattern.split(" & "))


def _by_overlap(labels: list[Any], material: str) -> Judged:
    """The label that shares most words with the material."""
    found = set(words_of(material))
    shares = {}
    for position, label in enumerate(labels):
        wanted = set(words_of(str(label).replace("_", " ")))
        shares[position] = len(wanted & found) / len(wanted) if wanted else 0.0
    best = max(shares, key=lambda position: shares[position])
    if shares[best] > 0:
        return labels[best], shares[best] / 2, "no rules for these values; its words occur in the material"
    vague = [label for label in labels if label in ("other", "unknown", "none")]
    return (vague or labels)[0], 0.0, "no rules for these values, and none of their words occurs"


def _reply(material: str) -> Judged:
    fields = fields_of(material)
    kind = "_".join(words_of(fields.get("type", "").replace("_", " ")))
    customer = fields.get("customer", "")[:60]
    greeting = f"Dear {customer}," if customer else "Hello,"
    notes = fields.get("notes")
    found = f"\n\nOur help centre says: {notes}" if notes else ""
    text = f"{greeting}\n\n{REPLIES.get(kind, REPLIES['other'])}{found}\n\n{_CLOSING}"
    if kind in REPLIES:
        return text, 0.9, f"the template for {kind}"
    return text, 0.4, f"no template for the type {kind!r}, so the general one"


def _quote(material: str) -> Judged:
    return material[:200], 0.1, "no rule for this purpose; the beginning of the material"
