"""Claims: sentences of the chapters that the data could contradict, each beside the check that would notice.

A chapter marks the sentence, ``[The VAE has the best bound.]{.claim #vae-best-bound}``, and ``report/claims.py`` has
the check, a function of the published runs of a suite:

    @claim("vae-best-bound", suite="paper")
    def _(runs):
        found = against(runs, "vae", "vsc", "negative_elbo", at={"latent_dim": [8, 16]})
        return Verdict(found.lower, found.text)

A check reads tables and nothing else: it never trains, and takes no measure from weights. One that asks for runs or
measures that a suite lacks is left out. ``report/claims.lua`` shows the verdicts beside the sentences, and all of them
on a page.

    python -m sparse_vae.report.claims                                   # results/claims.json, of the published suites
    python -m sparse_vae.report.claims --suite quick --output FILE.json  # of a site that is built of another suite
"""

from __future__ import annotations

import argparse
import inspect
import json
import linecache
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sparse_vae.checks import ExplainedError, SettingError, unknown_name
from sparse_vae.files import atomic_path
from sparse_vae.report.measures import find_measure
from sparse_vae.report.run_sets import Run, RunSet
from sparse_vae.report.statistics import Comparison, compare_means, correct, mean_and_error
from sparse_vae.report.suites import project_root
from sparse_vae.report.tables import read_tables

CHECKS, VERDICTS = "report/claims.py", "results/claims.json"
SITE = "site"
"""As a claim's suite: the suite that the site is built of."""
PUBLISHED_SITE = "report"
"""The suite that the published site is built of."""


class ClaimError(ExplainedError, RuntimeError):
    """A claim whose check fails, or cannot be read; names the claim."""


class Verdict(NamedTuple):
    """What a check finds.

    Attributes:
        holds: whether the sentence is true of the runs.
        numbers: what decides it, one line of plain text.
        values: texts that chapters can take up, ``{{< var claims.<id>.<name> >}}``.
    """

    holds: bool
    numbers: str
    values: Mapping[str, str] = {}


@dataclass(frozen=True)
class Claim:
    """A check: the claim's id, the suites whose runs it asks about, the function and its source."""

    id: str
    suite: str
    beside: tuple[str, ...]
    check: Callable[..., Verdict] = field(compare=False)
    source: str


class Mark(NamedTuple):
    """A marked sentence: its id, its text, the chapter's path below the root, its title, the line."""

    id: str
    sentence: str
    chapter: str
    title: str
    line: int


_registered: list[Claim] = []


def claim(id: str, *, suite: str, beside: Iterable[str] = ()) -> Callable:
    """Register the check of a claim: a function of the published runs of ``suite``, or of the site's, ``"site"``.

    Those of the suites ``beside`` it are further arguments.
    """
    def register(check: Callable[..., Verdict]) -> Callable[..., Verdict]:
        _registered.append(Claim(id, suite, tuple(beside), check, inspect.getsource(check)))
        return check
    return register


def load_claims(root: Path) -> dict[str, Claim]:
    """The checks in ``report/claims.py``, by id.

    Raises:
        ClaimError: the file cannot be run, or an id is there twice.
    """
    path = root / CHECKS
    _registered.clear()
    linecache.checkcache(str(path))
    try:
        runpy.run_path(str(path))
    except Exception as error:
        raise ClaimError(f"{CHECKS} cannot be read: {type(error).__name__}: {error}") from error
    claims: dict[str, Claim] = {}
    for each in _registered:
        if each.id in claims:
            raise ClaimError(f"{CHECKS}: claim {each.id} has two checks, in lines "
                             f"{_line(claims[each.id])} and {_line(each)}")
        claims[each.id] = each
    return claims


def _line(claim: Claim) -> int:
    return claim.check.__code__.co_firstlineno


# --- sentences

_CODE = re.compile(r"^(```+|~~~+).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_ATTRIBUTES = re.compile(r"\]\{([^{}]*)\}")
_REPEATED = re.compile(r"<!-- claims: (.*?) -->")
_TITLE = re.compile(r"^title: *(.*?) *$", re.MULTILINE)


