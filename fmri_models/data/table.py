"""Reading a trial table."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..deprecation import former_name
from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import did_you_mean, file_name, is_name, listed, one_line
from ..processing.image_grid import ImageGrid
from ..reading import check_regular_file
from . import hub, parquet, schema
from .matrix import FmriMatrix
from .metadata import read_metadata
from .parquet import MEND, read_parquet
from .parquet_columns import check_names, text_list
from .split_files import Split
from .table_stimuli import Stimuli
from .table_trials import TrialFiles, Trials
from .table_voxels import Voxels, read_voxels
from .windows import Windows


class TrialTable:
    """A trial table on disk. Opening reads `table.json` only; everything else comes when it is asked for.

    ```python
    table = TrialTable.open("my_table")
    trials = table.trials("subj01", "train")
    for positions, betas in trials.batches(64):  # betas: (b, V) float32
        pictures = table.stimuli.images(trials.stimulus_ids[positions])
    ```

    Attributes:
        path: The folder.
        metadata: What `table.json` says.
        name: The table's name.
        simulated: Whether the responses come from a simulator.
        subjects: Subject ids.
        fingerprint: SHA-256 over the hashes of all data files (splits that were added later don't change it).
    """

    def __init__(self, path: Path, metadata: dict | None = None) -> None:
        if metadata is None:
            raise FmriModelsError(f"TrialTable.open({one_line(repr(str(path)), 200)}) opens a trial table.")
        self.path = path
        self.metadata = metadata
        self.name: str = metadata["name"]
        self.simulated: bool = metadata["simulated"]
        self.subjects: list[str] = metadata["subjects"]
        self.fingerprint = _fingerprint(metadata["files"])
        self._trials: dict[str, TrialFiles] = {}
        self._splits: dict[str, Split] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> "TrialTable":
        """Opens a trial table: a folder, or a data set of the Hub, of which the table's own files are fetched.

        Args:
            path: Folder, or repository id (`user/name`).
            revision: Branch, tag or commit; None takes the main branch.
            token: Token; None takes the one that is logged in.
            cache_dir: Where fetched files are kept.
            local_files_only: Take what was fetched before, without asking the Hub.
            force_download: Fetch again what was fetched before.

        Raises:
            FmriModelsError: There is no table, it was written by a newer version, or files are missing or cut short.
        """
        options = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "force_download": force_download,
        }
        path = hub.table_folder(path, {name: value for name, value in options.items() if value is not None})
        metadata = read_metadata(path)
        with system_errors_as_sentences(path):
            _check_files(path, metadata["files"])
        return cls(path, metadata)

    def __repr__(self) -> str:
        return f"TrialTable({str(self.path)!r}, subjects={self.subjects})"

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_description: str | None = None,
        permission: str | None = None,
        pictures: bool = True,
    ) -> str:
        """Uploads the table as a data set, with its card and all splits, in one commit.

        It then opens as `TrialTable.open("user/name")`, and `datasets.load_dataset("user/name")` reads it, too. Nothing
        else that lies in the folder goes along.

        Args:
            repo_id: `user/name`, or a name in your namespace; the repository is made where there is none.
            commit_message: First line of the commit.
            private: Whether a repository that is made is private, and one that is there has to be.
            token: Token; None takes the one that is logged in.
            revision: Branch; None takes the main one.
            create_pr: Propose the commit instead of making it.
            commit_description: Further lines of the commit.
            permission: Which written permission there is to pass data on whose terms forbid it, in a line that the
                card keeps.
            pictures: Whether the pictures go along; without, stimuli keep ids, captions, categories and the hashes of
                their pixels, and the table that arrives has another fingerprint.

        Returns:
            Address of the commit.

        Raises:
            FmriModelsError: The data's terms forbid it, or the Hub does not take it.
        """
        return hub.upload_table(
            self.path,
            self.metadata,
            repo_id,
            commit_message or "Upload trial table",
            permission,
            private,
            pictures,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_description=commit_description,
        )

    @property
    def findings(self) -> list[str]:
        """What training would refuse of the table or learn wrong, as its writer found; `data validate` looks anew."""
        return self.metadata.get(schema.FINDINGS, [])

    def num_voxels(self, subject: str) -> int:
        """How many voxels a subject has."""
        return self.metadata["num_voxels"][self._checked(subject)]

    def voxels(self, subject: str) -> Voxels:
        """ROI, position and noise ceiling of a subject's voxels."""
        path = self.path / schema.VOXELS_FOLDER / file_name(self._checked(subject), ".parquet")
        voxels = read_voxels(path, subject, self.num_voxels(subject))
        found = self.metadata.get("grids", {}).get(subject)
        voxels = replace(voxels, window=self.window_shape(subject))
        if found is None:
            return voxels
        grid = ImageGrid(tuple(found["shape"]), np.array(found["affine"], dtype=np.float64), found["sha256"])
        return replace(voxels, grid=grid)

    @property
    def modality(self) -> str:
        """What was recorded: `"fmri"` or `"eeg"`."""
        return self.metadata.get("modality", "fmri")

    @property
    def cautions(self) -> list[str]:
        """What the experiment's design does to results, one sentence each; every report repeats them."""
        return list(self.metadata.get("cautions", []))

    @cached_property
    def windows(self) -> Windows | None:
        """What the trials' windows are, stored flat; None where trials are patterns, one value a voxel."""
        return Windows.of_metadata(self.metadata)

    def window_shape(self, subject: str) -> tuple[int, int] | None:
        """Shape of a subject's windows, (time, voxels) or (channels, time); None where its trials are patterns."""
        return None if self.windows is None else self.windows.shapes.get(self._checked(subject))

    @cached_property
    def stimuli(self) -> Stimuli:
        """The pictures that were shown, with captions and categories."""
        return Stimuli(self)

    def split_names(self) -> list[str]:
        """Names of the splits, the default one first."""
        found = (path.stem for path in (self.path / schema.SPLITS_FOLDER).glob("*.parquet"))
        names = sorted(name for name in found if is_name(name))
        return sorted(names, key=lambda name: name != schema.DEFAULT_SPLIT)

    def num_folds(self, split_name: str = schema.DEFAULT_SPLIT) -> int:
        """How many folds a split has."""
        return self._split(split_name).num_folds

    def repeats_stimuli(self, split_name: str = schema.DEFAULT_SPLIT) -> str:
        """Why stimuli are in several parts of a split; empty where none is."""
        return self._split(split_name).repeats_stimuli

    def split_how(self, split_name: str = schema.DEFAULT_SPLIT) -> dict[str, str | int | float]:
        """How a split was made, as far as its file says: `by`, `seed`, whose embeddings, how many clusters, tau ..."""
        return dict(self._split(split_name).how)

    def with_split(self, name: str, rows: pa.Table) -> "TrialTable":
        """The same table with one more split, which is nowhere written.

        Args:
            name: Of the split; one that is there is hidden.
            rows: With the columns of a split file.
        """
        table = TrialTable(self.path, self.metadata)
        # What was read already is read-only and shared.
        table._trials = self._trials
        table._splits = {**self._splits, name: Split(rows, self.path, self.subjects)}
        return table

    def with_exchanged_stimuli(self, partners: Mapping[str, str]) -> "TrialTable":
        """The same table in which the trials of some stimuli are those of others, which is nowhere written.

        Args:
            partners: Stimulus ▶ the one that its trials are of; one that isn't there keeps its trials.
        """
        table = TrialTable(self.path, self.metadata)
        table._splits = self._splits
        table._trials = {name: self._trials_of(name).with_exchanged_stimuli(partners) for name in self.subjects}
        return table

    def split_rows(self, split_name: str = schema.DEFAULT_SPLIT) -> pa.Table:
        """The rows of a split file: `fold, subject, trial, stimulus_id, split`."""
        return pa.table(self._split(split_name).columns)

    def split_fingerprint(self, split_name: str = schema.DEFAULT_SPLIT) -> str:
        """SHA-256 over the table's fingerprint and the rows of one split."""
        return self._split(split_name).fingerprint(self.fingerprint)

    def trials(
        self,
        subject: str,
        split: str | Sequence[str] = schema.TRAIN,
        split_name: str = schema.DEFAULT_SPLIT,
        fold: int = 0,
    ) -> Trials:
        """One subject's trials of one part of a split, in the order of the table's files.

        Args:
            subject: The subject's id.
            split: "train", "validation" or "test", or several of them; "unlabelled" are the trials without a stimulus
                (whose `stimulus_ids` are empty), the same in every split and fold, and "unlabelled_rest" and
                "unlabelled_viewing" those of one kind.
            split_name: Which split.
            fold: Which of its folds.

        Raises:
            FmriModelsError: The subject, the part, the split or the fold isn't there. A part may be empty.
        """
        self._checked(subject)
        parts = [split] if isinstance(split, str) else list(split)
        known = (*schema.SPLITS, *schema.UNLABELLED_PARTS)
        if unknown := [part for part in parts if part not in known]:
            raise FmriModelsError(
                f"There is no part {unknown[0]!r} of a split; known: {', '.join(known)}."
                f"{did_you_mean(unknown[0], known)}"
            )
        chosen = self._split(split_name)
        if not 0 <= fold < chosen.num_folds:
            raise FmriModelsError(f"The split {split_name!r} has {chosen.num_folds} folds (from 0); asked for {fold}.")
        numbers = chosen.trials(subject, parts, fold)
        of_subject = self._trials_of(subject)
        in_split = of_subject.labelled & np.isin(of_subject.columns["trial"], numbers)
        positions = np.flatnonzero(in_split | of_subject.unlabelled(parts))
        if in_split.sum() != len(numbers):
            raise FmriModelsError(
                f"The split {split_name!r} names {len(numbers) - in_split.sum()} trials of {subject} that {self.path} "
                "doesn't have; run `fmri-models data validate` on it."
            )
        return Trials(self, of_subject, positions)

    def all_trials(self, subject: str) -> Trials:
        """One subject's trials that have a stimulus, whatever part of a split they are in."""
        of_subject = self._trials_of(subject)
        return Trials(self, of_subject, np.flatnonzero(of_subject.labelled))

    def unlabelled_trials(self, subject: str) -> Trials:
        """One subject's trials that have no stimulus, of whatever kind."""
        of_subject = self._trials_of(subject)
        return Trials(self, of_subject, np.flatnonzero(~of_subject.labelled))

    def shown(self) -> dict[tuple[str, int], str]:
        """The stimulus id of each trial that has one, by subject and trial number."""
        return {
            (subject, int(trial)): str(stimulus)
            for subject in self.subjects
            for columns in [self._trials_of(subject).columns]
            for trial, stimulus in zip(columns["trial"], columns["stimulus_id"], strict=True)
            if stimulus
        }

    def noise_free(self, subject: str) -> tuple[list[str], np.ndarray] | None:
        """A simulated subject's responses without noise: stimulus ids and (n, V) float32; None for measured data."""
        path = self.path / schema.NOISE_FREE_FOLDER / file_name(self._checked(subject), ".parquet")
        if not path.exists():
            return None
        width = self.num_voxels(subject)
        expected = schema.noise_free_schema(width)
        columns = read_parquet(path, expected, columns=["stimulus_id"], most_rows=schema.MAX_STIMULI)
        check_names(columns["stimulus_id"], path, "stimulus id")
        ids = [str(stimulus) for stimulus in text_list(columns["stimulus_id"])]
        chunks = [np.zeros((0, width), dtype=np.float32)]
        chunks += parquet.fmri_chunks(path, width, expected, most_rows=len(ids))
        return ids, np.concatenate(chunks)

    def trial_files(self, subject: str) -> list[Path]:
        """A subject's Parquet files: train, validation, test, each in order."""
        return self._trials_of(subject).paths

    def fmri_chunks(self, subject: str) -> Iterator[np.ndarray]:
        """All of a subject's betas in the order of the files, as (trials, V) float16 or float32 chunks, as stored.

        Raises:
            FmriModelsError: A file is damaged, or a beta is missing, NaN or infinite.
        """
        return self._trials_of(subject).fmri_chunks()

    fmri_blocks = former_name("fmri_blocks", fmri_chunks, since="0.1")

    def matrix(self, subject: str) -> FmriMatrix:
        """A subject's betas as a memory-mapped matrix, written to the cache when it is first asked for."""
        return self._trials_of(subject).matrix

    def _trials_of(self, subject: str) -> TrialFiles:
        if subject not in self._trials:
            self._trials[subject] = TrialFiles(self.path, self._checked(subject), self.metadata, self.fingerprint)
        return self._trials[subject]

    def _checked(self, subject: str) -> str:
        if subject not in self.subjects:
            raise FmriModelsError(f"{self.path} has no subject {subject!r}; it has {listed(self.subjects, 20)}.")
        return subject

    def _split(self, name: str) -> Split:
        if name not in self._splits:
            path = self.path / schema.SPLITS_FOLDER / f"{name}.parquet"
            if not is_name(name) or not path.is_file():
                raise FmriModelsError(
                    f"{self.path} has no split {name!r}; it has {listed(self.split_names(), 20)}. "
                    "`fmri-models data split` makes others."
                )
            self._splits[name] = Split.read(path, self.subjects)
        return self._splits[name]


def _check_files(path: Path, files: Mapping[str, Mapping]) -> None:
    for name, recorded in files.items():
        file = path / name
        if not file.is_file():
            raise FmriModelsError(f"{path} lacks the file {name}; prepare the table again, or copy it again.")
        if file.stat().st_size != recorded["bytes"]:
            # A file that was not downloaded says more than its size.
            check_regular_file(file, "file of the table", MEND)
            raise FmriModelsError(
                f"{file} has {file.stat().st_size} bytes; expected {recorded['bytes']}: it is cut short or changed; "
                "prepare the table again, or copy it again."
            )


def _fingerprint(files: Mapping[str, Mapping]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        if not name.startswith(f"{schema.SPLITS_FOLDER}/"):
            digest.update(f"{name} {files[name]['sha256']}\n".encode())
    return digest.hexdigest()
