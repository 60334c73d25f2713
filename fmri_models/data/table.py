"""Reading a trial table."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import FmriModelsError
from ..saving import check_schema
from . import schema
from .matrix import FmriMatrix
from .pictures import decode_picture


@dataclass(frozen=True)
class Voxels:
    """What is known of one subject's voxels, in the order of the betas' columns.

    Attributes:
        roi: (V,) labels, empty where a voxel is in no region.
        coordinates: (V, 3) float32 in mm, NaN where unknown; None if none is known.
        ncsnr: (V,) float32 noise-ceiling signal-to-noise ratio, or None.
        noise_ceiling: (V,) float32 share of explainable variance in the mean of `repetitions`, or None.
        source: Where the ceiling comes from; empty if there is none.
        repetitions: How many averaged repetitions the ceiling is for; 0 if there is none.
        space: The coordinates' space.
    """

    roi: list[str]
    coordinates: np.ndarray | None
    ncsnr: np.ndarray | None
    noise_ceiling: np.ndarray | None
    source: str
    repetitions: int
    space: str = ""


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

    def __init__(self, path: Path, metadata: dict) -> None:
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
    def open(cls, path: str | Path) -> "TrialTable":
        """Opens a trial table.

        Raises:
            FmriModelsError: There is no table, it was written by a newer version, or files are missing or cut short.
        """
        path = Path(path)
        if not path.is_dir():
            what = "is a file, not a folder" if path.exists() else "does not exist"
            raise FmriModelsError(f"The trial table {path} {what}; give the folder that `prepare` or `simulate` wrote.")
        metadata = read_metadata(path)
        _check_files(path, metadata["files"])
        return cls(path, metadata)

    def __repr__(self) -> str:
        return f"TrialTable({str(self.path)!r}, subjects={self.subjects})"

    def num_voxels(self, subject: str) -> int:
        """How many voxels a subject has."""
        return self.metadata["num_voxels"][self._checked(subject)]

    def voxels(self, subject: str) -> Voxels:
        """ROI, position and noise ceiling of a subject's voxels."""
        columns = read_parquet(self.path / schema.VOXELS_FOLDER / f"{self._checked(subject)}.parquet")
        if len(columns) != self.num_voxels(subject):
            raise FmriModelsError(
                f"The voxels file of {subject} in {self.path} has {len(columns)} rows; expected "
                f"{self.num_voxels(subject)}, one a voxel; prepare the table again."
            )
        xyz = [_floats(columns[axis]) for axis in "xyz"]
        sources = [source for source in columns["noise_ceiling_source"].unique().to_pylist() if source]
        repetitions = [n for n in columns["noise_ceiling_repetitions"].unique().to_pylist() if n]
        return Voxels(
            roi=[label or "" for label in columns["roi"].to_pylist()],
            coordinates=None if any(a is None for a in xyz) else np.stack([a for a in xyz if a is not None], axis=1),
            ncsnr=_floats(columns["ncsnr"]),
            noise_ceiling=_floats(columns["noise_ceiling"]),
            source=sources[0] if sources else "",
            repetitions=repetitions[0] if repetitions else 0,
            space=(columns["space"][0].as_py() or "") if len(columns) else "",
        )

    @cached_property
    def stimuli(self) -> "Stimuli":
        """The pictures that were shown, with captions and categories."""
        return Stimuli(self)

    def split_names(self) -> list[str]:
        """Names of the splits, the default one first."""
        names = sorted(path.stem for path in (self.path / schema.SPLITS_FOLDER).glob("*.parquet"))
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
        table._splits = {**self._splits, name: _Split.of_rows(rows)}
        return table

    def split_fingerprint(self, split_name: str = schema.DEFAULT_SPLIT) -> str:
        """SHA-256 over the table's fingerprint and the rows of one split."""
        columns = self._split(split_name).columns
        digest = hashlib.sha256(self.fingerprint.encode())
        for name in schema.splits_schema("", None, "").names:
            digest.update(repr(columns[name].tolist()).encode())
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
            raise FmriModelsError(f"There is no part {unknown[0]!r} of a split; known: {', '.join(schema.SPLITS)}.")
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
        path = self.path / schema.NOISE_FREE_FOLDER / f"{self._checked(subject)}.parquet"
        if not path.exists():
            return None
        columns = read_parquet(path)
        return columns["stimulus_id"].to_pylist(), self._fmri_of(path, columns)

    def trial_files(self, subject: str) -> list[Path]:
        """A subject's Parquet files: train, validation, test, each in order."""
        prefix = f"{schema.TRIALS_FOLDER}/{self._checked(subject)}/"
        names = [name for name in self.metadata["files"] if name.startswith(prefix)]

        def order(name: str) -> tuple[int, str]:
            part = name.removeprefix(prefix)
            return schema.SPLITS.index(part.split("-")[0]), part

        return [self.path / name for name in sorted(names, key=order)]

    def fmri_blocks(self, subject: str) -> Iterator[np.ndarray]:
        """All of a subject's betas in the order of the files, as (rows, V) float16 or float32 blocks, as stored."""
        for path in self.trial_files(subject):
            with open_parquet(path) as file:
                for group in range(file.num_row_groups):
                    with _naming(path):
                        columns = file.read_row_group(group, columns=[schema.FMRI])
                    yield self._fmri_of(path, columns, self.num_voxels(subject))

    def matrix(self, subject: str) -> FmriMatrix:
        """A subject's betas as a memory-mapped matrix, written to the cache when it is first asked for."""
        if subject not in self._matrices:
            rows = len(self._trial_rows(subject)["trial"])
            self._matrices[subject] = FmriMatrix.materialize(
                self.fingerprint,
                subject,
                (rows, self.num_voxels(subject)),
                lambda: self.fmri_blocks(subject),
                scale=self._needs_float32(subject),
            )
        return self._matrices[subject]

    def _needs_float32(self, subject: str) -> bool:
        for path in self.trial_files(subject):
            with open_parquet(path) as file:
                if file.schema_arrow.field(schema.FMRI).type.value_type != pa.float16():
                    return True
        return False

    def _fmri_of(self, path: Path, columns: pa.Table, num_voxels: int | None = None) -> np.ndarray:
        expected = columns.schema.field(schema.FMRI).type.list_size if num_voxels is None else num_voxels
        try:
            return schema.fmri_matrix(columns[schema.FMRI], expected)
        except FmriModelsError as error:
            raise FmriModelsError(f"{path}: {error}") from error

    def _trial_rows(self, subject: str) -> dict[str, np.ndarray]:
        if subject not in self._rows:
            columns = list(schema.TRIAL_COLUMNS)
            parts = [read_parquet(path, columns) for path in self.trial_files(self._checked(subject))]
            table = pa.concat_tables([part.replace_schema_metadata() for part in parts])
            self._rows[subject] = {name: _array(table[name]) for name in columns}
        return self._rows[subject]

    def _checked(self, subject: str) -> str:
        if subject not in self.subjects:
            raise FmriModelsError(f"{self.path} has no subject {subject!r}; it has {schema.listed(self.subjects, 20)}.")
        return subject

    def _split(self, name: str) -> "_Split":
        if name not in self._splits:
            path = self.path / schema.SPLITS_FOLDER / f"{name}.parquet"
            if not path.is_file():
                raise FmriModelsError(
                    f"{self.path} has no split {name!r}; it has {schema.listed(self.split_names(), 20)}. "
                    "`fmri-models data split` makes others."
                )
            self._splits[name] = _Split.read(path)
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

    def fmri(self, rows: Sequence[int] | np.ndarray | slice | None = None) -> np.ndarray:
        """Betas of some trials, (n, V) float32, in the order asked for; of all trials without `rows`."""
        chosen = self._matrix_rows if rows is None else self._matrix_rows[_indices(rows)]
        return self.table.matrix(self.subject).gather(chosen)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All trials in order: rows (b,) into this object and their betas (b, V) float32."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield rows, self.fmri(rows)

    def subset(self, rows: Sequence[int] | np.ndarray | slice) -> "Trials":
        """Some of these trials, by their rows (or a boolean mask)."""
        return Trials(self.table, self.subject, self._matrix_rows[_indices(rows)])


