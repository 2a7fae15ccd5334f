"""Promotion and rollback: a ruling is written into the ledger if the champion is still the one it was made against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from calotype.errors import CalotypeError, DataError, UsageError
from calotype.params import Params
from calotype.project import Project
from calotype.releases import canonical, golden, ledger, projection, versions
from calotype.releases.ledger import Draft, Entry, Verdict, View
from calotype.releases.local_bundles import Champion
from calotype.releases.versions import CHALLENGER, GOLDEN, Registry

if TYPE_CHECKING:
    from calotype.releases.challenge import Challenge
    from calotype.releases.gate import Decision

MOVING = ("promote", "forced", "rollback")
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Ruling:
    """What is to be decided about a contender.

    Parameters
    ----------
    verdict
        What follows.
    reasons
        Why, a line each, the deciding one first.
    evidence
        The figures, as plain values.
    given
        The reason that a person gave; the ledger keeps it instead of the first one.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any] = field(default_factory=dict)
    given: str = ""

    @classmethod
    def of(cls, decision: Decision) -> Ruling:
        """The gate's decision as a ruling."""
        return cls(decision.verdict, decision.reasons, decision.as_json())

    @property
    def digest(self) -> str:
        """SHA-256 of the evidence as canonical JSON."""
        return canonical.digest(self.evidence)


Judge = Callable[[int | None], Ruling | str]
"""A ruling against the champion of that version, or against none; or in words why there is nothing to rule."""


@dataclass(frozen=True)
class Promotion:
    """What a promotion or a rollback came to: the ruling, and its entry in the ledger.

    Parameters
    ----------
    name
        The registered model.
    version
        The contender; None if there was none.
    ruling
        Verdict, reasons and evidence.
    entry
        The ledger's entry; None if there was nothing to decide.
    """

    name: str
    version: int | None
    ruling: Ruling
    entry: Entry | None = None

    @property
    def verdict(self) -> Verdict:
        return self.ruling.verdict

    @property
    def promoted(self) -> bool:
        """Whether the contender became champion."""
        return self.entry is not None and self.entry.moves

    def summary(self) -> str:
        """Verdict and reasons, a line each, and the ledger's entry; only the reason where nothing was decided."""
        first, *rest = self.ruling.reasons
        if self.entry is None:
            return first
        where = f"ledger entry {self.entry.sequence}, by {self.entry.who}"
        return "\n".join([f"{self.verdict}: {first}", *(f"  {line}" for line in [*rest, where])])


def promote(
    project: Project,
    params: Params,
    version: int | None = None,
    *,
    force: bool = False,
    reason: str = "",
    who: str | None = None,
) -> Promotion:
    """Score contender and champion now, on the same test images; the better one is the champion after that.

    Parameters
    ----------
    project, params
        The project and its values.
    version
        The contender; None is the one with the alias challenger.
    force
        Promote whatever the gate says. The load check still holds, and the gate's evidence is still recorded.
    reason
        Why it is forced.
    who
        By whom; None is `ledger.author`.

    Raises
    ------
    UsageError
        If the version is unknown, the champion cannot be used, or the reason is missing.
    DataError
        If the two cannot be compared. Nothing is recorded then.
    CalotypeError
        If the registry, the ledger or the contender's run cannot be reached.
    """
    if reason and not force:
        raise UsageError("promote --reason: found no --force; the gate gives the reasons of other promotions. Add it.")
    if force and not reason.strip():
        raise UsageError('promote --force: found no reason; expected one. Add `--reason "…"`: the ledger keeps it.')
    with versions.connected(project) as registry:
        standing = projection.agree(registry, params, prefix="promote")
        number = version if version is not None else registry.alias(params.name, CHALLENGER)
        if number is None or not force:
            standing.require()
        if number is None:
            return _nothing(params.name, None, _no_challenger(params, standing.champion))
        if number == standing.champion:
            return _champion_already(registry, params, number)
        contender = versions.require(registry, params.name, number)
        versions.require_run(registry, contender)
        local = versions.local(registry, contender)
        with golden.fresh_process() as process, versions.artifact(registry, local, GOLDEN) as images:
            golden.send(process, local.bundle_folder, images, params, engines=project.engines)
            challenge = _challenge(registry, params, local, process)
            judge = _by_force(challenge, reason) if force else _by_gate(challenge)
            return settle(registry, params.name, number, judge, who=who)


