"""Question 3: which importance and which pruner suit this network best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

import trainables.records.names as n
from analysis.comparison import confirmation as fresh
from analysis.comparison import sentences as say
from analysis.comparison.columns import BASE, CHANGE, LABEL, RECIPE, VALIDATION_CHANGE, is_control
from analysis.comparison.confirmation import Confirmation
from analysis.comparison.questions import scratch
from analysis.comparison.questions import selection as stage
from analysis.comparison.questions.finalists import condition, unfinished
from analysis.comparison.questions.ranking import complete, lost
from analysis.comparison.questions.selection import Selection
from analysis.comparison.sentences import Answer
from analysis.comparison.statistics import MEAN
from analysis.comparison.sweep import Sweep


def answer(sweep: Sweep) -> Answer:
    """Selection on the seeds of the sweep; the conclusion on fresh seeds alone."""
    selection = stage.select(sweep)
    confirmation = fresh.confirm(sweep, selection)
    pairs = scratch.against_scratch(sweep, _against_scratch(sweep, selection))
    against, levels = scratch.pooled(pairs), scratch.by_level(pairs)
    missing = list(_missing(sweep, selection, pairs))
    if selection is None and confirmation is None:
        return Answer("", "", missing=missing)
    tables = [*(fresh.tables(confirmation) if confirmation else []), *(stage.tables(selection) if selection else [])]
    return Answer(
        headline=_headline(selection, confirmation),
        paragraph=" ".join(_paragraph(sweep, selection, confirmation)),
        details=[*_details(selection, confirmation), *scratch.sentences(against, sweep.fresh)],
        missing=missing,
        tables=[*tables[:2], *([scratch.table(levels)] if len(levels) else []), *tables[2:]],
        findings=_findings(selection, confirmation) | {"scratch": against, "scratch_by_level": levels},
    )


def _paragraph(sweep: Sweep, selection: Selection | None, confirmation: Confirmation | None) -> Iterator[str]:
    if confirmation and confirmation.concludes:
        yield fresh.winner_sentence(confirmation)
        yield fresh.factor_sentence(confirmation, n.IMPORTANCE, "importance")
        yield fresh.factor_sentence(confirmation, n.PRUNER, "pruner")
        yield from fresh.ratio_sentences(confirmation)
        return
    yield f"Nothing is concluded yet: {condition(sweep) if sweep.fresh else 'the study names no fresh seeds'}."
    if selection:
        yield f"What selection says, which flatters its first: {say.clause(stage.selection_sentence(selection))}"


def _details(selection: Selection | None, confirmation: Confirmation | None) -> Iterator[str]:
    if confirmation and confirmation.concludes:
        yield fresh.control_sentence(confirmation)
        if selection:
            yield stage.selection_sentence(selection)
    if selection is None:
        return
    for factor, what, other in ((n.IMPORTANCE, "importance", n.PRUNER), (n.PRUNER, "pruner", n.IMPORTANCE)):
        if told := stage.marginal_sentence(stage.marginal(selection, factor, other), what, f"{other}s"):
            yield told
    for told in (stage.control_sentence(selection), stage.first_cut_sentence(stage.first_cut(selection))):
        if told:
            yield told
    provisional = fresh.compare(_leaders(selection), "recipe")
    if provisional and provisional.concludes and not (confirmation and confirmation.concludes):
        for told in (*fresh.ratio_sentences(provisional), fresh.control_sentence(provisional)):
            if told:
                yield f"Selection alone, its first two recipes. {told}"


def _leaders(selection: Selection) -> pd.DataFrame:
    """The first two of selection and the plain control: what a final could be between."""
    rows = selection.rows
    kept = rows[rows[RECIPE].isin(selection.order[:2]) | (is_control(rows) & rows[n.PRUNER].eq(BASE))]
    return kept.assign(**{CHANGE: kept[VALIDATION_CHANGE]})


def _against_scratch(sweep: Sweep, selection: Selection | None) -> list[str]:
    rows = sweep.structured
    control = list(rows.loc[is_control(rows) & rows[n.PRUNER].eq(BASE), RECIPE].unique())
    return [*(selection.order[:1] if selection else []), *control]


def _headline(selection: Selection | None, confirmation: Confirmation | None) -> str:
    if confirmation and confirmation.concludes:
        if len(confirmation.finalists) == 1:
            alone = confirmation.finalists.iloc[0].to_dict()
            return f"The one structured recipe on fresh seeds, {alone[LABEL]}, changes accuracy by {say.evidence(alone)}."
        tied, control = confirmation.tied(), fresh.control_words(confirmation)
        chosen = f" (the first of {len(selection.order)} structured recipes at selection)" if selection else ""
        among = f"Of {len(confirmation.finalists)} finalists{chosen}, run again on fresh seeds,"
        beside = f"; {control}" if control else ""
        if len(tied) == 1:
            gap = confirmation.pairs.iloc[0].to_dict()
            return f"{among} {tied.iloc[0][LABEL]} suits this network best, {_by(gap)}{beside}."
        beaten = list(confirmation.finalists.loc[~confirmation.finalists[RECIPE].isin(tied[RECIPE]), LABEL])
        less = f"; {say.joined(beaten)} {'keep' if len(beaten) > 1 else 'keeps'} less" if beaten else ""
        return f"{among} {fresh.tie_words(confirmation)}{less}{beside}."
    if selection:
        first = selection.scores[selection.scores[RECIPE] == selection.order[0]].iloc[0]
        if len(selection.order) == 1:
            return f"Of the structured recipes only {first[LABEL]} is complete, so none is compared yet."
        return (
            f"Of {len(selection.order)} structured recipes {first[LABEL]} is first at selection; fresh seeds have not "
            "confirmed it yet."
        )
    return ""


def _by(gap: Mapping[Any, Any]) -> str:
    return f"by {say.points(gap[MEAN])} over the next ({say.support(gap)})"


def _missing(sweep: Sweep, selection: Selection | None, pairs: pd.DataFrame) -> Iterator[str]:
    if selection is None:
        yield "no structured networks on the seeds that choose yet"
    else:
        if selection.incomplete:
            yield f"not on all seeds and levels yet, so left out of the selection: {say.some(selection.incomplete)}"
        if selection.lost:
            yield f"not compared at selection, because not every recipe in it has them: {selection.lost}"
        if selection.other_budget:
            yield f"with other budgets at their levels, so left out of the selection: {say.some(selection.other_budget)}"
        # A control that has begun is named among the incomplete ones.
        if not is_control(sweep.selection(sweep.structured)).any():
            yield "the control, random importance, has no structured schedule yet"
        if selection.rows[~is_control(selection.rows)][n.PRUNER].nunique() == 1:
            yield f"pruners are not compared: only {selection.rows[n.PRUNER].iloc[0]} is complete"
    yield from unfinished(sweep, selection)
    if sweep.scratch.empty:
        yield "the control, the pruned shapes trained from scratch, has not run yet"
    elif pairs.empty:
        yield "no network trained from scratch has the shape, the seed and the epochs of a pruned one"
    for _, line in pairs.groupby(LABEL, sort=False):
        if gaps := lost(line, complete(line)):
            yield f"left out of the average against training from scratch: {gaps}"


def _findings(selection: Selection | None, confirmation: Confirmation | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if selection:
        found |= {"selection": selection.scores, "selection_by_level": selection.by_level}
        found["first_cut"] = stage.first_cut(selection)
        for factor, other in ((n.IMPORTANCE, n.PRUNER), (n.PRUNER, n.IMPORTANCE)):
            found[f"selection_{factor}"] = stage.marginal(selection, factor, other)
    if confirmation:
        labels = confirmation.scores.set_index(RECIPE)[LABEL]
        frames = {
            "pairs": confirmation.pairs,
            "pairs_by_level": confirmation.by_level,
            "change_with_ratio": confirmation.turning,
        }
        named = {
            name: frame.assign(**{side: frame[side].map(labels) for side in (fresh.ONE, fresh.OTHER)})
            for name, frame in frames.items()
        }
        concluded = confirmation.concludes
        best = list(confirmation.tied()[LABEL]) if concluded else []
        found |= {"concludes": concluded, "fresh_seeds": confirmation.seeds, "best": best}
        found |= {"finalists": confirmation.scores, **named}
    return found
