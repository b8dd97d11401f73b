"""Collect and fuse: how many cases of what kind there are, and tables across several sources.

A collection counts studies, at most `most` of a patient. A fusion counts patients: one row each,
put together from what different sources know of that patient (images, results, readers, data the
hospital added). Both are `tables.Tables`; keys are public and signed.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bedside_core.errors import InvalidInputError
from bedside_sync.secagg.bodies import Body
from bedside_sync.secagg.roster import Name
from bedside_sync.tasks.fields import (
    Facts,
    FieldName,
    Key,
    check_keys,
    check_word,
    source,
    word,
)
from bedside_sync.tasks.layout import Layout
from bedside_sync.tasks.tables import Table, Tables, read_tables

_MOST_CELLS = 1 << 20


class AxisBody(Body):
    """One side of a table: a field and the keys it is counted under; `other` is added."""

    field: FieldName
    keys: Annotated[list[Key], Field(min_length=1, max_length=256)]


class TableBody(Body):
    """A table of counts."""

    name: Name
    axes: Annotated[list[AxisBody], Field(min_length=1, max_length=6)]

    def value(self) -> Table:
        """Return the table; InvalidInputError for fields or keys that cannot be."""
        for axis in self.axes:
            check_word(axis.field)
            check_keys(axis.field, tuple(axis.keys))
        fields = [axis.field for axis in self.axes]
        if len(set(fields)) != len(fields):
            raise InvalidInputError("a table has each field once")
        return Table(name=self.name, axes=tuple((a.field, tuple(a.keys)) for a in self.axes))


class CollectSettings(Body):
    """Task `collect`: how many studies of what kind."""

    version: Literal[1] = 1
    scale: Annotated[int, Field(ge=1, le=65_536)] = 64
    most: Annotated[int, Field(ge=1, le=64)] = 1
    cleaning: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""  # version to apply first
    tables: Annotated[list[TableBody], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        tables = self.value()
        if tables.length > _MOST_CELLS:
            raise InvalidInputError(f"a census has at most {_MOST_CELLS} cells")
        if len({table.name for table in tables.tables}) != len(tables.tables):
            raise InvalidInputError("two tables have one name")
        return self

    def value(self) -> Tables:
        """Return the tables in one vector."""
        return Tables(
            tables=tuple(table.value() for table in self.tables), most=self.most, scale=self.scale
        )

    @property
    def layout(self) -> Layout:
        """Of the vector."""
        tables = self.value()
        return Layout(
            segments=tuple((table.name, table.cells) for table in tables.tables),
            scale=self.scale,
            sensitivity2=tables.sensitivity2,
            largest=tables.largest,
        )

    def read(self, total: NDArray[np.int64], variance: float) -> dict[str, Any]:
        """Return each table's cells; none below twice the noise is given as more than noise."""
        tables = self.value()
        deviation = float(np.sqrt(variance)) / self.scale
        found = read_tables(tables, total)
        return {
            "deviation": round(deviation, 3),
            "tables": {
                table.name: {
                    "axes": [name for name, _ in table.axes],
                    "cells": [
                        {"keys": list(keys), "count": round(float(count), 1)}
                        for keys, count in zip(
                            table.keys(), found[table.name].reshape(-1), strict=True
                        )
                    ],
                }
                for table in tables.tables
            },
        }


class FuseSettings(CollectSettings):
    """Task `fuse`: one row for each patient over at least two sources."""

    most: Annotated[int, Field(ge=1, le=1)] = 1

    @model_validator(mode="after")
    def _fused(self) -> Self:
        for table in self.tables:
            if len({source(axis.field) for axis in table.axes}) < 2:
                raise InvalidInputError(f"table {table.name} is of one source: that is a census")
        return self


def census_vector(
    settings: CollectSettings, patients: Sequence[Sequence[Facts]]
) -> NDArray[np.int64]:
    """Return a site's counts over the first `most` rows of each patient."""
    tables = settings.value()
    total = np.zeros(tables.length, np.int64)
    for rows in patients:
        for facts in rows[: tables.most]:
            start = 0
            for table in tables.tables:
                row = {field: word(facts, field, keys) for field, keys in table.axes}
                total[start + table.cell(row)] += tables.scale
                start += table.cells
    return total
