"""MLflow's alias `champion` follows the ledger's head: set after each entry, and put right at each start.

Two tags of the registered model say which ledger governs it, and which entry the alias last followed. So a promotion
that was cut off between its entry and the alias is told from an alias that somebody moved by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from calotype.console import say
from calotype.errors import CalotypeError, UsageError
from calotype.params import Params
from calotype.releases import ledger
from calotype.releases.ledger import Draft, Entry, View
from calotype.releases.versions import BUNDLE_DIGEST, CHALLENGER, CHAMPION, Registry

LEDGER, SEQUENCE = "calotype.ledger", "calotype.ledger_sequence"
BY_HAND = "unknown, by hand"
ATTEMPTS = 100


@dataclass(frozen=True)
class Standing:
    """Who is champion, after alias and ledger were made to agree.

    Parameters
    ----------
    view
        The ledger's entries.
    champion
        The version that may be used; None if there is none.
    problem
        Why there is none though there should be: one line that says what to do, or empty.
    """

    view: View
    champion: int | None
    problem: str = ""

    def require(self) -> int | None:
        """The champion, or None where nobody was ever promoted.

        Raises
        ------
        UsageError
            If there should be one, and cannot be used.
        """
        if self.problem:
            raise UsageError(self.problem)
        return self.champion


def reconcile(registry: Registry, params: Params, *, prefix: str) -> Standing:
    """Make alias and ledger agree; say in a line what was found otherwise.

    Parameters
    ----------
    registry
        The project's.
    params
        ``name`` and ``promote.moved_alias``.
    prefix
        The verb that speaks.

    Raises
    ------
    UsageError
        If another ledger governs the model.
    """
    standing = agree(registry, params, prefix=prefix)
    if standing.problem:
        say(prefix, standing.problem)
    return standing


def agree(registry: Registry, params: Params, *, prefix: str) -> Standing:
    """As `reconcile`, but a problem is left to the caller: to raise it, or to mend it."""
    name = params.name
    model = registry.model(name)
    tags: dict[str, str] = dict(model.tags) if model else {}
    alias = registry.alias(name, CHAMPION)
    # After the alias: whatever a promotion set it to, its entry was there before.
    view = ledger.read(registry.project.ledger, name)
    _check_governor(tags.get(LEDGER), view, registry, name)
    if view.head is not None and registry.version(name, view.head) is None:
        return Standing(view, None, _gone(registry, name, view.head))
    title = view.title
    if alias == view.head and (title is None or tags.get(SEQUENCE) == str(title.sequence)):
        return Standing(view, view.head)
    if title is None:
        return _unrecorded(registry, params, view, alias, prefix)
    return _mend(registry, params, view, title, alias, tags, prefix)


def follow(registry: Registry, name: str) -> None:
    """Set the alias to the ledger's head, and again until both agree: whoever sets it last, sets it right.

    Raises
    ------
    CalotypeError
        If the head kept changing.
    """
    place = registry.project.ledger
    for _ in range(ATTEMPTS):
        view = ledger.read(place, name)
        title = view.title
        if title is None or view.ledger_id is None:
            return
        if registry.alias(name, CHAMPION) != view.head:
            registry.set_alias(name, CHAMPION, view.head)
        registry.tag_model(name, {SEQUENCE: str(title.sequence), LEDGER: view.ledger_id})
        if ledger.read(place, name).title == title and registry.alias(name, CHAMPION) == view.head:
            return
    raise CalotypeError(
        f"{name}: the champion changed {ATTEMPTS} times while the alias was set. Run the command again."
    )


def retire_challenger(registry: Registry, name: str, version: int) -> None:
    """Take the alias challenger from a version that became champion, unless it names another one by now."""
    if registry.alias(name, CHALLENGER) == version:
        registry.set_alias(name, CHALLENGER, None)


def _check_governor(named: str | None, view: View, registry: Registry, name: str) -> None:
    if named is None or named == view.ledger_id:
        return
    place = registry.project.ledger
    found = f"the ledger {view.ledger_id[:8]}…" if view.ledger_id else "no ledger"
    raise UsageError(
        f"{name}: the ledger {named[:8]}… governs it, found {found} at {place}. Set CALOTYPE_LEDGER to the place of "
        f"the first; if that is lost, delete the tag {LEDGER} of the registered model {name}."
    )


def _gone(registry: Registry, name: str, head: int) -> str:
    others = [number for number in registry.numbers(name) if number != head]
    there = f"; there are {', '.join(map(str, others[-10:]))}" if others else ""
    return (
        f"{name} version {head} is the champion and was deleted in MLflow. Run `calotype rollback --to VERSION` or "
        f"`calotype promote VERSION --force --reason …`{there}."
    )


def _unrecorded(registry: Registry, params: Params, view: View, alias: int | None, prefix: str) -> Standing:
    """The alias names a version, and the ledger has no promotion: the work of a hand, or of an older calotype."""
    if alias is None:
        return Standing(view, None)
    name = params.name
    if params.promote.moved_alias == "adopt" and _is_ours(registry, name, alias):
        return _adopt(registry, params, alias, f"the alias named version {alias} before there was an entry", prefix)
    problem = (
        f"{name} version {alias} has the alias {CHAMPION} and no promotion in the ledger. Record it by `calotype "
        f"promote {alias} --force --reason …`, or set `moved_alias: adopt` in params.yaml."
    )
    return Standing(view, None, problem)


def _mend(
    registry: Registry,
    params: Params,
    view: View,
    title: Entry,
    alias: int | None,
    tags: dict[str, str],
    prefix: str,
) -> Standing:
    followed = int(tags[SEQUENCE]) if tags.get(SEQUENCE, "").isdigit() else 0
    if followed < title.sequence:
        follow(registry, params.name)
        if alias != view.head:
            say(prefix, f"{params.name}: finished ledger entry {title.sequence}, whose alias was not set: {view.head}")
        return _current(registry, params.name)
    if alias == view.head:
        return Standing(view, view.head)
    hand = f"the alias {CHAMPION} was moved by hand from version {view.head} to {alias}"
    if alias is None:
        hand = f"the alias {CHAMPION} was deleted by hand; it named version {view.head}"
    if params.promote.moved_alias == "adopt" and (alias is None or _is_ours(registry, params.name, alias)):
        return _adopt(registry, params, alias, hand, prefix)
    follow(registry, params.name)
    say(prefix, f"{params.name}: {hand}; restored, as `moved_alias` says")
    return _current(registry, params.name)


def _adopt(registry: Registry, params: Params, alias: int | None, hand: str, prefix: str) -> Standing:
    name = params.name
    version = registry.version(name, alias) if alias is not None else None

    def propose(view: View) -> Draft | None:
        if view.head == alias:
            return None
        named = (version.tags.get(BUNDLE_DIGEST), version.run_id) if version else (None, None)
        return Draft(alias, alias, "manual", hand, "", *named)

    entry = ledger.commit(registry.project.ledger, name, BY_HAND, propose)
    follow(registry, name)
    if entry is not None:
        say(prefix, f"{name}: {hand}; adopted as ledger entry {entry.sequence}, as `moved_alias` says")
    return _current(registry, name)


def _current(registry: Registry, name: str) -> Standing:
    view = ledger.read(registry.project.ledger, name)
    return Standing(view, view.head)


def _is_ours(registry: Registry, name: str, number: int) -> bool:
    version = registry.version(name, number)
    return version is not None and BUNDLE_DIGEST in version.tags