def marked_sentences(root: Path) -> list[Mark]:
    """The sentences that the chapters mark, in the order of the chapters' names.

    Raises:
        ClaimError: a mark without an id, or one that does not begin.
    """
    marks = []
    for path in sorted([*root.glob("*.qmd"), *(root / "report").glob("*.qmd")]):
        text, chapter = path.read_text(), path.relative_to(root).as_posix()
        visible = _CODE.sub(lambda match: "x" * len(match[0]), text)
        title = _TITLE.search(text)
        for match in _ATTRIBUTES.finditer(visible):
            names = match[1].split()
            if ".claim" not in names:
                continue
            line = text.count("\n", 0, match.start()) + 1
            ids = [name.removeprefix("#") for name in names if name.startswith("#")]
            start = _opening(visible, match.start())
            if len(ids) != 1 or start is None:
                raise ClaimError(f"{chapter}:{line}: a claim is written [sentence]{{.claim #id}}; got "
                                 f"{text[start or match.start():match.end()]!r}")
            sentence = " ".join(text[start + 1:match.start()].split())
            marks.append(Mark(ids[0], sentence, chapter, title[1].strip("\"'") if title else path.stem, line))
    return marks


def repeated_claims(root: Path) -> list[tuple[str, str]]:
    """The claims that README says again, ``<!-- claims: one, another -->`` after its sentence: id and place of each."""
    try:
        lines = (root / "README.md").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(id, f"README.md:{number}") for number, line in enumerate(lines, 1) for ids in _REPEATED.findall(line)
            for id in ids.replace(",", " ").split()]


