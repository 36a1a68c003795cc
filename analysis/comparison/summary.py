"""The sentences at the top of a comparison, and where its numbers come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

import trainables.records.names as n
from analysis import words
from analysis.comparison import sentences as say
from analysis.comparison.columns import REPORTED, TEST
from analysis.comparison.questions.families import sides
from analysis.comparison.questions.finalists import unfinished
from analysis.comparison.questions.selection import select
from analysis.comparison.questions.within_margin import reach_sentence
from analysis.comparison.sentences import Answer
from analysis.comparison.statistics import CONFIDENCE, MIN_SEEDS, SIGNIFICANCE
from analysis.comparison.sweep import Sweep

RULES = (
    "The data were split once. Whatever is chosen (retraining, recipes, finalists) is chosen on validation data; the test "
    "split is opened by one command alone, for schedules that the study file names in advance, once for each network.",
    "Every seed has its own dense network. Differences are taken within a seed, and n is always a number of seeds. Both "
    "sides of a comparison start from the same trained weights, and in questions 2 and 3 have the same number of epochs "
    "(the control trained from scratch starts from none, and the dense network's epochs are added to its own); question 4 "
    "compares recipes as they are, and tells their epochs.",
    f"Intervals are {words.percent(CONFIDENCE, 0)} Student t intervals of the mean over seeds. From fewer than {MIN_SEEDS} "
    "seeds nothing is concluded, and with three the interval is wide: 4.3 standard errors to each side; with five, 2.8. "
    "They describe seeds, not other data sets or networks.",
    "Holm's method (Holm 1979) corrects differences of one kind together, and different kinds apart. The kinds are: "
    "one-shot levels against dense, and against the cut alone; one-shot importances against random; iterative against "
    "one-shot at each level, and averaged over levels; retrainings at each level, and averaged; importances, and pruners, "
    "at selection; finalists and their control, finalists at each level, and how their differences change with the ratio; "
    "pruning against training from scratch at each level, and averaged; the families over their axes (and again where they "
    "are retrained alike), and at the reductions of the table. So the "
    f"chance of a false finding is held to {words.percent(SIGNIFICANCE, 0)} within a kind, not over the whole report.",
    f"A difference whose adjusted p is {SIGNIFICANCE:g} or more is called a tie: not shown to differ, which is not the "
    "same as shown to be equal. Printed intervals are of each difference alone; where one leaves 0 out and the difference "
    f'is a tie all the same, tables call it a "{say.CORRECTED}". An accuracy is a count of images, so no standard error is '
    "taken for smaller than that of rounding to one image.",
    f"A network stays within a point of dense where the lower end of its interval does, on at least {MIN_SEEDS} seeds.",
    "Sparsity is the achieved share of the prunable weights; bytes are those of files really written; time is measured in "
    "fp32, for one image and for batches of 64, once for each shape on a host: masks leave the shape as it is, so a masked "
    "network has its dense one's time. A difference of a few per cent can be the measurement's.",
    "Retraining ends with its last epoch's weights; no epoch is picked.",
)
DENSE = {
    "epochs": "epochs of dense training",
    "learning_rate": "peak of its learning rate, which rises to it linearly and then falls linearly to 0",
    "warmup": "share of its epochs in which that rises",
    "batch_size": "images a batch, in all training",
    "momentum": "momentum (Nesterov), in all training",
    "weight_decay": "weight decay, in all training",
}
RETRAINING = {
    "learning_rate": "learning rate at which fine-tuning begins, after each cut",
    "decay": "how that changes within a step",
}
BANDS = (
    f"Bands: {words.percent(CONFIDENCE, 0)} t interval over seeds, smallest to largest value of fewer than {MIN_SEEDS}. "
    "Each is of its line alone: whether two lines differ is judged within seeds, in the tables. Bars in place of bands: a "
    "deeper cut may be slower. Lines that leave a panel at its foot go on below it. Grey crosses, where there are any: "
    "random importance, the control."
)


def summary(sweep: Sweep, one_shot: Answer, iterative: Answer, structured: Answer, families: Answer) -> list[str]:
    """What the four answers come to, in a handful of sentences."""
    both = sides(sweep)
    reach = [reach_sentence(rows, sweep.dense) for rows in (both.unstructured, both.structured) if len(rows)]
    headlines = [one_shot.headline, iterative.headline, structured.headline, families.headline]
    return [_dense_sentence(sweep), *(text for text in headlines if text), *([" ".join(reach)] if reach else [])]


def split_note(sweep: Sweep) -> str:
    """On which data the numbers are, and why."""
    if sweep.split == TEST:
        # A sweep can be confirmed before its finalists have run, and again after them.
        when = (
            "It was opened before the recipes that are to run on fresh seeds were complete there; whatever is chosen is "
            "chosen on validation data alone."
            if sweep.fresh and unfinished(sweep, select(sweep))
            else "Everything was chosen on validation data; it had no part in that."
        )
        again = (
            f" {sweep.others} of them had to be trained again for it, and came out different from the networks that "
            "validation data had judged."
            if sweep.others
            else ""
        )
        return (
            f"Accuracies are on the test split (of all {sweep.compared} networks that are compared).{again} {when} Tables "
            "and sentences of the selection stage, and accuracies before retraining, are on validation data."
        )
    known = f"{sweep.confirmed} of the {sweep.compared}" if sweep.confirmed else "none of the"
    return (
        f"All accuracies are on validation data: the test split has been opened for {known} networks that are compared, "
        "and numbers of the two splits are never mixed. What was chosen on validation data looks better there than it is."
    )


def facts(sweep: Sweep) -> pd.DataFrame:
    """Where the numbers come from: data, hardware, hours, seeds, networks."""
    return pd.DataFrame(list(_facts(sweep)), columns=["what", "value"])


def _dense_sentence(sweep: Sweep) -> str:
    accuracy, settings = sweep.dense[REPORTED], sweep.study.settings
    model, data = _section(settings, "model").get("name"), data_name(_section(settings, "data"))
    what = f"the dense {model}" if model else "the dense network"
    on = f" on {data}" if data else ""
    if len(accuracy) == 1:
        return f"{say.sentence(what)}{on} reaches {words.percent(accuracy.iloc[0], 2)} {sweep.split} accuracy (one seed)."
    return (
        f"{say.sentence(what)}{on} reaches {words.percent(accuracy.mean(), 2)} {sweep.split} accuracy (mean of "
        f"{len(accuracy)} seeds, each with its own dense network; {words.percent(accuracy.min(), 2)} to "
        f"{words.percent(accuracy.max(), 2)})."
    )


def data_name(data: Mapping[str, Any]) -> str:
    """The data set; of a folder of images, which folder."""
    if data.get("dataset") == "folder":
        # Its last part names the copy; where it lay says nothing.
        return f"{PurePath(str(data.get('root'))).name} (a folder of images)"
    return str(data.get("dataset") or "")


def _facts(sweep: Sweep) -> Iterator[tuple[str, str]]:
    study, rows = sweep.study, sweep.rows
    data, from_run = _section(study.settings, "data"), _section(study.provenance, "data")
    if data:
        yield "data set", data_name(data)
    yield from _known(from_run, {"training_images": "training images", "validation_images": "validation images"})
    yield from _known(from_run, {"fingerprint": "fingerprint of the data"})
    model = _section(study.settings, "model")
    if model:
        yield "network", " ".join([str(model.get("name")), _text(model.get("arguments") or "")]).strip()
    yield (
        "dense parameters",
        f"{sweep.dense[n.PARAMS].max():,.0f}" if sweep.dense[n.PARAMS].notna().any() else words.MISSING,
    )
    dense = _section(study.settings, "dense")
    yield from _known(dense, DENSE)
    yield from _known(_section(study.settings, "retraining"), RETRAINING)
    rewound = rows.loc[rows[n.RETRAIN] == "lr_rewind", n.FINE_TUNE_EPOCHS]
    if len(rates := _rewound(dense, sorted(set(rewound)))):
        yield "learning rate at which rewinding begins, by its epochs", ", ".join(f"{t:g}: {rate:.3g}" for t, rate in rates)
    penalties = _section(study.settings, "regularisation")
    if penalties and (rows[n.SPARSE_EPOCHS] > 0).any():
        yield "regularised training before a cut", ", ".join(f"{name} {_text(value)}" for name, value in penalties.items())
    yield from _known(
        _section(study.provenance, "hardware"), {"processor": "processor", "cores": "cores", "cpu": "processor"}
    )
    yield from _known(
        _section(study.provenance, "training"),
        {"device": "device", "precision": "precision of training", "threads": "threads a network"},
    )
    yield from _known(
        study.provenance,
        {"hours": "hours of its runs that ended in order", "first_run": "first run", "last_run": "last run"},
    )
    computed = study.points[~study.points[n.REUSED]]
    yield "hours of computing, summed over networks", words.number(computed[n.SECONDS].sum() / 3600)
    yield "epochs trained", f"{computed[n.EPOCHS].sum():,.0f}"
    yield "networks", f"{rows[n.STEP_ID].nunique():,} pruned, {len(sweep.dense)} dense"
    choosing = sweep.selection(rows)[n.SEED]
    yield "seeds that choose", say.seeds(choosing) if len(choosing) else words.MISSING
    final = sweep.confirmation(rows)[n.SEED]
    yield (
        "fresh seeds",
        say.seeds(final) if len(final) else f"{words.MISSING} (planned: {say.seeds(sweep.fresh) or 'none'})",
    )
    versions = _section(study.provenance, "versions")
    if versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def _rewound(dense: Mapping[str, Any], epochs: Sequence[float]) -> list[tuple[float, float]]:
    """(epochs before the end of the dense schedule, its learning rate there); none where the settings don't tell."""
    peak, total, warmup = (dense.get(key) for key in ("learning_rate", "epochs", "warmup"))
    if not (isinstance(peak, float) and type(total) is int and isinstance(warmup, int | float)):
        return []
    if not (0 < peak < 1e6 and 0 < total < 1e6 and 0 <= warmup < 1):
        return []
    begin = 0.1 * peak if warmup else peak
    return [(t, float(np.interp(total - t, [0.0, warmup * total, total], [begin, peak, 0.0]))) for t in epochs]


def _known(section: Mapping[str, Any], wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, label in wanted.items():
        if section.get(key) is not None:
            yield label, _text(section[key])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}