class Stimuli:
    """The pictures of a table. Pictures are decoded when they are asked for; all else is read at once."""

    def __init__(self, table: TrialTable) -> None:
        self._folder = table.path / schema.STIMULI_FOLDER
        self._channels: int = table.metadata["image_channels"]
        names = sorted(n for n in table.metadata["files"] if n.startswith(f"{schema.STIMULI_FOLDER}/"))
        self._files = [table.path / name for name in names]
        columns = ["stimulus_id", "captions", "category", "factors", "content_sha256"]
        parts = [read_parquet(path, columns) for path in self._files]
        rows = pa.concat_tables([part.replace_schema_metadata() for part in parts])
        self.ids: list[str] = rows["stimulus_id"].to_pylist()
        self._columns = {name: rows[name].to_pylist() for name in columns}
        self._row_of = {stimulus: row for row, stimulus in enumerate(self.ids)}
        self._file_starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return len(self.ids)

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
                f"The pictures have several sizes ({a}: {first[0]}x{first[1]}, {b}: {second[0]}x{second[1]}); prepare "
                "the table with pictures of one size."
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
        return [None if text is None else json.loads(text) for text in self._values("factors", ids)]

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
                f"The table has no {len(unknown)} of the {len(ids)} stimuli asked for ({schema.listed(unknown)})."
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
                for row, data in _pictures_of(path, inside):
                    yield int(start) + row, data


