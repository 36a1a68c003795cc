"""The comparison of a sweep in results/<study>/report/: a page in HTML and in Markdown, figures, tables, answers.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

import trainables.records.names as n
from analysis.comparison import figures
from analysis.comparison.pages import html, markdown
from analysis.comparison.questions import families, iterative, one_shot, structured
from analysis.comparison.sentences import Answer
from analysis.comparison.summary import BANDS, RULES, facts, split_note, summary
from analysis.comparison.sweep import Sweep, load_sweep
from analysis.figures import render
from analysis.load import Study
from trainables.records.files import write_atomically
from trainables.records.objectives import ACCURACY

PAGE, MARKDOWN, ANSWERS = "comparison.html", "comparison.md", "answers.json"
# What begins like this in the report's folder is made here, and removed when it is made no longer.
PREFIX = "comparison_"


@dataclass(frozen=True)
class Question:
    """One question: how it is answered and drawn."""

    title: str
    answer: Callable[[Sweep], Answer]
    figure: Callable[[Sweep], Figure | None]
    caption: str


QUESTIONS: Mapping[str, Question] = {
    "one_shot": Question(
        "What does one-shot unstructured pruning cost?",
        one_shot.answer,
        figures.one_shot_figure,
        "One cut, then retraining. The horizontal axis counts doublings of the reduction, so that the levels where the "
        "curve bends have room; lines that leave the close-up at its foot are shown whole on the left.",
    ),
    "iterative": Question(
        "Is iterative pruning better than one-shot?",
        iterative.answer,
        figures.iterative_figure,
        "One chain of cuts with retraining after each, against one cut. Only the networks of equal epochs are compared; "
        "the other one-shot networks show what the longer training is worth.",
    ),
    "structured": Question(
        "Which importance and which pruner suit this network best?",
        structured.answer,
        figures.structured_figure,
        "Left: every importance with every pruner on the seeds that choose, averaged over the levels. Right: what runs on "
        "fresh seeds (or, before any has, the first of selection), with random importance and training from scratch as "
        "controls, as far as they have run.",
    ),
    "families": Question(
        "Weights or channels: which keeps more accuracy at the same compression?",
        families.answer,
        figures.families_figure,
        "The recipe of each family that is best, at selection, where both reach, on each axis that was measured; thin "
        "lines, where there are any, are other chains of cuts, and the finalists on fresh seeds. Horizontal axes count "
        "doublings. A family that an axis does not move stands at 1\N{MULTIPLICATION SIGN}.",
    ),
}


def write_comparison(study: Study) -> tuple[Path, list[str]]:
    """Write everything, the pages last; returns the HTML page's path and the sentences of the summary."""
    if study.measure is not ACCURACY:
        raise n.InputError(
            f"{study.folder}: is measured by {study.measure.name}, and comparisons speak of accuracy; use report"
        )
    sweep = load_sweep(study)
    answers = {name: question.answer(sweep) for name, question in QUESTIONS.items()}
    folder = study.folder / n.REPORT_FOLDER
    folder.mkdir(exist_ok=True)
    content = _content(sweep, answers, written := dict(_attachments(sweep, answers)))
    for name, data in written.items():
        write_atomically(folder / name, data)
    for stale in set(folder.glob(f"{PREFIX}*")) - {folder / name for name in written}:
        stale.unlink()
    write_atomically(folder / ANSWERS, _json(sweep, answers, content["summary"]))
    write_atomically(folder / MARKDOWN, markdown(content))
    write_atomically(folder / PAGE, html(content))
    return folder / PAGE, content["summary"]


def _attachments(sweep: Sweep, answers: Mapping[str, Answer]) -> Iterator[tuple[str, bytes | str]]:
    for name, question in QUESTIONS.items():
        figure = question.figure(sweep)
        for kind in ("png", "svg") if figure else ():
            assert figure is not None
            yield f"{PREFIX}{name}.{kind}", render(figure, kind)
        for what, found in answers[name].findings.items():
            if isinstance(found, pd.DataFrame) and len(found):
                shown = found.drop(columns="recipe", errors="ignore")
                yield f"{PREFIX}{name}_{what}.csv", shown.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def _content(sweep: Sweep, answers: Mapping[str, Answer], written: Mapping[str, Any]) -> dict[str, Any]:
    sections = [
        {
            "name": name,
            "number": number,
            "question": question,
            "answer": answers[name],
            "figure": f"{PREFIX}{name}" if f"{PREFIX}{name}.png" in written else None,
            "csv": [file for file in written if file.startswith(f"{PREFIX}{name}_") and file.endswith(".csv")],
        }
        for number, (name, question) in enumerate(QUESTIONS.items(), start=1)
    ]
    return {
        "study": sweep.study,
        "sweep": sweep,
        "sections": sections,
        "summary": summary(sweep, answers["one_shot"], answers["iterative"], answers["structured"], answers["families"]),
        "facts": facts(sweep),
        "split_note": split_note(sweep),
        "rules": RULES,
        "bands": BANDS,
    }


def _json(sweep: Sweep, answers: Mapping[str, Answer], told: list[str]) -> str:
    content = {
        "study": sweep.study.name,
        "split": sweep.split,
        "confirmed_networks": sweep.confirmed,
        "compared_networks": sweep.compared,
        "confirmed_but_different": sweep.others,
        "summary": told,
        "questions": {
            name: {
                "question": QUESTIONS[name].title,
                "answer": answer.paragraph,
                "details": list(answer.details),
                "missing": list(answer.missing),
                **{what: _plain(found) for what, found in answer.findings.items()},
            }
            for name, answer in answers.items()
        },
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(found: Any) -> Any:
    if not isinstance(found, pd.DataFrame):
        return found
    # A round trip through pandas' own writer: its missing values and numpy's numbers become JSON's.
    return json.loads(found.drop(columns="recipe", errors="ignore").to_json(orient="records", double_precision=10))
