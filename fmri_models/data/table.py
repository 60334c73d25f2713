"""Reading a trial table."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import check_line, did_you_mean, file_name, is_name, listed, one_line
from ..plain_values import ShortRepr
from ..reading import check_regular_file, checked, parse_json
from ..saving import check_schema
from . import hub, parquet, schema
from .matrix import FmriMatrix
from .metadata import read_metadata
from .parquet import MEND, read_parquet
from .pictures import decode_picture

_VOXELS = schema.voxels_schema()
_VOXELS_OF_MORE = schema.voxels_schema(dropped=True)
_STIMULI = schema.stimuli_schema()
_SPLITS = schema.splits_schema("", None, "")
_STIMULUS_COLUMNS = ("stimulus_id", "captions", "category", "factors", "content_sha256")
_HASH = re.compile("[0-9a-f]{64}")
_MOST_MM = 1e6
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_VALUES_A_PIECE = 2**16


@dataclass(frozen=True, repr=False)
class Voxels(ShortRepr):
    """What is known of one subject's voxels, in the order of the betas' columns.

    Attributes:
        roi: (V,) labels, empty where a voxel is in no region.
        coordinates: (V, 3) float32 in mm, NaN where unknown; None if none is known.
        ncsnr: (V,) float32 noise-ceiling signal-to-noise ratio, or None.
        noise_ceiling: (V,) float32 share of explainable variance in the mean of `repetitions`, or None.
        source: Where the ceiling comes from; empty if there is none.
        repetitions: How many averaged repetitions the ceiling is for; 0 if there is none.
        space: The coordinates' space.
        source_columns: (V,) int64 which columns of the betas as they were recorded the voxels are, ascending; None
            where none were dropped.
        source_width: How many columns those had; None where none were dropped.
    """

    roi: list[str]
    coordinates: np.ndarray | None
    ncsnr: np.ndarray | None
    noise_ceiling: np.ndarray | None
    source: str
    repetitions: int
    space: str = ""
    source_columns: np.ndarray | None = None
    source_width: int | None = None


class TrialTable:
    """A trial table on disk. Opening reads `table.json` only; everything else comes when it is asked for.

    ```python
    table = TrialTable.open("my_table")
    trials = table.trials("subj01", "train")
    for rows, betas in trials.batches(64):  # betas: (b, V) float32
        pictures = table.stimuli.images(trials.stimulus_ids[rows])
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
        self._rows: dict[str, dict[str, np.ndarray]] = {}
        self._splits: dict[str, _Split] = {}
        self._matrices: dict[str, FmriMatrix] = {}

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
    ) -> str:
        """Uploads the table as a data set, with its card and all splits, in one commit.

        It then opens as `TrialTable.open("user/name")`, and `datasets.load_dataset("user/name")` reads it, too. Nothing
        else that lies in the folder goes along.

        Args:
            repo_id: `user/name`, or a name in your namespace; the repository is made where there is none.
            commit_message: First line of the commit.
            private: Whether a repository that is made is private.
            token: Token; None takes the one that is logged in.
            revision: Branch; None takes the main one.
            create_pr: Propose the commit instead of making it.
            commit_description: Further lines of the commit.

        Returns:
            Address of the commit.

        Raises:
            FmriModelsError: The Hub does not take it.
        """
        options = {"private": private, "token": token, "revision": revision, "create_pr": create_pr}
        message = commit_message or "Upload trial table"
        return hub.upload_table(
            self.path, self.metadata, repo_id, message, commit_description=commit_description, **options
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
        width = self.num_voxels(subject)
        with parquet.open_parquet(path, _VOXELS, columns=["index"], most_rows=schema.MAX_VOXELS) as file:
            kind = _VOXELS_OF_MORE if "source_index" in file.schema_arrow.names else _VOXELS
        columns = read_parquet(path, kind, most_rows=schema.MAX_VOXELS, nullable=_VOXELS.names[1:])
        if len(columns) != width:
            raise FmriModelsError(
                f"The voxels file of {subject} in {self.path} has {len(columns)} rows; {subject} has {width} voxels: "
                "expected one row a voxel; prepare the table again."
            )
        if not np.array_equal(columns["index"].to_numpy(), np.arange(width)):
            raise FmriModelsError(f"{one_line(path)}: the column index doesn't count from 0 to {width - 1}; {MEND}.")
        for name in ("roi", "space"):
            parquet.check_texts(columns[name], lambda text: check_line(text, "text of a voxel"))
        sources = sorted({source for source in parquet.text_list(columns["noise_ceiling_source"]) if source})
        if unknown := set(sources) - set(schema.NOISE_CEILING_SOURCES):
            raise FmriModelsError(
                f"{one_line(path)} has noise ceilings from {one_line(repr(min(unknown)))}; expected "
                f"{', '.join(schema.NOISE_CEILING_SOURCES)}; {MEND}."
            )
        repeated = columns["noise_ceiling_repetitions"].unique().drop_null()
        repetitions = [n for n in _numbers(repeated, path, "repetitions").tolist() if n]
        xyz = [_floats(columns[axis], path, axis, -_MOST_MM, _MOST_MM) for axis in "xyz"]
        spaces = parquet.text_list(columns["space"])
        return Voxels(
            roi=[label or "" for label in parquet.text_list(columns["roi"])],
            coordinates=None if any(a is None for a in xyz) else np.stack([a for a in xyz if a is not None], axis=1),
            ncsnr=_floats(columns["ncsnr"], path, "ncsnr", 0, _LARGEST_FLOAT),
            noise_ceiling=_floats(columns["noise_ceiling"], path, "noise_ceiling", 0, 1),
            source=sources[0] if sources else "",
            repetitions=repetitions[0] if repetitions else 0,
            space=spaces[0] or "",
            **(_source(columns, path) if kind is _VOXELS_OF_MORE else {}),
        )

    @cached_property
    def stimuli(self) -> "Stimuli":
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

    def with_split(self, name: str, rows: pa.Table) -> "TrialTable":
        """The same table with one more split, which is nowhere written.

        Args:
            name: Of the split; one that is there is hidden.
            rows: With the columns of a split file.
        """
        table = TrialTable(self.path, self.metadata)
        # What was read already is read-only and shared.
        table._rows, table._matrices = self._rows, self._matrices
        table._splits = {**self._splits, name: _Split(rows, self.path, self.subjects)}
        return table

    def with_exchanged_stimuli(self, partners: Mapping[str, str]) -> "TrialTable":
        """The same table in which the trials of some stimuli are those of others, which is nowhere written.

        Args:
            partners: Stimulus ▶ the one that its trials are of; one that isn't there keeps its trials.
        """
        table = TrialTable(self.path, self.metadata)
        table._splits, table._matrices = self._splits, self._matrices
        for subject in self.subjects:
            rows = self._trial_rows(subject)
            ids = [partners.get(stimulus, stimulus) for stimulus in rows["stimulus_id"].tolist()]
            table._rows[subject] = {**rows, "stimulus_id": np.array(ids, dtype=str)}
        return table

    def split_rows(self, split_name: str = schema.DEFAULT_SPLIT) -> pa.Table:
        """The rows of a split file: `fold, subject, trial, stimulus_id, split`."""
        return pa.table({name: self._split(split_name).columns[name] for name in _SPLITS.names})

    def split_fingerprint(self, split_name: str = schema.DEFAULT_SPLIT) -> str:
        """SHA-256 over the table's fingerprint and the rows of one split."""
        columns = self._split(split_name).columns
        digest = hashlib.sha256(self.fingerprint.encode())
        for name in _SPLITS.names:
            for text in _list_text(columns[name]):
                digest.update(text.encode())
        return digest.hexdigest()

    def trials(
        self,
        subject: str,
        split: str | Sequence[str] = schema.TRAIN,
        split_name: str = schema.DEFAULT_SPLIT,
        fold: int = 0,
    ) -> "Trials":
        """One subject's trials of one part of a split, in the order of the table's files.

        Args:
            subject: The subject's id.
            split: "train", "validation" or "test", or several of them.
            split_name: Which split.
            fold: Which of its folds.

        Raises:
            FmriModelsError: The subject, the part, the split or the fold isn't there. A part may be empty.
        """
        self._checked(subject)
        parts = [split] if isinstance(split, str) else list(split)
        if unknown := [part for part in parts if part not in schema.SPLITS]:
            raise FmriModelsError(
                f"There is no part {unknown[0]!r} of a split; known: {', '.join(schema.SPLITS)}."
                f"{did_you_mean(unknown[0], schema.SPLITS)}"
            )
        chosen = self._split(split_name)
        if not 0 <= fold < chosen.num_folds:
            raise FmriModelsError(f"The split {split_name!r} has {chosen.num_folds} folds (from 0); asked for {fold}.")
        numbers = chosen.trials(subject, parts, fold)
        rows = np.flatnonzero(np.isin(self._trial_rows(subject)["trial"], numbers))
        if len(rows) != len(numbers):
            raise FmriModelsError(
                f"The split {split_name!r} names {len(numbers) - len(rows)} trials of {subject} that {self.path} "
                "doesn't have; run `fmri-models data validate` on it."
            )
        return Trials(self, subject, rows)

    def all_trials(self, subject: str) -> "Trials":
        """One subject's trials, whatever part of a split they are in."""
        return Trials(self, subject, np.arange(len(self._trial_rows(subject)["trial"])))

    def shown(self) -> dict[tuple[str, int], str]:
        """The stimulus id of each trial, by subject and trial number."""
        return {
            (subject, int(trial)): str(stimulus)
            for subject in self.subjects
            for trial, stimulus in zip(
                *(self._trial_rows(subject)[key] for key in ("trial", "stimulus_id")), strict=True
            )
        }

    def noise_free(self, subject: str) -> tuple[list[str], np.ndarray] | None:
        """A simulated subject's responses without noise: stimulus ids and (n, V) float32; None for measured data."""
        path = self.path / schema.NOISE_FREE_FOLDER / file_name(self._checked(subject), ".parquet")
        if not path.exists():
            return None
        width = self.num_voxels(subject)
        kind = schema.noise_free_schema(width)
        columns = read_parquet(path, kind, columns=["stimulus_id"], most_rows=schema.MAX_STIMULI)
        parquet.check_names(columns["stimulus_id"], path, "stimulus id")
        ids = [str(stimulus) for stimulus in parquet.text_list(columns["stimulus_id"])]
        blocks = [np.zeros((0, width), dtype=np.float32)]
        blocks += parquet.fmri_blocks(path, width, kind, most_rows=len(ids))
        return ids, np.concatenate(blocks)

    def trial_files(self, subject: str) -> list[Path]:
        """A subject's Parquet files: train, validation, test, each in order."""
        prefix = f"{schema.TRIALS_FOLDER}/{self._checked(subject)}/"
        names = [name for name in self.metadata["files"] if name.startswith(prefix)]

        def order(name: str) -> tuple[int, str]:
            part = name.removeprefix(prefix)
            return schema.SPLITS.index(part.split("-")[0]), part

        return [self.path / name for name in sorted(names, key=order)]

    def fmri_blocks(self, subject: str) -> Iterator[np.ndarray]:
        """All of a subject's betas in the order of the files, as (rows, V) float16 or float32 blocks, as stored.

        Raises:
            FmriModelsError: A file is damaged, or a beta is missing, NaN or infinite.
        """
        for path in self.trial_files(subject):
            width = self.num_voxels(subject)
            yield from parquet.fmri_blocks(path, width, *_trial_kinds(width), most_rows=schema.MAX_TRIALS)

    def matrix(self, subject: str) -> FmriMatrix:
        """A subject's betas as a memory-mapped matrix, written to the cache when it is first asked for."""
        if subject not in self._matrices:
            rows = len(self._trial_rows(subject)["trial"])
            self._matrices[subject] = FmriMatrix.materialize(
                self.fingerprint,
                subject,
                (rows, self.num_voxels(subject)),
                lambda: self._checked_blocks(subject),
                np.float32 if self._needs_float32(subject) else np.float16,
            )
        return self._matrices[subject]

    def _checked_blocks(self, subject: str) -> Iterator[np.ndarray]:
        """Betas on their way to the cache, where they are found by the hashes that `table.json` says."""
        for path in self.trial_files(subject):
            name = path.relative_to(self.path).as_posix()
            if parquet.file_sha256(path) != self.metadata["files"][name]["sha256"]:
                raise FmriModelsError(
                    f"{one_line(path)} was changed: its SHA-256 is not the one in {schema.TABLE_FILE}; {MEND}."
                )
        yield from self.fmri_blocks(subject)

    def _needs_float32(self, subject: str) -> bool:
        kinds = _trial_kinds(self.num_voxels(subject))
        for path in self.trial_files(subject):
            with parquet.open_parquet(path, *kinds, columns=[schema.FMRI], most_rows=schema.MAX_TRIALS) as file:
                if file.schema_arrow.field(schema.FMRI).type.value_type != pa.float16():
                    return True
        return False

    def _trial_rows(self, subject: str) -> dict[str, np.ndarray]:
        if subject not in self._rows:
            self._rows[subject] = self._read_trial_rows(self._checked(subject))
        return self._rows[subject]

    def _read_trial_rows(self, subject: str) -> dict[str, np.ndarray]:
        columns, kinds = list(schema.TRIAL_COLUMNS), _trial_kinds(self.num_voxels(subject))
        parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
        counts = dict.fromkeys(schema.SPLITS, 0)
        for path in self.trial_files(subject):
            rows = read_parquet(path, *kinds, columns=columns, most_rows=schema.MAX_TRIALS)
            counts[path.name.split("-")[0]] += len(rows)
            if others := sorted(set(parquet.text_list(rows["subject"])) - {subject}, key=str):
                raise FmriModelsError(
                    f"{one_line(path)} has trials of {listed(others)}; expected {subject} only; {MEND}."
                )
            parquet.check_names(rows["stimulus_id"], path, "stimulus id")
            for name in columns:
                text = name in ("subject", "stimulus_id")
                what = f"{one_line(path)}: the column {name}"
                parts[name].append(
                    parquet.text_array(rows[name], what) if text else _numbers(rows[name], path, f"{name} numbers")
                )
        for part, expected in self.metadata["trials"][subject].items():
            if counts[part] != expected:
                raise FmriModelsError(
                    f"{subject} has {counts[part]} trials in {part}; {schema.TABLE_FILE} says {expected}; {MEND}."
                )
        found = {name: np.concatenate(values) if values else np.zeros(0) for name, values in parts.items()}
        numbers, times = np.unique(found["trial"], return_counts=True)
        if (times > 1).any():
            raise FmriModelsError(
                f"{subject} has {(times > 1).sum()} trial numbers more than once "
                f"({listed(numbers[times > 1])}) in {self.path}; {MEND}."
            )
        return found

    def _checked(self, subject: str) -> str:
        if subject not in self.subjects:
            raise FmriModelsError(f"{self.path} has no subject {subject!r}; it has {listed(self.subjects, 20)}.")
        return subject

    def _split(self, name: str) -> "_Split":
        if name not in self._splits:
            path = self.path / schema.SPLITS_FOLDER / f"{name}.parquet"
            if not is_name(name) or not path.is_file():
                raise FmriModelsError(
                    f"{self.path} has no split {name!r}; it has {listed(self.split_names(), 20)}. "
                    "`fmri-models data split` makes others."
                )
            rows = read_parquet(path, _SPLITS, most_rows=schema.MAX_SPLIT_ROWS)
            self._splits[name] = _Split(rows, path, self.subjects)
        return self._splits[name]


class Trials:
    """Trials of one subject: what was shown when, and the betas, read from a memory-mapped matrix.

    Attributes:
        table: The trial table.
        subject: The subject's id.
        stimulus_ids: (n,) str array.
        sessions: (n,) int32.
        runs: (n,) int32.
        trials: (n,) int32 trial numbers, unique within the subject.
        repetitions: (n,) int32, from 0.
    """

    def __init__(self, table: TrialTable, subject: str, matrix_rows: np.ndarray) -> None:
        self.table = table
        self.subject = subject
        self._matrix_rows = matrix_rows
        columns = table._trial_rows(subject)
        self.stimulus_ids = columns["stimulus_id"][matrix_rows]
        self.sessions = columns["session"][matrix_rows]
        self.runs = columns["run"][matrix_rows]
        self.trials = columns["trial"][matrix_rows]
        self.repetitions = columns["repetition"][matrix_rows]

    def __len__(self) -> int:
        return len(self._matrix_rows)

    def __repr__(self) -> str:
        return f"Trials({self.subject!r}, {len(self)} trials, {self.num_voxels} voxels)"

    @property
    def num_voxels(self) -> int:
        """How many voxels the subject has."""
        return self.table.num_voxels(self.subject)

    def fmri(self, rows: int | Sequence[int] | np.ndarray | slice | None = None) -> np.ndarray:
        """Betas of some trials, (n, V) float32, in the order asked for; of all trials without `rows`.

        Args:
            rows: Rows into this object, a boolean mask, or a slice; a number alone is one row, (1, V).

        Raises:
            FmriModelsError: Rows are no whole numbers.
        """
        chosen = self._matrix_rows if rows is None else self._matrix_rows[_indices(rows)]
        return self.table.matrix(self.subject).gather(chosen)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All trials in order: rows (b,) into this object and their betas (b, V) float32."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield rows, self.fmri(rows)

    def subset(self, rows: int | Sequence[int] | np.ndarray | slice) -> "Trials":
        """Some of these trials, by their rows, as of [`fmri`]."""
        return Trials(self.table, self.subject, self._matrix_rows[_indices(rows)])


class Stimuli:
    """The pictures of a table. Pictures are decoded when they are asked for; all else is read at once."""

    def __init__(self, table: TrialTable) -> None:
        self._folder = table.path / schema.STIMULI_FOLDER
        self._channels: int = table.metadata["image_channels"]
        names = sorted(n for n in table.metadata["files"] if n.startswith(f"{schema.STIMULI_FOLDER}/"))
        self._files = [table.path / name for name in names]
        self.ids: list[str] = []
        self._columns: dict[str, list] = {name: [] for name in _STIMULUS_COLUMNS}
        starts = [0]
        for path in self._files:
            self._read(path)
            starts.append(len(self.ids))
        self._row_of = {stimulus: row for row, stimulus in enumerate(self.ids)}
        self._file_starts = np.array(starts)
        if len(self._row_of) != len(self.ids):
            twice = [stimulus for row, stimulus in enumerate(self.ids) if self._row_of[stimulus] != row]
            raise FmriModelsError(
                f"{len(twice)} stimulus ids are there more than once ({listed(twice)}) in {table.path}; {MEND}."
            )

    def _read(self, path: Path) -> None:
        """Reads everything but the pictures of one file."""
        nullable = _STIMULUS_COLUMNS[1:]
        most = schema.MAX_STIMULI - len(self.ids)
        rows = read_parquet(path, _STIMULI, columns=_STIMULUS_COLUMNS, most_rows=most, nullable=nullable)
        parquet.check_names(rows["stimulus_id"], path, "stimulus id")
        parquet.check_texts(rows["category"], lambda text: check_line(text, "category of a stimulus"))
        parquet.check_texts(rows["content_sha256"], lambda text: _check_hash(text, path))
        for name in _STIMULUS_COLUMNS:
            self._columns[name] += (
                parquet.texts_list(rows[name], f"{one_line(path)}: the captions")
                if name == "captions"
                else parquet.text_list(rows[name])
            )
        self.ids = self._columns["stimulus_id"]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Stimuli({str(self._folder)!r}, {len(self)} pictures)"

    def __contains__(self, stimulus_id: object) -> bool:
        return stimulus_id in self._row_of

    def images(self, ids: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
        """Pictures, uint8 (N, H, W, C); C is 1 where all pictures of the table are grey, else 3.

        Raises:
            FmriModelsError: An id isn't there, a picture is missing, or sizes differ.
        """
        names = self.ids if ids is None else [str(stimulus) for stimulus in ids]
        rows = self.rows(names)
        decoded = {row: self._pixels(row, data) for row, data in self._encoded(sorted(set(rows)))}
        sizes = {pixels.shape[:2]: self.ids[row] for row, pixels in decoded.items()}
        if len(sizes) > 1:
            (first, a), (second, b), *_ = sizes.items()
            raise FmriModelsError(
                f"The pictures have several sizes (height x width of {a}: {first[0]}x{first[1]}, {b}: "
                f"{second[0]}x{second[1]}); prepare the table with pictures of one size, or with `--size PIXELS`."
            )
        if not rows:
            return np.zeros((0, 0, 0, self._channels), np.uint8)
        return np.stack([decoded[row] for row in rows])

    def encoded(self, ids: Sequence[str] | np.ndarray | None = None) -> Iterator[tuple[str, bytes | None]]:
        """Ids and the bytes of their image files (None where a picture is missing), in the table's order."""
        for row, data in self._encoded(sorted(set(self.rows(self.ids if ids is None else ids)))):
            yield self.ids[row], data

    def captions(self, ids: Sequence[str] | np.ndarray | None = None) -> list[list[str]]:
        """Captions of each stimulus, an empty list where there is none."""
        return [captions or [] for captions in self._values("captions", ids)]

    def categories(self, ids: Sequence[str] | np.ndarray | None = None) -> list[str | None]:
        """The category of each stimulus, None where it is unknown."""
        return self._values("category", ids)

    def factors(self, ids: Sequence[str] | np.ndarray | None = None) -> list[dict | None]:
        """What a drawn picture was drawn from (kind, colour, place ...), None where it is unknown."""
        return [None if text is None else self._parsed(text) for text in self._values("factors", ids)]

    def _parsed(self, text: str) -> dict:
        values = parse_json(text, f"The factors {one_line(repr(text), 80)} of a stimulus in {self._folder}", MEND)
        if not isinstance(values, dict):
            raise FmriModelsError(
                f"A stimulus in {self._folder} has the factors {one_line(repr(text), 80)}; expected a JSON object; "
                f"{MEND}."
            )
        return values

    def content_hashes(self, ids: Sequence[str] | np.ndarray | None = None) -> list[str | None]:
        """SHA-256 of each picture's pixels, None where the picture is missing."""
        return self._values("content_sha256", ids)

    def _values(self, column: str, ids: Sequence[str] | np.ndarray | None) -> list:
        values = self._columns[column]
        return list(values) if ids is None else [values[row] for row in self.rows(ids)]

    def rows(self, ids: Sequence[str] | np.ndarray) -> list[int]:
        """Positions of some stimuli in the table's order, in which targets are cached too.

        Raises:
            FmriModelsError: An id isn't there.
        """
        if unknown := [stimulus for stimulus in ids if str(stimulus) not in self._row_of]:
            raise FmriModelsError(
                f"The table has no {len(unknown)} of the {len(ids)} stimuli asked for ({listed(unknown)})."
            )
        return [self._row_of[str(stimulus)] for stimulus in ids]

    def _pixels(self, row: int, data: bytes | None) -> np.ndarray:
        if data is None:
            raise FmriModelsError(
                f"The picture of stimulus {self.ids[row]} is missing from the table (its source doesn't allow it to be "
                "copied, or it wasn't there); prepare the table from a source that has it."
            )
        pixels = decode_picture(data, f"stimulus {self.ids[row]}")
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] < self._channels else pixels

    def _encoded(self, rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        """Bytes of some pictures; `rows` ascend, so that each row group is read once."""
        wanted = np.asarray(rows, dtype=np.int64)
        for index, path in enumerate(self._files):
            start, stop = self._file_starts[index], self._file_starts[index + 1]
            inside = wanted[(wanted >= start) & (wanted < stop)] - start
            if len(inside):
                for row, data in parquet.pictures(path, _STIMULI, inside, most_rows=schema.MAX_STIMULI):
                    yield int(start) + row, data


class _Split:
    """One split: its rows, and how it was made.

    Args:
        rows: With the columns of a split file.
        path: The file, for messages.
        subjects: Of the table.
    """

    def __init__(self, rows: pa.Table, path: Path, subjects: Sequence[str]) -> None:
        self.how = _split_how(rows.schema.metadata or {}, path)
        self.repeats_stimuli = self.how.repeats_stimuli
        _check_among(rows["split"], schema.SPLITS, path, "the part")
        _check_among(rows["subject"], subjects, path, "the subject")
        parquet.check_names(rows["stimulus_id"], path, "stimulus id")
        self.columns: dict[str, np.ndarray] = {}
        for name in _SPLITS.names:
            if name in ("fold", "trial"):
                most = schema.MAX_FOLDS - 1 if name == "fold" else schema.MAX_INT32
                self.columns[name] = _numbers(rows[name], path, f"{name} numbers", most)
            else:
                self.columns[name] = parquet.text_array(rows[name], f"{one_line(path)}: the column {name}")
        folds = np.unique(self.columns["fold"])
        self.num_folds = len(folds)
        if self.num_folds and folds[-1] != self.num_folds - 1:
            raise FmriModelsError(
                f"The split {one_line(path)} has the fold {folds[-1]} but {self.num_folds} folds in all; expected them "
                "to count from 0; make the split again."
            )
        self._check_trials_once(path)

    def _check_trials_once(self, path: Path) -> None:
        """Refuses a trial that is twice in a fold, where it could be both learned from and tested."""
        fold, subject, trial = (self.columns[name] for name in ("fold", "subject", "trial"))
        names, numbers = np.unique(subject, return_inverse=True)
        keys = (fold.astype(np.int64) * len(names) + numbers) * (schema.MAX_INT32 + 1) + trial
        order = np.argsort(keys, kind="stable")
        twice = order[1:][np.diff(keys[order]) == 0]
        if len(twice):
            row = twice[0]
            raise FmriModelsError(
                f"The split {one_line(path)} has trial {trial[row]} of {subject[row]} twice in fold {fold[row]}; make "
                "the split again."
            )

    def trials(self, subject: str, parts: Sequence[str], fold: int) -> np.ndarray:
        columns = self.columns
        chosen = (columns["fold"] == fold) & (columns["subject"] == subject) & np.isin(columns["split"], parts)
        return columns["trial"][chosen]


@dataclass(frozen=True)
class _How:
    """How a split was made; other keys say to which table it belongs."""

    by: str = ""
    seed: int | None = None
    repeats_stimuli: str = ""


def _split_how(about: Mapping[bytes, bytes], path: Path) -> _How:
    what = f"What the split {one_line(path)} says of itself"
    try:
        text = about.get(b"fmri_models", b"{}").decode("utf-8")
    except UnicodeDecodeError as error:
        raise FmriModelsError(f"{what} is no text in UTF-8; make the split again.") from error
    values = parse_json(text, what, "make the split again")
    if not isinstance(values, dict):
        raise FmriModelsError(f"{what} is no JSON object; make the split again.")
    check_schema(values.get("schema"), schema.SCHEMA_VERSION, f"The split {one_line(path)}")
    known = {key: values[key] for key in ("by", "seed", "repeats_stimuli") if key in values}
    return checked(known, _How, what, "make the split again")


def _check_among(column: pa.ChunkedArray, known: Sequence[str], path: Path, what: str) -> None:
    def check(text: str) -> None:
        if text not in known:
            raise FmriModelsError(
                f"The split {one_line(path)} has {what} {one_line(repr(text))}; expected one of "
                f"{listed(known, 20)}; make the split again."
            )

    parquet.check_texts(column, check)


def _list_text(values: np.ndarray) -> Iterator[str]:
    """The text of a list of some values, in pieces: of all at once it would take gigabytes."""
    yield "["
    for start in range(0, len(values), _VALUES_A_PIECE):
        yield ", " * (start > 0) + repr(values[start : start + _VALUES_A_PIECE].tolist())[1:-1]
    yield "]"


def _source(columns: pa.Table, path: Path) -> dict[str, Any]:
    """Which columns of how many the voxels of a subject were, some of which were dropped."""
    index, widths = columns["source_index"].to_numpy(), np.unique(columns["source_width"].to_numpy())
    wide = len(widths) == 1 and len(index) < widths[0] <= schema.MAX_VOXELS
    if not wide or index[0] < 0 or index[-1] >= widths[0] or (np.diff(index) < 1).any():
        raise FmriModelsError(
            f"{one_line(path)}: source_index and source_width don't say which columns of a wider array were kept, in "
            f"their order; {MEND}."
        )
    return {"source_columns": index.astype(np.int64), "source_width": int(widths[0])}


def _trial_kinds(num_voxels: int) -> list[pa.Schema]:
    return [schema.trials_schema(num_voxels, dtype) for dtype in (np.float16, np.float32)]


def _check_hash(text: str, path: Path) -> None:
    if not _HASH.fullmatch(text):
        raise FmriModelsError(
            f"{one_line(path)} has the content_sha256 {one_line(repr(text), 80)}; expected 64 hexadecimal digits; "
            f"{MEND}."
        )


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


def _numbers(column: pa.ChunkedArray, path: Path, what: str, most: int = schema.MAX_INT32) -> np.ndarray:
    """A column of whole numbers from 0."""
    values = column.to_numpy()
    if len(values) and (values.min() < 0 or values.max() > most):
        raise FmriModelsError(
            f"{one_line(path)} has {what} from {values.min()} to {values.max()}; expected 0 to {most}; {MEND}."
        )
    return values


def _floats(column: pa.ChunkedArray, path: Path, what: str, least: float, most: float) -> np.ndarray | None:
    """Values with NaN for null; None if all are null."""
    if column.null_count == len(column):
        return None
    known = column.drop_null().to_numpy()
    if not ((known >= least) & (known <= most)).all():
        raise FmriModelsError(
            f"{one_line(path)} has values in the column {what} that are not from {least:g} to {most:g}; {MEND}."
        )
    return column.to_numpy().astype(np.float32)


def _indices(rows: int | Sequence[int] | np.ndarray | slice) -> np.ndarray | slice:
    if isinstance(rows, slice):
        return rows
    array = np.atleast_1d(np.asarray(rows))
    # An empty list is float64 to NumPy.
    if array.size and array.dtype.kind not in "biu":
        raise FmriModelsError(
            f"Rows of trials are {one_line(repr(rows), 80)}; expected whole numbers from 0, a boolean mask, or a slice."
        )
    return array if array.dtype == bool else array.astype(np.int64)
