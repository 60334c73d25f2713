"""The file of a processor's statistics: checked on reading, the same bytes on writing."""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import FmriModelsError, system_sentence
from ..names import one_line
from ..reading import check_regular_file
from .image_grid import ImageGrid
from .options import BY_GROUP
from .subject_statistics import SubjectStatistics

# In the format of safetensors, under a name that diffusers does not take for weights of another format.
STATISTICS_FILE = "fmri_statistics.st"
FORMER_STATISTICS_FILE = "fmri_statistics.safetensors"

_MEND = "save the processor again, or take another copy of its folder"
_MAX_VOXELS = 2**27
# Tensor of a subject ▶ type and number of axes.
_LAYOUT = {
    "num_voxels": ("I64", 1),
    "selected": ("I64", 1),
    "mean": ("F32", 2),
    "std": ("F32", 2),
    "sessions": ("I64", 1),
    "roi_codes": ("I32", 1),
    "roi_names": ("U8", 1),
    "coordinates": ("F32", 2),
    "pooled": ("F32", 2),
    "pooled_sessions": ("I64", 1),
    "source_width": ("I64", 1),
    "source_columns": ("I64", 1),
    "grid_shape": ("I64", 1),
    "grid_affine": ("F64", 2),
    "grid_sha256": ("U8", 1),
}
_OF_GRIDS = ("grid_shape", "grid_affine", "grid_sha256")
_OPTIONAL = ("coordinates", "pooled", "pooled_sessions", "source_width", "source_columns", *_OF_GRIDS)
# From so many voxels on, means of real data that are all alike are damage.
_VOXELS_THAT_DIFFER = 8


def statistics_bytes(subjects: Sequence[SubjectStatistics]) -> bytes:
    """The file of some subjects' statistics; equal statistics make equal bytes.

    Args:
        subjects: In the order of the processor's `subject_names`.
    """
    tensors: dict[str, np.ndarray] = {}
    for index, statistics in enumerate(subjects):
        names, codes = np.unique(np.array(statistics.roi, dtype=str), return_inverse=True)
        tensors[f"{index}.num_voxels"] = np.array([statistics.num_voxels], dtype=np.int64)
        tensors[f"{index}.selected"] = statistics.selected.astype(np.int64)
        tensors[f"{index}.mean"] = np.ascontiguousarray(statistics.mean)
        tensors[f"{index}.std"] = np.ascontiguousarray(statistics.std)
        tensors[f"{index}.sessions"] = np.array(statistics.sessions, dtype=np.int64)
        tensors[f"{index}.roi_codes"] = codes.astype(np.int32)
        tensors[f"{index}.roi_names"] = np.frombuffer("\n".join(names).encode() or b"\n", dtype=np.uint8).copy()
        if statistics.coordinates is not None:
            tensors[f"{index}.coordinates"] = np.ascontiguousarray(statistics.coordinates)
        if statistics.pooled is not None:
            tensors[f"{index}.pooled"] = np.ascontiguousarray(statistics.pooled)
        if statistics.pooled_sessions:
            tensors[f"{index}.pooled_sessions"] = np.array(statistics.pooled_sessions, dtype=np.int64)
        if statistics.source_columns is not None:
            tensors[f"{index}.source_width"] = np.array([statistics.source_width], dtype=np.int64)
            tensors[f"{index}.source_columns"] = statistics.source_columns.astype(np.int64)
        if statistics.grid is not None:
            tensors[f"{index}.grid_shape"] = np.array(statistics.grid.shape, dtype=np.int64)
            tensors[f"{index}.grid_affine"] = np.ascontiguousarray(statistics.grid.affine, dtype=np.float64)
            tensors[f"{index}.grid_sha256"] = np.frombuffer(statistics.grid.sha256.encode(), dtype=np.uint8).copy()
    # A single key, because several are written in a random order.
    return save(tensors, metadata={"format": "np"})


