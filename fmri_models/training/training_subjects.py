"""Whom a training learns from, and which of them its pipeline will have."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..data.joined import JoinedTrials, TablePart
from ..data.loading import TrialDataset
from ..data.table import TrialTable
from ..processing_fmri import FmriProcessor
from .sources import Source


@dataclass(frozen=True)
class TrainingSubjects:
    """The subjects of a model while it is trained: those that stay, and behind them those of sources, which do not.

    Args:
        own: Processor of the subjects of the recipe's table.
        kept: Processor of all subjects that the pipeline will have, in the model's order; None for the same.
        sources: Further tables.
    """

    own: FmriProcessor
    kept: FmriProcessor | None = None
    sources: Sequence[Source] = field(default_factory=list)

    @property
    def processor(self) -> FmriProcessor:
        """What is saved."""
        return self.own if self.kept is None else self.kept

    @property
    def passing(self) -> dict[str, int]:
        """Subjects that the model has in training alone ▶ columns of their patterns."""
        return {name: width for source in self.sources for name, width in source.new_subjects.items()}

    @property
    def subject_names(self) -> list[str]:
        """Names of all subjects, in the order of the model."""
        return [*self.processor.subject_names, *self.passing]

    @property
    def num_voxels(self) -> list[int]:
        """Columns of their patterns."""
        return [*self.processor.num_voxels, *self.passing.values()]

    @property
    def are_those_of_table(self) -> bool:
        """Whether the model has the subjects of the recipe's table and no others."""
        return self.kept is None and not self.sources

    def joined(
        self, table: TrialTable, own: TrialDataset, others: Sequence[TrialDataset] = ()
    ) -> JoinedTrials | TrialDataset:
        """Examples with the model's ids.

        Args:
            table: The recipe's.
            own: Its examples.
            others: Those of each source, or none.
        """
        if self.are_those_of_table:
            return own
        tables = [table, *(source.table for source in self.sources)]
        names = [{}, *(source.names for source in self.sources)]
        parts = [
            TablePart(data, renamed, _labels(of, data))
            for data, renamed, of in zip([own, *others], names, tables, strict=False)
        ]
        return JoinedTrials(parts, self.subject_names, max(self.num_voxels))


def _labels(table: TrialTable, data: TrialDataset) -> dict[str, str]:
    """Stimulus ▶ hash of its picture, by which it is known in other tables."""
    ids = sorted({stimulus for stimulus in data.shown.tolist() if stimulus})
    return {name: digest for name, digest in zip(ids, table.stimuli.content_hashes(ids), strict=True) if digest}
