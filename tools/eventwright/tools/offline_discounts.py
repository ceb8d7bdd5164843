"""How the offline model tells on what grounds somebody wants a discount: by words, as it tells tickets apart."""

from __future__ import annotations

GROUNDS_RULES: dict[str, tuple[tuple[float, str], ...]] = {
    "competition": (
        (5, "competit*|competing|rival*"),
        (4, "cheaper|lower|better & offer|offers|quote|quotes|price|bid"),
        (4, "switch*|migrat* & from"),
        (3, "tender|match"),
    ),
    "volume": (
        (5, "volume|bulk"),
        (4, "large|big|bigger|huge & order|quantity|rollout|deployment"),
        (4, "many|hundred*|thousand* & seats|licen*|users|people"),
        (4, "company wide|companywide|whole company"),
    ),
    "loyalty": (
        (5, "loyal*|renew*"),
        (4, "customer|client|with us|business & years|long|again|returning|existing"),
        (4, "since 20*"),
    ),
}
