"""production.html: how the champion does where it works, by the labels that came later."""

from __future__ import annotations

from calotype import pages
from calotype.pages import charts, production_charts
from calotype.params import Params
from calotype.production import expectation
from calotype.production.accuracy import MACRO, Production, Score
from calotype.production.expectation import Expectations, Expected

MOST_WINDOWS = 52


def render(params: Params, found: Production, expected: Expectations, champion: int | None) -> str:
    """The page, as HTML text; its classes and matrix are those of the champion, or of the last version labelled."""
    from markupsafe import Markup

    version = _shown(found, champion)
    score = found.versions.get(version) if version is not None else None
    windows = found.windows[-MOST_WINDOWS:]
    drawn = score is not None and len(score.classes) <= charts.DRAWN_CLASSES
    known = expected.by_version.get(version) if version is not None else None
    least = params.monitor.min_accuracy
    versions = [(one, of, expected.by_version.get(one)) for one, of in reversed(found.versions.items())]
    return pages.render(
        "production.html.j2",
        title=params.name,
        by=found.by,
        labels=found.labels,
        version=version,
        score=score,
        macro=MACRO,
        known=known,
        note=expected.note,
        champion=champion,
        is_low=score is not None and _is_low(score, known, least),
        least=least,
        sentences=[expectation.agreement(score, known), expectation.standing(score, least)] if score else [],
        versions=versions,
        windows=tuple(reversed(windows)),
        hidden=len(found.windows) - len(windows),
        over_time=Markup(production_charts.over_time(windows, expected.by_version, version, least)),
        coverage=Markup(production_charts.coverage(windows)),
        matrix=Markup(charts.confusion(score.confusion, score.classes)) if score and drawn else None,
        classes=list(zip(score.per_class, score.f1, strict=True)) if score else [],
    )


def _is_low(score: Score, known: Expected | None, least: float) -> bool:
    gap = expectation.difference_to(score, known)
    return score.accuracy.high < least or (gap is not None and gap.high < 0)


def _shown(found: Production, champion: int | None) -> int | None:
    labelled = [version for version, score in found.versions.items() if score is not None]
    return champion if champion in labelled else max(labelled, default=None)
