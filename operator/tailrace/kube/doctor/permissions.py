"""May the operator's account do all that it must? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tailrace.kube.doctor.findings import Finding, Findings, Severity, well
from tailrace.kube.doctor.installation import install_commands
from tailrace.kube.doctor.rights import RULES, Question, Rule
from tailrace.kube.doctor.seen import Seen


def permissions(seen: Seen, account: str) -> Findings:
    """Yield the rights that the account lacks, one finding a rule of the table."""
    lacking = [question for question, may in seen.may.items() if not may]
    for rule in RULES:
        mine = [question for question in lacking if question.rule is rule]
        if mine:
            yield _lacking(seen, account, rule, mine)
    if seen.may and not lacking:
        yield well("rights", account, f"ServiceAccount {account} has all {len(RULES)} rights that it needs.")


def _lacking(seen: Seen, account: str, rule: Rule, questions: list[Question]) -> Finding:
    verbs = ", ".join(dict.fromkeys(question.verb for question in questions))
    where = ", ".join(_places(questions))
    kind = f"{rule.resource}.{rule.group}" if rule.group else rule.resource
    return Finding(
        severity=Severity.ERROR,
        check="rights",
        about=account,
        message=f"ServiceAccount {account} may not {verbs} {kind} {where}: {rule.without}.",
        advice="Apply the shipped rights again.",
        commands=(*install_commands(seen, "kubectl apply -f manifests/base/rbac.yaml"), _proof(account, questions[0])),
        anchor="missing-right",
    )


def _places(questions: Iterable[Question]) -> list[str]:
    found = dict.fromkeys(question.namespace for question in questions)
    return [f"in namespace {namespace}" if namespace else "in the whole cluster" for namespace in found]


def _proof(account: str, question: Question) -> str:
    namespace, _, name = account.partition("/")
    resource, _, part = question.rule.resource.partition("/")
    kind = f"{resource}.{question.rule.group}" if question.rule.group else resource
    extra = f" --subresource={part}" if part else ""
    where = f" -n {question.namespace}" if question.namespace else " -A"
    return f"kubectl auth can-i {question.verb} {kind}{extra}{where} --as=system:serviceaccount:{namespace}:{name}"