class _Split:
    """One split file."""

    def __init__(self, columns: dict[str, np.ndarray], how: Mapping) -> None:
        self.columns = columns
        self.how = how
        self.repeats_stimuli: str = how.get("repeats_stimuli", "")
        self.num_folds = int(columns["fold"].max()) + 1 if len(columns["fold"]) else 0

    @classmethod
    def read(cls, path: Path) -> "_Split":
        rows = read_parquet(path)
        if missing := set(schema.splits_schema("", None, "").names) - set(rows.column_names):
            raise FmriModelsError(f"{path} has no column {sorted(missing)[0]!r}; make the split again.")
        split = cls.of_rows(rows)
        check_schema(split.how.get("schema"), schema.SCHEMA_VERSION, f"The split {path}")
        return split

    @classmethod
    def of_rows(cls, rows: pa.Table) -> "_Split":
        how = json.loads((rows.schema.metadata or {}).get(b"fmri_models", b"{}"))
        return cls({name: _array(rows[name]) for name in schema.splits_schema("", None, "").names}, how)

    def trials(self, subject: str, parts: Sequence[str], fold: int) -> np.ndarray:
        columns = self.columns
        chosen = (columns["fold"] == fold) & (columns["subject"] == subject) & np.isin(columns["split"], parts)
        return columns["trial"][chosen]


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a Parquet file of a table.

    Raises:
        FmriModelsError: The file is missing or broken, or has no such column.
    """
    with open_parquet(path) as file, _naming(path):
        if missing := set(columns or ()) - set(file.schema_arrow.names):
            raise FmriModelsError(f"{path} has no column {sorted(missing)[0]!r}; prepare the table again.")
        return file.read(columns=columns)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Opens a Parquet file of a table.

    Raises:
        FmriModelsError: The file is missing or broken.
    """
    with _naming(path):
        return pq.ParquetFile(path)


class _naming:  # noqa: N801 (used like a function)
    """Turns what Arrow raises on a broken file into a sentence that names it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (pa.ArrowException, OSError)):
            raise FmriModelsError(
                f"{self._path} can't be read ({str(error).splitlines()[0]}); it is missing, cut short or damaged: "
                "prepare the table again, or copy it again."
            ) from error


def _pictures_of(path: Path, rows: np.ndarray) -> Iterator[tuple[int, bytes | None]]:
    with open_parquet(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            inside = rows[(rows >= start) & (rows < stop)]
            if len(inside):
                with _naming(path):
                    images = file.read_row_group(group, columns=["image"])["image"]
                for row in inside:
                    struct = images[int(row) - start].as_py()
                    yield int(row), None if struct is None else struct["bytes"]
            start = stop


def read_metadata(path: Path) -> dict:
    """What `table.json` says.

    Raises:
        FmriModelsError: It is missing or broken, or was written by a newer version.
    """
    file = path / schema.TABLE_FILE
    if not file.is_file():
        raise FmriModelsError(
            f"{path} has no {schema.TABLE_FILE}, so it is no trial table; give the folder that `prepare` or `simulate` "
            "wrote."
        )
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FmriModelsError(f"{file} is no JSON ({error}); prepare the table again.") from error
    if not isinstance(metadata, dict):
        raise FmriModelsError(f"{file} holds no JSON object; prepare the table again.")
    check_schema(metadata.get("schema"), schema.SCHEMA_VERSION, f"The trial table {path}")
    needed = ("name", "simulated", "subjects", "num_voxels", "trials", "image_channels", "files")
    if missing := [key for key in needed if key not in metadata]:
        raise FmriModelsError(f"{file} has no {missing[0]!r}; prepare the table again.")
    return metadata


def _check_files(path: Path, files: Mapping[str, Mapping]) -> None:
    for name, recorded in files.items():
        file = path / name
        if not file.is_file():
            raise FmriModelsError(f"{path} lacks the file {name}; prepare the table again, or copy it again.")
        if file.stat().st_size != recorded["bytes"]:
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


def _array(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=np.str_)
    return column.to_numpy()


def _floats(column: pa.ChunkedArray) -> np.ndarray | None:
    """Values with NaN for null; None if all are null."""
    if column.null_count == len(column):
        return None
    return column.cast(pa.float32()).to_numpy().astype(np.float32)


def _indices(rows: Sequence[int] | np.ndarray | slice) -> np.ndarray | slice:
    if isinstance(rows, slice):
        return rows
    array = np.asarray(rows)
    # An empty list is float64 to NumPy.
    return array if array.dtype == bool else array.astype(np.int64)