def _opening(text: str, closing: int) -> int | None:
    """Where the bracket opens that closes at ``closing``."""
    depth = 0
    for position in range(closing, -1, -1):
        depth += {"]": 1, "[": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return None


# --- verdicts

def published_runs(root: Path, suite: str) -> RunSet:
    """The published runs of a suite, without their weights: a check reads tables alone.

    Raises:
        SettingError: nothing is published.
        TableError: a table cannot be read.
    """
    tables = read_tables(root / "results" / suite)
    if not len(tables.runs):
        raise SettingError(f"suite {suite!r} has no published results")
    runs = [Run(name, config, weights=None, data_root=root / "data") for name, config in tables.configs().items()]
    return RunSet(runs, tables)


def evaluate(root: Path, site_suite: str = PUBLISHED_SITE) -> dict[str, dict[str, object]]:
    """The verdict on every claim, for a site that is built of ``site_suite``.

    Returns:
        By id: ``holds`` (True, False, or None where the suite lacks what the check asks for), ``numbers`` (or what is
        lacking), ``values``, ``suite``, ``sentence``, ``chapter`` (its path), ``title`` (the chapter's), ``position``
        (of the check among the checks) and ``check`` (its source).

    Raises:
        ClaimError: a check fails or returns no verdict; names the claim.
    """
    marks = {mark.id: mark for mark in marked_sentences(root)}
    runs_of = cache(lambda suite: published_runs(root, suite))
    verdicts: dict[str, dict[str, object]] = {}
    for position, (id, each) in enumerate(load_claims(root).items()):
        suite = site_suite if each.suite == SITE else each.suite
        holds, numbers, values = _ask(each, partial(map, runs_of, (suite, *each.beside)))
        mark = marks.get(id, Mark(id, "", "", "", 0))
        verdicts[id] = {"holds": holds, "numbers": numbers, "values": dict(values), "suite": suite,
                        "sentence": mark.sentence, "chapter": mark.chapter, "title": mark.title,
                        "position": position, "check": each.source}
    return verdicts


def _ask(claim: Claim, runs: Callable[[], Iterable[RunSet]]) -> tuple[bool | None, str, Mapping[str, str]]:
    try:
        verdict = claim.check(*runs())
    except SettingError as error:  # no run, or no measure, of what it asks for
        return None, str(error), {}
    except Exception as error:
        raise ClaimError(f"{CHECKS}:{_line(claim)}: claim {claim.id}: {type(error).__name__}: {error}") from error
    if not isinstance(verdict, Verdict) or not isinstance(verdict.holds, (bool, np.bool_)) or not verdict.numbers:
        raise ClaimError(f"{CHECKS}:{_line(claim)}: claim {claim.id} must return a Verdict with True or False and "
                         f"numbers; got {verdict!r}")
    return bool(verdict.holds), re.sub(r"[ \t\n]+", " ", verdict.numbers), verdict.values


def write_verdicts(path: Path, verdicts: Mapping[str, object]) -> None:
    """Write verdicts as JSON; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(verdicts, ensure_ascii=False, indent=1) + "\n")


def check_claims(root: Path) -> list[str]:
    """What is wrong with the claims, for the published suites: one line each, nothing if all is well.

    A sentence that does not hold, or whose check asks for what its suite lacks; a mark without a check or a check
    without a mark; an id that is there twice; verdicts in ``results/claims.json`` that are not those of the tables.
    Where README says it again, it is named, too.
    """
    try:
        marks, claims, repeated = marked_sentences(root), load_claims(root), repeated_claims(root)
    except ClaimError as error:
        return [str(error)]
    problems = [f"{place}: claim {id} has no check in {CHECKS}" for id, place in repeated if id not in claims]
    places: dict[str, str] = {}
    for mark in marks:
        place = f"{mark.chapter}:{mark.line}"
        if mark.id in places:
            problems.append(f"{place}: claim {mark.id} is marked twice, first in {places[mark.id]}")
        elif mark.id not in claims:
            problems.append(f"{place}: claim {mark.id} has no check in {CHECKS}")
        places.setdefault(mark.id, place)
    problems += [f"{CHECKS}:{_line(each)}: no chapter marks claim {id}" for id, each in claims.items()
                 if id not in places]
    try:
        verdicts = evaluate(root)
    except ExplainedError as error:
        return [*problems, str(error)]
    for id, verdict in verdicts.items():
        if not verdict["holds"]:
            what = "cannot be checked on" if verdict["holds"] is None else "does not hold for"
            said = ", ".join([places.get(id, CHECKS), *(place for other, place in repeated if other == id)])
            problems.append(f"{said}: claim {id} {what} suite {verdict['suite']}: "
                            f"“{verdict['sentence']}” {verdict['numbers']}")
    return problems + _compared_with_kept(root, verdicts)


def _compared_with_kept(root: Path, verdicts: dict[str, dict[str, object]]) -> list[str]:
    try:
        kept = json.loads((root / VERDICTS).read_text())
    except FileNotFoundError:
        kept = {}
    except ValueError as error:
        return [f"{VERDICTS} is no JSON: {error}"]
    changed = [id for id in {**verdicts, **kept} if verdicts.get(id) != kept.get(id)]
    return [f"{VERDICTS} is older than the tables, the checks or the sentences ({', '.join(changed)}); write it again: "
            "python -m sparse_vae.report.claims"] if changed else []


# --- what checks are written with

class Difference(NamedTuple):
    """A measure of some runs against that of others, see :func:`against`.

    Attributes:
        title: the measure.
        means: in words, one text for each value at which the two were compared.
        tests: the comparisons.
    """

    title: str
    means: list[str]
    tests: list[Comparison]

    @property
    def text(self) -> str:
        """The numbers in words."""
        return f"{self.title}: " + "; ".join(f"{means} ({_probability(test)})"
                                             for means, test in zip(self.means, self.tests, strict=True))

    @property
    def amount(self) -> float:
        """The difference of the means, where it is nearest to 0."""
        return min((test.difference for test in self.tests), key=abs)

    @property
    def lower(self) -> bool:
        """Whether the first is lower everywhere, and told apart."""
        return all(test.difference < 0 and _told_apart(test) for test in self.tests)

    @property
    def higher(self) -> bool:
        """Whether the first is higher everywhere, and told apart."""
        return all(test.difference > 0 and _told_apart(test) for test in self.tests)

    @property
    def level(self) -> bool:
        """Whether no test tells the two apart anywhere."""
        return not any(map(_told_apart, self.tests))


def _told_apart(test: Comparison) -> bool:
    """At 5%, after correction; numbers without spread or seeds, for which there is no test, if they differ at all."""
    return test.difference != 0 if np.isnan(test.p) else test.differs


def against(runs: RunSet, first: str | Mapping[str, object], second: str | Mapping[str, object], measure: str, *,
            at: Mapping[str, list] | None = None, names: tuple[str, str] | None = None,
            paired: bool = False) -> Difference:
    """Compare a measure of two kinds of runs by Welch's test, corrected for the number of comparisons.

    Args:
        first, second: a model's name, a group's, which has a slash, or settings and the values or lists of values that
            they have.
        measure: its name.
        at: a setting and the values at which to compare, all of which both must have; None compares all runs at once.
        names: what the text calls the two; None takes their titles, without settings where these are told apart so.
        paired: by seed and with a paired test, for data that a run's seed draws.

    Raises:
        SettingError: no such runs, or none of them has the measure; no pairs where they are asked for.
    """
    each = find_measure(measure)
    sides = [{"group" if "/" in side else "model": side} if isinstance(side, str) else dict(side)
             for side in (first, second)]
    names = names or _names(_rows(runs.frame, side).iloc[0] for side in sides)
    places = [{setting: value} for setting, values in (at or {}).items() for value in values] or [{}]
    values = [[_rows(runs.frame, side | place, measure).set_index("seed")[measure] for side in sides]
              for place in places]
    if paired:
        for first_side, second_side in values:
            if sorted(first_side.index) != sorted(set(second_side.index)):
                raise SettingError(f"no pairs by seed: {sorted(first_side.index)} against {sorted(second_side.index)}")
        values = [[side.sort_index() for side in pair] for pair in values]
    means = []
    for place, pair in zip(places, values, strict=True):
        shown = [mean_and_error(side * each.scale, each.digits) for side in pair]
        where = "".join(_PLACES.get(setting, f"at {setting} = {{}} ").format(value) for setting, value in place.items())
        means.append(f"{where}{names[0]} {shown[0]} against {names[1]} {shown[1]}")
    tests = [compare_means(*map(list, pair), paired=paired) for pair in values]
    return together(Difference(_TITLES.get(measure, each.title), means, tests))[0]


def together(*found: Difference) -> list[Difference]:
    """The same differences with p values that are corrected for the number of all their comparisons (Holm)."""
    tests = iter(correct([test for each in found for test in each.tests]))
    return [each._replace(tests=[next(tests) for _ in each.tests]) for each in found]


def in_words(*found: Difference) -> str:
    """The numbers of several differences; a measure that several share in a row is named once."""
    texts = []
    for number, each in enumerate(found):
        again = number > 0 and found[number - 1].title == each.title
        texts.append(f"; {each.text.removeprefix(each.title + ': ')}" if again else f". {each.text}")
    return "".join(texts).removeprefix(". ")


_PLACES = {"latent_dim": "at J = {} ", "dataset": "on {} "}
_TITLES = {"used_dimensions": "dimensions in use", "explained_variance": "explained variance"}


def _names(rows: Iterable[pd.Series]) -> tuple[str, str]:
    first, second = rows
    column = "title" if first["family"] == second["family"] else "family"
    return first[column], second[column]


def _rows(frame: pd.DataFrame, settings: Mapping[str, object], measure: str | None = None) -> pd.DataFrame:
    """The rows of runs with these settings and this measure, as :meth:`RunSet.where` and ``having`` choose them; many
    comparisons ask for one frame, where each new set would make its own."""
    for name, wanted in settings.items():
        if name not in frame:
            raise unknown_name("column of the runs", name, frame.columns)
        frame = frame[frame[name].isin(wanted if isinstance(wanted, list) else [wanted])]
    frame = frame.dropna(subset=[measure]) if measure else frame
    if frame.empty:
        raise SettingError("no run has " + ", ".join([*(f"{name} = {value!r}" for name, value in settings.items()),
                                                      *([measure] if measure else [])]))
    return frame


def _probability(test: Comparison) -> str:
    if min(test.n) < 2:
        return "no test with one run"
    if np.isnan(test.p_holm):
        return "no spread"
    return "p < 0.001" if test.p_holm < 0.001 else f"p = {test.p_holm:.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Evaluate all claims and write the verdicts."""
    parser = argparse.ArgumentParser(prog="python -m sparse_vae.report.claims", description="Evaluate all claims.")
    parser.add_argument("--suite", default=PUBLISHED_SITE, help="the suite that the site is built of (%(default)s)")
    parser.add_argument("--output", type=Path, help=f"the JSON to write ({VERDICTS})")
    chosen = parser.parse_args(arguments)
    try:
        root = project_root()
        write_verdicts(chosen.output or root / VERDICTS, evaluate(root, chosen.suite))
    except ExplainedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from sparse_vae.report import claims  # report/claims.py registers with the module of that name, not with __main__

    sys.exit(claims.main())