def rollback(
    project: Project,
    params: Params,
    to: int | None = None,
    *,
    who: str | None = None,
    fresh: golden.Fresh | None = None,
) -> Promotion:
    """Make an earlier version champion again, after it has answered in a fresh process.

    Parameters
    ----------
    project, params
        The project and its values.
    to
        The version; None is the champion before the present one.
    who
        By whom; None is `ledger.author`.
    fresh
        The process, if the caller has started it already.

    Raises
    ------
    UsageError
        If there is no such version, or no champion before the present one.
    CalotypeError
        If the version does not answer. Nothing is recorded then.
    """
    with ExitStack() as stack:
        process = fresh or stack.enter_context(golden.fresh_process())
        registry = stack.enter_context(versions.connected(project))
        standing = projection.agree(registry, params, prefix="rollback")
        head = standing.view.head
        target = to if to is not None else _before(standing.view)
        if head is None or target is None:
            standing.require()
            raise UsageError(_no_way_back(params, head))
        if target == head and standing.champion is not None:
            return _nothing(params.name, target, _already("roll back", params.name, target))
        found = versions.require(registry, params.name, target)
        _check_was_champion(standing.view, target)
        versions.require_run(registry, found)
        goal = versions.local(registry, found)
        answer = _load_check(registry, params, goal, process)
        if not answer.usable:
            raise CalotypeError(
                f"{goal.title} is not made champion: {answer.summary()}. Version {head} stays; name another by `--to`."
            )
        judge = _by_hand_back(params.name, target, head, to is not None, answer)
        return settle(registry, params.name, target, judge, who=who)


def settle(
    registry: Registry,
    name: str,
    number: int,
    judge: Judge,
    *,
    who: str | None = None,
) -> Promotion:
    """Have a contender judged against the champion and write the ruling into the ledger; alias and tags follow.

    Parameters
    ----------
    registry
        The project's; its ledger is appended to.
    name
        The registered model.
    number
        The contender's version.
    judge
        Called with the champion's version, or None; again whenever another writer changed the champion meanwhile. It
        may find that there is nothing to rule.
    who
        By whom; None is `ledger.author`.
    """
    version = versions.require(registry, name, number)
    ruling: Ruling | str = ""
    known: Entry | None = None

    def propose(view: View) -> Draft | None:
        nonlocal ruling, known
        ruling = judge(view.head)
        if isinstance(ruling, str):
            return None
        known = _recorded(view, number, ruling)
        if known is not None:
            return None
        # Before the entry: an entry whose evidence is nowhere would be worth little.
        registry.log_bytes(
            str(version.run_id), canonical.encoded(ruling.evidence), f"gate/decision-{ruling.digest[:12]}.json"
        )
        reason = ruling.given or ruling.reasons[0]
        if ruling.verdict not in MOVING:
            return Draft(number, view.head, ruling.verdict, reason, ruling.digest)
        bundle_digest = version.tags.get(versions.BUNDLE_DIGEST)
        return Draft(number, number, ruling.verdict, reason, ruling.digest, bundle_digest, version.run_id)

    entry = ledger.commit(registry.project.ledger, name, who or ledger.author(), propose) or known
    if isinstance(ruling, str):
        return _nothing(name, number, ruling)
    assert entry is not None
    _publish(registry, name, entry)
    return Promotion(name, number, ruling, entry)


def _publish(registry: Registry, name: str, entry: Entry) -> None:
    """What follows from an entry in MLflow: the alias first, then words."""
    if entry.moves and entry.version is not None:
        projection.follow(registry, name)
        projection.retire_challenger(registry, name, entry.version)
    version = registry.version(name, entry.version) if entry.version is not None else None
    if version is not None:
        tags = {
            "verdict": entry.verdict,
            "reason": entry.reason,
            "evidence_digest": entry.evidence_digest,
            "ledger_sequence": str(entry.sequence),
        }
        registry.tag_version(version, {f"calotype.gate.{key}": value for key, value in tags.items()})


def _recorded(view: View, number: int, ruling: Ruling) -> Entry | None:
    """The entry that says the same already: a task that was tried again after it had been written."""
    last = next((entry for entry in reversed(view.entries) if entry.version == number), None)
    if last is None or ruling.verdict in MOVING:
        return None
    same = (last.verdict, last.evidence_digest, last.to_version) == (ruling.verdict, ruling.digest, view.head)
    return last if same else None


