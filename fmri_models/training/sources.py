"""Further tables whose trials a training learns from beside those of its own: pairs of fMRI and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..data import schema
from ..data.table import TrialTable
from ..data.table_processor import check_voxels, fit_processor
from ..errors import FmriModelsError
from ..names import listed, one_line
from ..option_types import Line, Names, check_fields
from ..processing_fmri import FmriProcessor
from ..typed_values import check_key
from .unpaired import as_wide


@dataclass(frozen=True)
class SourceTable:
    """A further table that is learned from; what is learned of its subjects alone is not kept.

    Args:
        data: The trial table's folder, which may be the recipe's own.
        parts: Parts of the split; not `test`.
        split: Name of the split file.
        fold: Its fold.
        subjects: Names of the subjects; None takes all, of the recipe's own table those that are not its subjects.
    """

    data: Line
    parts: Names = field(default_factory=lambda: ["train"])
    split: Line = schema.DEFAULT_SPLIT
    fold: int = 0
    subjects: Names | None = None

    def __post_init__(self) -> None:
        check_fields(vars(self), SourceTable, "sources.", "correct the recipe")
        if schema.TEST in self.parts:
            raise FmriModelsError(
                f"sources.parts has 'test' of {one_line(self.data)}; a source is learned from, so name other parts."
            )


@dataclass(frozen=True)
class Source:
    """A source that was opened.

    Args:
        table: The table.
        stated: What the recipe says of it.
        names: Subject in the table ▶ what the model calls it.
        processor: With the statistics of these subjects, under their names in the table.
        in_base: Those of the subjects, in the table, that the model had before.
    """

    table: TrialTable
    stated: SourceTable
    names: dict[str, str]
    processor: FmriProcessor
    in_base: frozenset[str] = frozenset()

    @property
    def new_subjects(self) -> dict[str, int]:
        """Subject in the model that it had not before ▶ the width of its processed patterns."""
        widths = zip(self.processor.subject_names, self.processor.num_voxels, strict=True)
        return {self.names[name]: width for name, width in widths if name not in self.in_base}


def source_tables(values: Sequence[Mapping[str, Any] | str] | None) -> list[SourceTable]:
    """What a recipe means by `sources`.

    Raises:
        FmriModelsError: A key is unknown or missing, or a value is of another type.
    """
    found = []
    known = [each.name for each in fields(SourceTable)]
    for source in values or []:
        options = {"data": source} if isinstance(source, str) else dict(source)
        for key in options:
            check_key(key, known, "sources")
        if not options.get("data"):
            raise FmriModelsError("A source names no table; write sources: [{data: FOLDER}].")
        found.append(SourceTable(**options))
    return found


def opened_sources(
    values: Sequence[Mapping[str, Any] | str] | None,
    own: TrialTable,
    own_subjects: Sequence[str],
    processor: FmriProcessor,
    base: FmriProcessor | None = None,
    base_tables: Sequence[str] = (),
) -> list[Source]:
    """The sources of a recipe, with statistics of their subjects.

    A subject is one that the base model has if the base was trained on the very table with a subject of that name; it
    is then read with the base's statistics. All others are named `table.subject`, and their statistics are computed
    with the options of the processor.

    Args:
        values: What the recipe says.
        own: The recipe's own table.
        own_subjects: Its subjects that are learned from.
        processor: The recipe's, whose options are taken.
        base: That of the model that training starts from; None where the model is new.
        base_tables: Fingerprints of the tables that the base was trained on.

    Raises:
        FmriModelsError: There is no such table, subject, split or part; two tables have one name; or a source is what
            the recipe learns from already.
    """
    found: list[Source] = []
    for stated in source_tables(values):
        table = TrialTable.open(stated.data)
        is_own = table.fingerprint == own.fingerprint
        subjects = stated.subjects or [name for name in table.subjects if not (is_own and name in own_subjects)]
        _check_subjects(table, subjects, own_subjects if is_own else ())
        known = {name for name in subjects if base is not None and table.fingerprint in base_tables}
        known = {name for name in known if base is not None and name in base.subject_names}
        names = {name: name if name in known else f"{table.name}.{name}" for name in subjects}
        _check_names(names, table, found)
        found.append(
            Source(table, stated, names, _processor(stated, table, names, known, processor, base), frozenset(known))
        )
    return found


def refuse_tested_pictures(recipe: Any, table: TrialTable, subjects: Sequence[str]) -> None:
    """Refuses sources that show what the recipe's split tests: it would be learned from another brain.

    Args:
        recipe: The recipe of one fold.
        table: Its table.
        subjects: Whom it learns from.

    Raises:
        FmriModelsError: Says how many pictures these are.
    """
    stated = source_tables(recipe.sources)
    if not stated:
        return
    tested = _pictures(table, subjects, [schema.TEST], recipe.split, recipe.fold)
    for source in stated:
        of = TrialTable.open(source.data)
        names = [name for name in source.subjects or of.subjects if name in of.subjects]
        both = tested & _pictures(of, names, source.parts, source.split, source.fold)
        if both:
            raise FmriModelsError(
                f"The source {one_line(of.path)} shows {len(both)} of the {len(tested)} pictures that the split "
                f"{recipe.split!r} tests, in {listed(source.parts)} of its split {source.split!r}; choose a split of "
                "the source that holds them out."
            )


def _pictures(table: TrialTable, subjects: Sequence[str], parts: Sequence[str], split: str, fold: int) -> set[str]:
    """Hashes of what trials show."""
    known = schema.labelled_parts(list(parts))
    trials = [table.trials(name, known, split, fold) for name in subjects] if known else []
    shown = sorted({stimulus for each in trials for stimulus in each.stimulus_ids.tolist() if stimulus})
    return {digest for digest in table.stimuli.content_hashes(shown) if digest is not None}


def _check_subjects(table: TrialTable, subjects: Sequence[str], own: Sequence[str]) -> None:
    for name in subjects:
        if name not in table.subjects:
            raise FmriModelsError(
                f"The source {one_line(table.path)} has no subject {name!r}; it has {', '.join(table.subjects)}."
            )
        if name in own:
            raise FmriModelsError(
                f"The source {one_line(table.path)} is the recipe's own table, whose {name} is learned from already; "
                "name others in its subjects."
            )
    if not subjects:
        raise FmriModelsError(
            f"The source {one_line(table.path)} has no subject that is not learned from already; leave it out."
        )


def _check_names(names: Mapping[str, str], table: TrialTable, others: Sequence[Source]) -> None:
    for other in others:
        both = sorted(set(names.values()) & set(other.names.values()))
        if both:
            raise FmriModelsError(
                f"Two sources have a subject {both[0]!r} ({one_line(other.table.path)} and {one_line(table.path)}); "
                "name each subject once, and give tables different names."
            )


def _processor(
    stated: SourceTable,
    table: TrialTable,
    names: Mapping[str, str],
    known: set[str],
    processor: FmriProcessor,
    base: FmriProcessor | None,
) -> FmriProcessor:
    new = [name for name in names if name not in known]
    where = (stated.parts, stated.split, stated.fold)
    fitted = None
    if new:
        fitted = fit_processor(table, new, *where, **as_wide(processor.options, processor))
    if not known:
        assert fitted is not None
        return fitted
    assert base is not None
    for name in sorted(known):
        check_voxels(table, name, base)
    chosen = base.subset(sorted(known))
    return chosen if fitted is None else chosen.with_subjects_of(fitted)
