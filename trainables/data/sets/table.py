"""Images that a csv file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainables.data.cache import Decoded, Reader
from trainables.data.sets.base import Columns, DataSet, Root, Seen
from trainables.data.sets.folder import TEST, TRAIN, VALIDATION, ImageFiles
from trainables.records.names import InputError
from trainables.settings import nearest, one_line


class Table(Root, Columns, DataSet):
    """Images that root/labels.csv names, with a column of their classes, or several of numbers, and one of the split.

    Without that of the split, all train.
    """

    name = "csv"

    def seen(self, reader: Reader) -> Seen:
        """The rows that aren't of the test split."""
        rows = self._rows()
        part = self._split(rows)
        classes = self.label_columns or _classes(rows[self.label_column][part != TEST])
        train = reader.read(self._files(rows[part == TRAIN], classes), self._root)
        validation = rows[part == VALIDATION[0]]
        own = reader.like(train).read(self._files(validation, classes), self._root) if len(validation) else None
        return Seen(train, classes, own)

    def held_out(self, reader: Reader) -> Decoded:
        """The rows of the test split."""
        rows = self._rows()
        test = self._split(rows) == TEST
        if not test.any():
            raise InputError(
                f"data.split_column: no row of {self.table!r} has 'test' in a column {self.split_column!r}; add test images"
            )
        classes = self.label_columns or _classes(rows[self.label_column][~test])
        return reader.read(self._files(rows[test], classes), self._root)

    @property
    def _root(self) -> Path:
        return Path(self.root).expanduser()

    def _rows(self) -> pd.DataFrame:
        file = self._root / self.table
        try:
            rows = pd.read_csv(file, sep="\t" if file.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise InputError(f"data.table: '{file}' can't be read ({one_line(error)}); give a csv file") from error
        labels = [("label_columns", name) for name in self.label_columns or ()] or [("label_column", self.label_column)]
        for field, column in (("path_column", self.path_column), *labels):
            if column not in rows:
                raise InputError(f"data.{field}: '{file}' has no column {column!r}; {nearest(column, list(rows.columns))}")
            if (empty := (rows[column].str.strip() == "").to_numpy()).any():
                line = int(empty.argmax()) + 2
                raise InputError(f"data.{field}: {column!r} is empty in line {line} of '{file}'; fill it in")
        return rows

    def _split(self, rows: pd.DataFrame) -> pd.Series:
        """The part of each row; all train where no column says."""
        if self.split_column not in rows:
            return pd.Series(TRAIN, rows.index)
        found = rows[self.split_column].str.strip().str.lower().replace(dict.fromkeys(VALIDATION, VALIDATION[0]))
        if not (known := found.isin((TRAIN, VALIDATION[0], TEST))).all():
            other = rows[self.split_column][~known].iloc[0]
            raise InputError(f"data.split_column: {other!r} is no part; write train, validation or test")
        return found

    def _files(self, rows: pd.DataFrame, classes: tuple[str, ...]) -> ImageFiles:
        files = [self._root / path for path in rows[self.path_column]]
        if self.label_columns:
            return ImageFiles(self._root, files, self._numbers(rows))
        labels = rows[self.label_column]
        if len(unknown := labels[~labels.isin(classes)]):
            raise InputError(f"data.label_column: {unknown.iloc[0]!r} is no class of the training images; correct it")
        numbers = {name: i for i, name in enumerate(classes)}
        return ImageFiles(self._root, files, np.array([numbers[label] for label in labels], np.int64))

    def _numbers(self, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        """The label columns [N, columns]."""
        found: npt.NDArray[np.float64]
        found = rows[list(self.label_columns or ())].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        if (wrong := ~np.isfinite(found)).any():
            row, column = map(int, np.argwhere(wrong)[0])
            name, line = (self.label_columns or ())[column], int(rows.index[row]) + 2
            raise InputError(
                f"data.label_columns: {name!r} is {rows[name].iloc[row]!r} in line {line} of '{self._root / self.table}'; "
                "give a finite number"
            )
        return found


def _classes(labels: pd.Series) -> tuple[str, ...]:
    """Sorted, as numbers if all of them are."""
    found = set(labels)
    try:
        return tuple(sorted(found, key=float))
    except ValueError:
        return tuple(sorted(found))