def _challenge(registry: Registry, params: Params, contender: Champion, process: golden.Fresh) -> Challenge:
    # Scoring imports torch; a rollback does without.
    from calotype.releases.challenge import Challenge

    return Challenge(registry, params, contender, process)


def _by_gate(challenge: Challenge) -> Judge:
    return lambda head: Ruling.of(challenge.decide(head))


def _by_force(challenge: Challenge, reason: str) -> Judge:
    """Promote whatever the gate says, and keep what it says; but never a version that does not answer."""

    def judge(head: int | None) -> Ruling:
        try:
            decision = challenge.decide(head)
            says, found = decision.summary().splitlines(), decision.as_json()
        except (DataError, UsageError) as error:
            says, found = [f"it cannot judge: {error}"], {"refusal": str(error)}
        title, answer = challenge.contender.title, challenge.answer
        evidence = {"format_version": FORMAT_VERSION, "forced": reason, "gate": found, "load_check": vars(answer)}
        if not answer.usable:
            kept = f"{title} is not made champion, force or not: {answer.summary()}"
            return Ruling("reject", (kept,), evidence)
        place = f"in place of version {head}" if head is not None else "the first"
        first = f"{title} is the champion now, {place}, because: {reason}"
        reasons = (first, answer.summary(), *(f"the gate: {line.strip()}" for line in says))
        return Ruling("forced", reasons, evidence, given=reason)

    return judge


def _by_hand_back(name: str, target: int, seen: int, named: bool, answer: golden.Answer) -> Judge:
    """Return the title to a version; one that was not named is only right for the champion that was seen."""

    def judge(head: int | None) -> Ruling | str:
        if head == target:
            return _already("roll back", name, target)
        if head != seen and not named:
            raise CalotypeError(
                f"{name}: the champion changed meanwhile, from version {seen} to {head}. Nothing was changed; run "
                "`calotype rollback` again, or name the version by `--to`."
            )
        evidence = {"format_version": FORMAT_VERSION, "from": head, "to": target, "load_check": vars(answer)}
        first = f"{name} version {target} is the champion again, in place of version {head}"
        given = "named by --to" if named else "the champion before"
        return Ruling("rollback", (first, answer.summary()), evidence, given)

    return judge


def _load_check(registry: Registry, params: Params, version: Champion, process: golden.Fresh) -> golden.Answer:
    with versions.artifact(registry, version, GOLDEN) as path:
        golden.send(process, version.bundle_folder, path, params, engines=registry.project.engines)
        return golden.receive(process)


def _before(view: View) -> int | None:
    """The champion before the present one, if there is one; versions that were rolled back from are passed over."""
    line: list[int] = []
    for entry in view.entries:
        if not entry.moves or entry.to_version is None:
            continue
        if entry.verdict == "rollback" and entry.to_version in line:
            del line[line.index(entry.to_version) :]
        line.append(entry.to_version)
    return line[-2] if len(line) > 1 else None


def _no_way_back(params: Params, head: int | None) -> str:
    if head is None:
        return f"{params.name} has no champion to roll back from. Run `calotype promote`."
    return f"{params.name}: no champion before version {head} is in the ledger. Name a version by `--to`."


def _check_was_champion(view: View, target: int) -> None:
    """A way back only: a version that never earned the title must pass the gate, or be forced with a reason."""
    champions = list(dict.fromkeys(entry.to_version for entry in view.entries if entry.to_version is not None))
    if target not in champions:
        raise UsageError(
            f"{view.model} version {target} was never the champion; expected one that was: "
            f"{', '.join(map(str, champions))}. Run `calotype promote {target}`."
        )


def _nothing(name: str, number: int | None, reason: str) -> Promotion:
    return Promotion(name, number, Ruling("hold", (reason,)))


def _already(act: str, name: str, champion: int) -> str:
    return f"nothing to {act}: {name} version {champion} is the champion already"


def _no_challenger(params: Params, champion: int | None) -> str:
    if champion is not None:
        return f"{_already('promote', params.name, champion)}, and no other is the challenger"
    return f"nothing to promote: no version of {params.name!r} is the challenger. Run `calotype register`."


def _champion_already(registry: Registry, params: Params, number: int) -> Promotion:
    """Finish what a promotion that was cut off after its entry left, and say that it is done."""
    entry = ledger.read(registry.project.ledger, params.name).title
    if entry is not None:
        _publish(registry, params.name, entry)
    return _nothing(params.name, number, _already("promote", params.name, number))
