"""Which images must share a split, and in which one each group lives: decided in the order of arrival, for good.

Two things tie images together: a group that the source names (a patient, a scene, a film), and being the near-duplicate
of an earlier image. Images are gone through by drop, then by image_id. One that is tied to nothing yet starts a group;
one that is tied to groups of one split joins it; one that is tied to groups of different splits is a bridge and belongs
to no split, because the others never move. What a later drop brings can therefore change nothing that was decided.

A group's split is drawn from its key, or is the most protected split (test, then val, then train) that the source
declares for a member of the group's first drop. Declared images that come later follow their group; or, where declared
splits are binding, stay where they are, which is then a leak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

Status = Literal["kept", "moved", "bridge", "leak"]
STATUSES: dict[Status, str] = {
    "kept": "in the split that was declared, or drawn",
    "moved": "in another split than declared, because its group lives there",
    "bridge": "in no split, because it is tied to groups of different splits",
    "leak": "in the split that was declared, though images that it is tied to are in another",
}
"""What can become of an image."""

PROTECTED = ("test", "val", "train")
"""Splits, the most protected first: what is measured on must not be trained on."""

Draw = Callable[[str, str | None, frozenset[str]], str]
"""Gives a split from a key, the split that is declared (or None), and the splits that the source declares at all."""

_Key = tuple[Literal["group", "image"], str]


class Arrival(NamedTuple):
    """What grouping knows of an image."""

    image_id: str
    drop: int
    declared: str | None
    group: str | None
    twins: Sequence[str]


class Placement(NamedTuple):
    """Where an image goes: its split (none of a bridge), the key of its group if it has one, and why."""

    image_id: str
    split: str | None
    group: str | None
    status: Status


@dataclass(slots=True)
class _Group:
    """Images that share a split: the one that it lives in, and those where declared members leak; none until known."""

    key: str
    splits: set[str]


class _Tied(NamedTuple):
    """An image of the present drop and the groups that it is tied to."""

    image: Arrival
    groups: list[_Group]


@dataclass
class _Line:
    """Takes drops in order of arrival."""

    draw: Draw
    binding: bool
    leaders: frozenset[str]
    groups: dict[_Key, _Group] = field(default_factory=dict)
    announced: frozenset[str] = frozenset()

    def take(self, drop: list[Arrival]) -> Iterator[Placement]:
        """Place one drop's images."""
        declared = {image.declared for image in drop if image.declared is not None}
        self.announced |= declared
        tied: list[_Tied] = []
        for image in drop:
            keys = self._keys(image)
            if keys:
                tied.append(_Tied(image, self._join(keys, may_wait=bool(declared))))
            else:
                split = self.draw(image.image_id, image.declared, self.announced)
                yield Placement(image.image_id, split, None, "kept")
        self._settle(tied)
        # The most protected first, and the undeclared last: what comes after sees where a group is by then.
        for one in sorted(tied, key=lambda one: (*PROTECTED, None).index(one.image.declared)):
            yield self._place(*one)

    def _keys(self, image: Arrival) -> list[_Key]:
        """What ties an image; its own id does if a later one is its twin."""
        keys: list[_Key] = [] if image.group is None else [("group", image.group)]
        keys += [("image", twin) for twin in image.twins]
        if image.image_id in self.leaders:
            keys.append(("image", image.image_id))
        return keys

    def _join(self, keys: list[_Key], *, may_wait: bool) -> list[_Group]:
        """Find the groups of these keys, or start one; its split waits where the drop's declared members decide it."""
        found = {id(group): group for key in keys if (group := self.groups.get(key)) is not None}
        groups = list(found.values())
        if not groups:
            name = keys[0][1]
            groups = [_Group(name, set() if may_wait else {self.draw(name, None, self.announced)})]
        if len(_splits(groups)) < 2:
            for key in keys:
                self.groups.setdefault(key, groups[0])
        return groups

    def _settle(self, tied: list[_Tied]) -> None:
        """Decide where the groups live that this drop started."""
        waiting = {id(group): (group, set[str]()) for _, groups in tied for group in groups if not group.splits}
        for image, groups in tied:
            if image.declared is not None and all(id(group) in waiting for group in groups):
                for group in groups:
                    waiting[id(group)][1].add(self.draw(group.key, image.declared, self.announced))
        for group, wished in waiting.values():
            group.splits.add(min(wished or {self.draw(group.key, None, self.announced)}, key=PROTECTED.index))

    def _place(self, image: Arrival, groups: list[_Group]) -> Placement:
        splits, allowed, key = _splits(groups), self._allowed(image.declared), groups[0].key
        if self.binding and not splits <= allowed:
            inside = splits & allowed or {self.draw(key, image.declared, self.announced)}
            stays = min(inside, key=PROTECTED.index)
            for group in groups:
                group.splits.add(stays)
            return Placement(image.image_id, stays, key, "leak")
        if len(splits) > 1:
            return Placement(image.image_id, None, key, "bridge")
        (split,) = splits
        return Placement(image.image_id, split, key, "kept" if split in allowed else "moved")

    def _allowed(self, declared: str | None) -> frozenset[str]:
        """Splits that agree with what is declared; validation or test may be cut from train."""
        if declared is None:
            return frozenset(PROTECTED)
        cut = frozenset(PROTECTED) - self.announced if declared == "train" else frozenset[str]()
        return cut | {declared}


def place(images: Iterable[Arrival], draw: Draw, *, binding: bool) -> Iterator[Placement]:
    """Place each image.

    Parameters
    ----------
    images
        In any order; sorted by drop, then image_id.
    draw
        Where a key goes by chance, and by what is declared.
    binding
        Whether an image stays where it is declared, even if that is a leak.

    Yields
    ------
    Placement
        One for each image, in no order.
    """
    ordered = sorted(images, key=lambda image: (image.drop, image.image_id))
    leaders = frozenset(twin for image in ordered for twin in image.twins)
    line = _Line(draw, binding, leaders)
    for _, drop in groupby(ordered, key=lambda image: image.drop):
        yield from line.take(list(drop))


def _splits(groups: list[_Group]) -> set[str]:
    return set().union(*(group.splits for group in groups))