def digest(data: bytes) -> str:
    """What the processor's configuration says of the file, so that a changed one is noticed."""
    return hashlib.sha256(data).hexdigest()


def statistics_file(folder: str | os.PathLike) -> Path:
    """The file of a folder, under its name or its former one."""
    former = Path(folder) / FORMER_STATISTICS_FILE
    current = Path(folder) / STATISTICS_FILE
    return former if former.is_file() and not current.exists() else current


def read_statistics(
    path: Path, subject_names: Sequence[str], statistics: str, sha256: str | None = None
) -> dict[str, SubjectStatistics]:
    """The statistics of a processor's subjects, if they can be those of training trials.

    Args:
        path: The file.
        subject_names: The processor's subjects.
        statistics: `"pooled"`, `"session"`, `"run"` …, as the processor's configuration says.
        sha256: Digest of the file, as the configuration says; None where an older version wrote it.

    Raises:
        FmriModelsError: The file is missing, was changed, or holds no statistics of these subjects: names the first
            that is wrong.
    """
    if not os.path.lexists(path):
        raise FmriModelsError(f"{path} is missing; download or save the processor's whole folder again.")
    check_regular_file(path, "file of the processor's statistics", _MEND)
    try:
        with safe_open(path, framework="np") as file:
            _check_layout(file, path, len(subject_names))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        found = None if sha256 is None else digest(path.read_bytes())
    except SafetensorError as error:
        raise FmriModelsError(f"{path} is damaged ({one_line(error, 120)}); {_MEND}.") from error
    except (OSError, MemoryError) as error:
        raise FmriModelsError(system_sentence(error, path)) from error
    if found != sha256:
        raise FmriModelsError(
            f"{path} is not the file that the processor was saved with (its SHA-256 begins with {str(found)[:12]} and "
            f"should with {one_line(sha256, 12)}); {_MEND}."
        )
    verified = sha256 is not None
    return {
        name: _Reader(path, name, index, tensors, statistics, verified).subject_statistics()
        for index, name in enumerate(subject_names)
    }


def _check_layout(file: Any, path: Path, num_subjects: int) -> None:
    """Refuses other tensors than those of the subjects, before any is read."""
    names = set(file.keys())
    expected = {f"{index}.{tensor}" for index in range(num_subjects) for tensor in _LAYOUT}
    needed = {name for name in expected if name.split(".")[1] not in _OPTIONAL}
    if missing := sorted(needed - names):
        raise FmriModelsError(f"{path} has no {missing[0]}, of {num_subjects} subjects' statistics; {_MEND}.")
    if unknown := sorted(names - expected):
        raise FmriModelsError(
            f"{path} has {one_line(unknown[0], 80)!r}, which belongs to none of {num_subjects} subjects; {_MEND}."
        )
    for name in sorted(names):
        stored = file.get_slice(name)
        dtype, num_axes = _LAYOUT[name.split(".")[1]]
        found, shape = stored.get_dtype(), stored.get_shape()
        if (found, len(shape)) != (dtype, num_axes):
            raise FmriModelsError(
                f"{path} has {name} as {found} of the shape {tuple(shape)}; expected {dtype} with {num_axes} "
                f"ax{'i' if num_axes == 1 else 'e'}s; {_MEND}."
            )


