"""The offline model's rules for what somebody wants who fills in the form for leads."""

from __future__ import annotations

#: In the form of the rules in `offline_model`.
LEAD_RULES: dict[str, tuple[tuple[float, str], ...]] = {
    # Wants to have it.
    "buying": (
        (6, "quote|quotation|purchase|buy|buying|order|proposal"),
        (5, "price|prices|pricing|cost|costs|discount|licence|licences|license|licenses"),
        (4, "need|want|looking & seats|users|licences|licenses|subscription|plan"),
        (2, "budget|contract|invoice|procurement"),
        (-4, "job|vacancy|cv|seo|backlink*|ranking"),
        (-3, "cancel*|refund*|broken|login|password"),
    ),
    # Wants to see whether it fits.
    "evaluating": (
        (6, "demo|demonstration|trial|pilot|evaluat*"),
        (4, "compare|comparing|comparison|alternative|alternatives"),
        (4, "learn|know|information|see|show & more|product|works|work|how"),
        (3, "interested|considering|curious"),
        (-4, "job|vacancy|cv|seo|backlink*"),
    ),
    # Has it already, and trouble with it.
    "support": (
        (6, "broken|bug|crash*|login|password|outage"),
        (5, "error|errors|fails|failing|doesnt work|not working|stopped working"),
        (4, "help|problem|issue|trouble & account|my|our|with"),
        (4, "refund*|cancel*"),
        (-3, "quote|demo|trial"),
    ),
    # Wants to work with us, or for us.
    "partnership": (
        (6, "partner|partners|partnership|reseller|resell|affiliate|integrate your"),
        (5, "job|vacancy|vacancies|cv|internship|career|hiring"),
    ),
    # Wants to sell us something.
    "advertising": (
        (6, "seo|backlink*|ranking|rankings|guest post|link building|crypto|casino"),
        (5, "we|i offer|provide & services|service|leads|marketing|traffic|website"),
        (4, "increase|boost|grow|improve your & traffic|sales|website|business|ranking"),
    ),
}
