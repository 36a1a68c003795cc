"""Question 2: iterative against one-shot at the same sparsity and the same retraining, and how to retrain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.comparison import sentences as say
from analysis.comparison.columns import CHANGE, LEVEL, WHO, is_control
from analysis.comparison.questions import retraining
from analysis.comparison.questions.one_shot import usual
from analysis.comparison.questions.ranking import behind_in_seeds, complete, lost
from analysis.comparison.questions.retraining import Retrainings
from analysis.comparison.sentences import Answer, Table
from analysis.comparison.statistics import (
    COUNT,
    HIGHER,
    LOWER,
    MEAN,
    MIN_SEEDS,
    TIE,
    UNDECIDED,
    VERDICT,
    estimates,
    judged,
)
from analysis.comparison.sweep import Sweep

SAME = [n.SEED, LEVEL, WHO, n.IMPORTANCE, n.SCOPE, n.RETRAIN]
LINE = [WHO, n.IMPORTANCE, n.SCOPE, n.RETRAIN, n.STEPS, n.FINE_TUNE_EPOCHS]
DIFFERENCE = "difference"
ONE, OTHER = "_iterative", "_one_shot"
LEVELS = "levels"
WINNERS = {HIGHER: "iterative", LOWER: "one-shot", TIE: TIE, UNDECIDED: UNDECIDED}


def answer(sweep: Sweep) -> Answer:
    """Matched pairs alone decide; the one-shot networks of fewer epochs are context."""
    chains, cuts = sweep.iterative, sweep.one_shot
    pairs, shared = matched(chains, cuts)
    pairs = pairs[~is_control(pairs)]
    loose = estimates(_unmatched(chains, usual(cuts)), [*LINE, LEVEL], DIFFERENCE, n.SEED)
    retrainings = retraining.compare(chains, cuts)
    missing = [*_missing(chains, pairs), *retrainings.left_out]
    at_level = by_level(pairs)
    if pairs.empty:
        open_yet = "Iterative against one-shot is open: none of the networks to compare with has run yet."
        return Answer(
            open_yet if len(chains) else "", "", missing=missing, details=retraining.sentences(retrainings),
            tables=_tables(chains, at_level, loose, retrainings), findings=retrainings.findings | {"unmatched": loose},
        )  # fmt: skip
    pooled, longer = over_levels(pairs), _longer(pairs, usual(cuts))
    details = [*_level_sentences(at_level), *retraining.sentences(retrainings), *_longer_sentences(longer, at_level)]
    if shared:
        details.append(
            f"At {say.levels(shared)} the first cut of the chain is the one-shot network itself, so there is nothing to "
            "compare."
        )
    return Answer(
        headline=_verdict(pooled, at_level),
        paragraph=" ".join([_verdict(pooled, at_level), *_pooled_sentences(pooled)]),
        details=details,
        missing=missing,
        tables=_tables(chains, at_level, loose, retrainings),
        findings={"by_level": at_level, "pooled": pooled, "unmatched": loose, "longer": longer} | retrainings.findings,
    )


def matched(chains: pd.DataFrame, cuts: pd.DataFrame) -> tuple[pd.DataFrame, list[float]]:
    """Pairs of a chain's network and a one-shot one: same seed, level, importance, scope, retraining and total epochs.

    Also the levels at which the two are one and the same network: no pair.
    """
    pairs = _paired(chains, cuts, [*SAME, n.TOTAL_EPOCHS])
    itself = pairs[n.STEP_ID + ONE] == pairs[n.STEP_ID + OTHER]
    return pairs[~itself], sorted(set(pairs.loc[itself, LEVEL]) - set(pairs.loc[~itself, LEVEL]))


def by_level(pairs: pd.DataFrame) -> pd.DataFrame:
    """Iterative less one-shot at each level, tested together."""
    return judged(estimates(pairs, [*LINE, LEVEL], DIFFERENCE, n.SEED))


def over_levels(pairs: pd.DataFrame) -> pd.DataFrame:
    """Iterative less one-shot, averaged over a line's levels within each seed, the lines tested together."""
    lines = [complete(line) for _, line in pairs.groupby(LINE, dropna=False)]
    whole = pd.concat(lines)
    found = judged(estimates(whole, LINE, DIFFERENCE, n.SEED))
    return found.assign(**{LEVELS: pd.Series([sorted(set(line[LEVEL])) for line in lines], index=found.index)})