class _Reader:
    """Reads the tensors of one subject."""

    def __init__(
        self, path: Path, name: str, index: int, tensors: Mapping[str, np.ndarray], statistics: str, verified: bool
    ) -> None:
        self.path, self.name, self.index, self.tensors = path, name, index, tensors
        self.statistics, self.verified = statistics, verified

    def subject_statistics(self) -> SubjectStatistics:
        num_voxels = self._num_voxels()
        selected = self._selected(num_voxels)
        sessions = self._sessions()
        mean, std = self._values(len(sessions), len(selected))
        source_width, source_columns = self._source(num_voxels)
        return SubjectStatistics(
            num_voxels=num_voxels,
            selected=selected,
            mean=mean,
            std=std,
            sessions=sessions,
            roi=self._roi(num_voxels),
            coordinates=self._coordinates(num_voxels),
            pooled=self._pooled(len(selected)),
            pooled_sessions=self._pooled_sessions(sessions),
            source_width=source_width,
            source_columns=source_columns,
            grid=self._grid(source_width or num_voxels),
        )

    def _num_voxels(self) -> int:
        values = self._tensor("num_voxels")
        if len(values) != 1 or not 1 <= values[0] <= _MAX_VOXELS:
            raise self._error("num_voxels", f"is {one_line(values.tolist(), 60)}", f"one number, 1 to {_MAX_VOXELS}")
        return int(values[0])

    def _selected(self, num_voxels: int) -> np.ndarray:
        selected = self._tensor("selected")
        if not len(selected) or selected[0] < 0 or selected[-1] >= num_voxels or (np.diff(selected) < 1).any():
            expected = f"ascending indices of voxels, from 0 to {num_voxels - 1}, each once"
            raise self._error("selected", "has others", expected)
        return selected

    def _sessions(self) -> list[int]:
        sessions = [int(session) for session in self._tensor("sessions")]
        if self.statistics in BY_GROUP and not sessions:
            raise self._error("sessions", "is empty", "the session of each row of the mean")
        if self.statistics not in BY_GROUP and sessions:
            raise self._error("sessions", f"has {len(sessions)} sessions", f'none, for statistics="{self.statistics}"')
        if len(set(sessions)) != len(sessions):
            raise self._error("sessions", "has a session twice", "each once")
        return sessions

    def _values(self, num_sessions: int, num_selected: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (num_sessions or 1, num_selected)
        for tensor in ("mean", "std"):
            values = self._tensor(tensor)
            if values.shape != shape:
                raise self._error(tensor, f"has the shape {values.shape}", f"{shape}, sessions and selected voxels")
            if not np.isfinite(values).all():
                raise self._error(tensor, "has values that are NaN or infinite", "finite ones")
        mean, std = self._tensor("mean"), self._tensor("std")
        if (std < 0).any():
            raise self._error("std", f"has negative values, such as {std.min():g}", "0 or more")
        if self.statistics == "identity":
            if (mean != 0).any() or (std != 1).any():
                raise self._error("mean and std", "change betas", 'mean 0 and std 1, for statistics="identity"')
        elif self.statistics == "scalar" and ((mean != mean[:, :1]).any() or (std != std[:, :1]).any()):
            raise self._error("mean and std", "differ between voxels", 'one number each, for statistics="scalar"')
        else:
            self._check_spread(mean, std)
        return mean, std

    def _check_spread(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Refuses what no data give: no voxel with variance, the same mean in all voxels, or the same spread."""
        if not std.any():
            raise self._error("std", "is 0 in all voxels", "a spread above 0 where a voxel responds")
        # Betas that are centred or scaled exactly have such statistics; a file with its digest holds what was saved.
        if self.verified or self.statistics == "scalar" or std.shape[1] < _VOXELS_THAT_DIFFER:
            return
        for tensor, values in (("mean", mean), ("std", std)):
            constant = (values == values[:, :1]).all(axis=1)
            # Betas that were standardised before have a spread of 1 to the last digit.
            if tensor == "std":
                constant &= np.abs(values[:, 0] - 1) > 1e-3
            if constant.any():
                value = values[int(np.flatnonzero(constant)[0]), 0]
                raise self._error(
                    tensor, f"is {value:g} in all of {values.shape[1]} voxels", "values of the training trials"
                )

    def _roi(self, num_voxels: int) -> list[str]:
        codes = self._tensor("roi_codes")
        try:
            names = self._tensor("roi_names").tobytes().decode().split("\n")
        except UnicodeDecodeError as error:
            raise self._error("roi_names", "is no text", "names of ROIs") from error
        if len(codes) not in (0, num_voxels):
            raise self._error("roi_codes", f"has {len(codes)} values", f"one for each of {num_voxels} voxels, or none")
        if len(codes) and (codes.min() < 0 or codes.max() >= len(names)):
            raise self._error("roi_codes", "has others", f"numbers of its {len(names)} ROIs")
        return [names[code] for code in codes]

    def _coordinates(self, num_voxels: int) -> np.ndarray | None:
        coordinates = self._optional("coordinates")
        if coordinates is not None and coordinates.shape != (num_voxels, 3):
            raise self._error("coordinates", f"has the shape {coordinates.shape}", f"({num_voxels}, 3)")
        return coordinates

    def _pooled(self, num_selected: int) -> np.ndarray | None:
        pooled = self._optional("pooled")
        if pooled is None:
            return None
        if self.statistics not in BY_GROUP:
            raise self._error("pooled", "is there", f'none, for statistics="{self.statistics}"')
        if pooled.shape != (2, num_selected):
            raise self._error("pooled", f"has the shape {pooled.shape}", f"(2, {num_selected}), mean and spread")
        if not np.isfinite(pooled).all() or (pooled[1] < 0).any():
            raise self._error("pooled", "has values that are not finite, or a negative spread", "statistics of trials")
        self._check_spread(pooled[:1], pooled[1:])
        return pooled

    def _pooled_sessions(self, sessions: Sequence[int]) -> list[int]:
        pooled = self._optional("pooled_sessions")
        found = [] if pooled is None else [int(session) for session in pooled]
        if not set(found) <= set(sessions) or len(set(found)) != len(found):
            raise self._error("pooled_sessions", "has others", "some of the sessions, each once")
        return found

    def _source(self, num_voxels: int) -> tuple[int | None, np.ndarray | None]:
        width, columns = self._optional("source_width"), self._optional("source_columns")
        if width is None and columns is None:
            return None, None
        if width is None or columns is None or len(width) != 1 or not num_voxels < width[0] <= _MAX_VOXELS:
            found = "is missing" if width is None or columns is None else f"is {one_line(width.tolist(), 60)}"
            raise self._error("source_width", found, f"one number, {num_voxels + 1} to {_MAX_VOXELS}, with its columns")
        if len(columns) != num_voxels or columns[0] < 0 or columns[-1] >= width[0] or (np.diff(columns) < 1).any():
            expected = f"{num_voxels} ascending numbers from 0 to {width[0] - 1}"
            raise self._error("source_columns", "has others", expected)
        return int(width[0]), columns

    def _grid(self, width: int) -> ImageGrid | None:
        shape, affine, digest_text = (self._optional(tensor) for tensor in _OF_GRIDS)
        if shape is None and affine is None and digest_text is None:
            return None
        if shape is None or affine is None or digest_text is None:
            raise self._error("grid_shape, grid_affine and grid_sha256", "are there in part", "all of them, or none")
        if len(shape) != 3 or (shape < 1).any() or (shape > _MAX_VOXELS).any() or np.prod(shape.astype(float)) < width:
            raise self._error("grid_shape", f"is {one_line(shape.tolist(), 60)}", f"a volume with {width} voxels")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise self._error("grid_affine", "is another", "(4, 4) finite numbers")
        sha256 = digest_text.tobytes().decode("ascii", "replace")
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise self._error("grid_sha256", "is another", "64 hexadecimal digits")
        return ImageGrid(tuple(int(size) for size in shape), affine, sha256)

    def _optional(self, tensor: str) -> np.ndarray | None:
        return self.tensors.get(f"{self.index}.{tensor}")

    def _tensor(self, tensor: str) -> np.ndarray:
        return self.tensors[f"{self.index}.{tensor}"]

    def _error(self, tensor: str, found: str, expected: str) -> FmriModelsError:
        return FmriModelsError(f"{self.path}: {tensor} of {self.name} {found}; expected {expected}; {_MEND}.")
