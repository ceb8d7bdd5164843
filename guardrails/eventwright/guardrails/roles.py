"""Which roles a call asks for: those that its node's policy names, and those that the rules which ask do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.verdicts import Verdict


def roles_for(policy: Policy, asks: Sequence[Verdict]) -> tuple[str, ...]:
    """The roles that whoever approves the call must have, every one; none if nobody is asked."""
    named = [*policy.approval.roles, *(verdict.role for verdict in asks if verdict.role)] if asks else []
    return tuple(dict.fromkeys(named))


def roles_to_come(policy: Policy) -> Iterator[tuple[tuple[str, ...], int]]:
    """What the policy is known to ask for before it asks: roles that one person must have, every one, and how many
    such people it takes. What a rule asks for without declaring it is not among them."""
    approval, otherwise = policy.approval, policy.otherwise
    if approval.roles:
        yield approval.roles, approval.people
    if otherwise.roles:
        yield otherwise.roles, otherwise.people
    for rule in filter(None, map(policy.rule_for, policy.tools)):
        for role in rule.roles:
            yield tuple(dict.fromkeys((*approval.roles, role))), max(approval.people, rule.people)


def counts_as_approved(policy: Policy, asks: Sequence[Verdict], held: Collection[str] | None = None) -> bool:
    """Whether it is enough that one person has edited the call, or has approved it where LangChain's middleware asked.

    Args:
        held: the roles that this person was asked in; None by the middleware, which does not know who may not decide.
    """
    one = policy.approval.people == 1 and all(verdict.people == 1 for verdict in asks)
    if held is None and policy.approval.by_another:
        return False
    return one and set(roles_for(policy, asks)) <= set(held or ())