def _paired(chains: pd.DataFrame, cuts: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    others = cuts.drop_duplicates(on)[[*on, n.STEP_ID, CHANGE, *({n.TOTAL_EPOCHS} - set(on))]]
    pairs = chains.merge(others, on=on, suffixes=(ONE, OTHER))
    pairs[DIFFERENCE] = pairs[CHANGE + ONE] - pairs[CHANGE + OTHER]
    return pairs.sort_values([n.RETRAIN, LEVEL], kind="stable")


def _unmatched(chains: pd.DataFrame, cuts: pd.DataFrame) -> pd.DataFrame:
    pairs = _paired(chains[~is_control(chains)], cuts, SAME)
    return pairs[pairs[n.TOTAL_EPOCHS + ONE] > pairs[n.TOTAL_EPOCHS + OTHER]]


def line_words(row: Mapping[Any, Any], rows: pd.DataFrame) -> str:
    """What tells a line from the others of ``rows``: its retraining, and more where that is not enough."""
    parts = [say.retraining(row[n.RETRAIN])]
    if rows[WHO].nunique() > 1:
        parts.insert(0, str(row[WHO]))
    if len(rows.drop_duplicates([n.STEPS, n.FINE_TUNE_EPOCHS])) > 1:
        parts.append(f"{row[n.STEPS]:g} steps of {say.epochs(row[n.FINE_TUNE_EPOCHS])}")
    return ", ".join(parts)


def _verdict(pooled: pd.DataFrame, at_level: pd.DataFrame) -> str:
    alike = len({tuple(levels) for levels in pooled[LEVELS]}) == 1
    clauses: dict[str, list[str]] = {}
    for row in sorted(pooled.to_dict("records"), key=lambda row: list(WINNER_WORDS).index(WINNERS[row[VERDICT]])):
        line = at_level.merge(pd.DataFrame([row])[LINE], on=LINE)
        where = "" if alike else f" at {say.levels(row[LEVELS])}"
        own = clauses.setdefault(_clause(row, line[line[LEVEL].isin(row[LEVELS])]), [])
        own.append(f"{line_words(row, pooled)}{where}")
    levels = {level for line in pooled[LEVELS] for level in line}
    same = f"At the same sparsity ({say.levels(levels)}) and the same number of retraining epochs,"
    if set(pooled[VERDICT]) == {UNDECIDED}:
        return f"{same} nothing is concluded yet about iterative against one-shot: too few seeds."
    both = " alike" if len(clauses) == 1 and len(pooled) > 1 else ""
    return f"{same} {'; '.join(clause.format(say.joined(lines) + both) for clause, lines in clauses.items())}."


def _clause(row: Mapping[Any, Any], line: pd.DataFrame) -> str:
    """What one line's pairs come to, with room for what tells the line from others."""
    ahead = f" ({say.ahead(line, 'iterative', 'one-shot')})"
    if say.turns(row, line):  # then a mean over the levels says only which levels were asked for
        return f"which of the two keeps more depends on the sparsity with {{}}{ahead}"
    told = WINNER_WORDS[WINNERS[row[VERDICT]]]
    whole = (line[VERDICT] == row[VERDICT]).all() or row[VERDICT] == UNDECIDED
    return f"{told} with {{}}" if whole else f"{told} on average with {{}}{ahead}"


WINNER_WORDS = {
    "iterative": "iterative pruning keeps more accuracy than one-shot",
    "one-shot": "one-shot pruning keeps more accuracy than iterative",
    TIE: "iterative and one-shot pruning are a tie",
    UNDECIDED: "there are too few seeds to tell iterative from one-shot",
}


def _pooled_sentences(pooled: pd.DataFrame) -> Iterator[str]:
    for row in pooled.to_dict("records"):
        yield (
            f"{say.sentence(say.over(row[LEVELS]))}, iterative less one-shot is {say.evidence(row)} with "
            f"{line_words(row, pooled)}."
        )


def _level_sentences(at_level: pd.DataFrame) -> Iterator[str]:
    for _, line in at_level.groupby(LINE, dropna=False, sort=False):
        how = line_words(line.iloc[0].to_dict(), at_level)
        if (line[COUNT] < MIN_SEEDS).all():
            yield f"Level by level, iterative less one-shot with {how}: {say.too_few(line[COUNT].max())}."
            continue
        told = [
            f"{WINNERS[v]} keeps more at {_at(line[line[VERDICT] == v])}"
            for v in (HIGHER, LOWER)
            if (line[VERDICT] == v).any()
        ]
        if (line[VERDICT] == TIE).any():
            told.append(f"a tie at {say.levels(line.loc[line[VERDICT] == TIE, LEVEL])}")
        few = line[line[VERDICT] == UNDECIDED]
        if len(few):
            told.append(f"open at {say.levels(few[LEVEL])}, as {say.too_few(few[COUNT].max())}")
        yield f"Level by level, iterative less one-shot with {how}: {'; '.join(told)}."


def _at(rows: pd.DataFrame) -> str:
    return say.joined(f"{say.level(row[LEVEL])}, {say.evidence(row)}" for row in rows.to_dict("records"))


def _longer(pairs: pd.DataFrame, cuts: pd.DataFrame) -> pd.DataFrame:
    """The one-shot networks of a chain's epochs less those of fewer, ``cuts``: what the longer training is worth alone."""
    short = cuts.drop_duplicates(SAME)[[*SAME, CHANGE]].rename(columns={CHANGE: DIFFERENCE})
    both = pairs.drop(columns=DIFFERENCE).merge(short, on=SAME)
    both[DIFFERENCE] = both[CHANGE + OTHER] - both[DIFFERENCE]
    return estimates(both, [*LINE, LEVEL], DIFFERENCE, n.SEED)


def _longer_sentences(found: pd.DataFrame, at_level: pd.DataFrame) -> Iterator[str]:
    """At the highest level with seeds enough, beside what cutting in steps adds."""
    if found.empty:
        return
    both = found.merge(at_level, on=[*LINE, LEVEL], suffixes=("", "_steps"))
    both = both[both[COUNT] >= MIN_SEEDS]
    for _, line in both.groupby(LINE, dropna=False, sort=False):
        row = line.sort_values(LEVEL).iloc[-1].to_dict()
        rates = ", and the higher learning rates that it begins at," if row[n.RETRAIN] == "lr_rewind" else ""
        yield (
            f"What longer training{rates} is worth without any steps: with {line_words(row, at_level)} at "
            f"{say.level(row[LEVEL])}, one-shot with the chain's epochs less one-shot with those of one step is "
            f"{say.interval(row)}; cutting in steps changes that by {say.points(row[f'{MEAN}_steps'])}."
        )


def _missing(chains: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    if chains[~is_control(chains)].empty:
        return ["no iterative unstructured networks yet"]
    missing = [] if is_control(chains).any() else ["the control, random importance, has no iterative networks yet"]
    own = chains[~is_control(chains)]
    behind = [(line, behind_in_seeds(line)) for _, line in own.groupby(LINE, dropna=False)]
    missing += [f"iterative networks, {told}" for told in _alike(behind, own)]
    if pairs.empty:
        return [*missing, "no one-shot networks with as many epochs as an iterative one at the same level"]
    left_out = [(line, lost(line, complete(line))) for _, line in pairs.groupby(LINE, dropna=False)]
    missing += [f"left out of the average of matched pairs, {told}" for told in _alike(left_out, pairs)]
    lone = sorted(set(chains.loc[~is_control(chains), n.RETRAIN]) - set(pairs[n.RETRAIN]))
    return missing + [f"no one-shot networks of equal epochs with {say.retraining(retrain)}" for retrain in lone]


def _alike(found: Iterable[tuple[pd.DataFrame, str]], rows: pd.DataFrame) -> list[str]:
    return say.alike((line_words(line.iloc[0].to_dict(), rows), said) for line, said in found)


def _tables(chains: pd.DataFrame, at_level: pd.DataFrame, loose: pd.DataFrame, retrainings: Retrainings) -> list[Table]:
    own = [] if chains[~is_control(chains)].empty else [_table(chains, at_level, loose)]
    return [*own, *retraining.tables(retrainings)]


def _table(chains: pd.DataFrame, at_level: pd.DataFrame, loose: pd.DataFrame) -> Table:
    rows, keys = chains[~is_control(chains)], [*LINE, LEVEL]
    own = estimates(rows, keys, CHANGE, n.SEED)
    budget = rows.groupby(keys, dropna=False)[n.TOTAL_EPOCHS].max().reset_index()
    table = own.merge(budget, on=keys).sort_values([*LINE, LEVEL])
    fair, free, random = _rows(at_level, keys), _rows(loose, keys), _rows(_control(chains), [n.RETRAIN, LEVEL])
    shown = [
        {
            "retraining": line_words(row, own),
            "removed": say.level(row[LEVEL]),
            "epochs": f"{row[n.TOTAL_EPOCHS]:g}",
            "seeds": str(row[COUNT]),
            "iterative: change": say.cell(row),
            "less one-shot of equal epochs": _cell(fair.get(tuple(row[k] for k in keys)), row),
            "less one-shot of one step's epochs": _cell(free.get(tuple(row[k] for k in keys)), row, verdict=False),
            "random, iterative: change": _cell(random.get((row[n.RETRAIN], row[LEVEL])), row),
        }
        for row in table.to_dict("records")
    ]
    title = (
        "Iterative pruning: change against dense, and differences to one-shot within seeds, in points with the half-width "
        "of the 95% interval; only the pairs of equal epochs are judged, after Holm's correction"
    )
    return Table(title, pd.DataFrame(shown))


def _rows(found: pd.DataFrame, keys: list[str]) -> dict[tuple[Any, ...], dict[Any, Any]]:
    return {tuple(row[k] for k in keys): row for row in found.to_dict("records")}


def _cell(found: Mapping[Any, Any] | None, row: Mapping[Any, Any], *, verdict: bool = True) -> str:
    return words.MISSING if found is None else say.cell(found, verdict=verdict, seeds=row[COUNT])


def _control(chains: pd.DataFrame) -> pd.DataFrame:
    return estimates(chains[is_control(chains)], [n.RETRAIN, LEVEL], CHANGE, n.SEED)
