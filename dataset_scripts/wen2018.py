"""Wen et al. 2018 (cc2017): three subjects watch eleven hours of clips of natural films, 2-s clips with their volumes.

Reads two forms in which decoders have it, recognised by their files:

* MinD-Video's folder `preprocessed`: `fmri_{train,test}_subject{1,2,3}.npy` (segments, volumes, vertices) with one
  averaged response a volume, `video_{train,test}_256_3hz.npy` (segments, volumes, frames, 256, 256, 3) and, where they
  are there, `text_{train,test}_256_3hz.npy` and `test_seg_id_3hz.npy`. Its authors have published the test part alone.
* NeuroClips' pack: `subj0X_{train,test}_fmri.pt` (clips, repeats, vertices) and `GT_{train,test}_3fps.pt` (clips,
  frames, 3, 224, 224) from 0 to 1.

A trial is a window of (time, vertices): the volume of a clip and those after it in the same segment, of which the last
is repeated at the segment's end, as MinD-Video does it. The picture of a clip is its third frame of six, as NeuroClips
has its keyframes.

Layouts read in: jqin4749/MindVideo at 5097206 (`src/MindVideo/utils/dataset.py`), gongzix/NeuroClips at cac913e
(`src/train_SR.py`, `src/train_PR.py`, `src/caption.py`).
"""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fmri_models.data.published import (
    KnownVoxels,
    PublishedDataset,
    PublishedSubject,
    Recording,
    preparation,
    windowed,
)
from fmri_models.data.published.torch_files import torch_tensor
from fmri_models.data.windows import Windows
from fmri_models.errors import FmriModelsError
from fmri_models.names import one_line
from fmri_models.reading import check_regular_file, read_array

SUBJECTS = ("1", "2", "3")
SEGMENTS = {"train": 18, "test": 5}
VOLUMES = 240
SECONDS = 2.0
FRAMES = 6
KEYFRAME = 2
# Vertices of the third subject in MinD-Video's form are 3731, of all in NeuroClips' as here.
NEUROCLIPS_VERTICES = {"1": 13447, "2": 14828, "3": 9114}
_TRIALS_AT_ONCE = 60

PAPER = {
    "title": "Neural encoding and decoding with deep learning for dynamic natural vision",
    "authors": (
        "Wen, Haiguang", "Shi, Junxing", "Zhang, Yizhen", "Lu, Kun-Han", "Cao, Jiayue", "Liu, Zhongming",
    ),
    "year": 2018,
    "url": "https://doi.org/10.1093/cercor/bhx268",
    "venue": "Cerebral Cortex",
}  # fmt: skip
ORIGIN = "https://purr.purdue.edu/publications/2809/1"
LICENSE = "CC0 1.0 for responses (PURR 2809); the films are their owners'"
WHERE = (
    "MinD-Video's README links its folder `preprocessed`, NeuroClips' pack is "
    "huggingface.co/datasets/gongzx/cc2017_dataset, and the recordings they were made of are at "
    "purr.purdue.edu/publications/2809"
)


def read(
    source: Path,
    window: int = 0,
    lag: int = 0,
    clips: Literal["reference", "frames", "none"] = "reference",
    scenes: Literal["all", "single"] = "all",
    validation_segments: int = 2,
    repeats: Literal["mean", "single"] = "mean",
    subjects: list[str] | None = None,
    incomplete: bool = False,
) -> PublishedDataset:
    """Wen et al. 2018, in MinD-Video's or NeuroClips' form.

    Args:
        source: The folder with the files, or the one that `preprocessed` is in.
        window: Volumes of a window; 0 takes 2 in MinD-Video's form, as it was published, and 1 in NeuroClips'.
        lag: Volumes from that of a clip to the first of its window, on top of how the release has aligned them.
        clips: Whether clips are said by file and time (`reference`), have their frames in the table (`frames`), or are
            left out for their picture alone (`none`).
        scenes: `single` leaves out test clips across a change of the scene, whose id MinD-Video writes with a `-`.
        validation_segments: So many of the last training segments are validation: clips of one segment follow each
            other, and windows overlap.
        repeats: NeuroClips' form: the mean of a clip's recordings, or each as a trial.
        subjects: These alone are looked for.
        incomplete: Whether one part or fewer segments are enough.
    """
    folder = source / "preprocessed" if (source / "preprocessed").is_dir() else source
    wanted = [number for number in SUBJECTS if subjects is None or f"subj0{number}" in subjects]
    if window < 0 or lag < 0 or validation_segments < 0:
        raise FmriModelsError("window, lag and validation_segments are 0 or more.")
    form: _MindVideo | _NeuroClips
    if any(folder.glob("fmri_*_subject?.npy")):
        form = _MindVideo(folder, scenes)
    elif any(folder.glob("subj0?_*_fmri.pt")):
        form = _NeuroClips(folder, repeats)
    else:
        raise FmriModelsError(
            f"{one_line(folder)} has neither fmri_train_subject1.npy and the like (MinD-Video) nor "
            f"subj01_train_fmri.pt (NeuroClips); {WHERE}."
        )
    length = window or form.usual_window
    if form.order_unknown and (length, lag) != (1, 0):
        raise FmriModelsError(
            "NeuroClips' files don't say which clips follow each other, so that there is no window of several volumes "
            "and no lag; leave window and lag out, or take MinD-Video's form."
        )
    missing = [part for part in SEGMENTS if not form.has(part)]
    if missing and not incomplete:
        raise FmriModelsError(
            f"{one_line(folder)} has no {' or '.join(missing)} part; {WHERE}, or write what is there with --option "
            "incomplete=yes."
        )
    found = [number for number in wanted if any(form.has(part, number) for part in SEGMENTS)]
    people = [_subject(form, number, length, lag, validation_segments) for number in found]
    return PublishedDataset(
        name="wen2018",
        description=(
            "Windows of volumes while subjects watched clips of natural films, 18 segments of 8 minutes that are "
            "learned from and 5 that are tested."
        ),
        license=LICENSE,
        citation=(
            "H. Wen, J. Shi, Y. Zhang, K.-H. Lu, J. Cao, Z. Liu (2018): Neural encoding and decoding with deep "
            f"learning for dynamic natural vision. Cerebral Cortex 28, 4136-4160. PURR 2809; {form.prepared_by}."
        ),
        script="dataset_scripts/wen2018.py",
        script_version=1,
        subjects=people,
        stimuli=lambda ids: form.stimuli(ids, clips),
        windows=Windows(
            seconds_per_sample=SECONDS,
            lag_seconds=lag * SECONDS,
            picture=f"its frame {KEYFRAME + 1} of {FRAMES}",
        ),
        notes=[
            form.note,
            "Times of windows are those of the release's own alignment; whether it has shifted responses by the delay "
            "of the blood flow is not said in its files.",
            *([f"The last {validation_segments} training segments are validation."] if validation_segments else []),
            *(["Test clips across a change of the scene are left out."] if scenes == "single" else []),
        ],
    )


@dataclass(frozen=True)
class _Clip:
    """A clip: its part, its segment from 0, and its volume in it."""

    part: str
    segment: int
    volume: int

    @property
    def stimulus_id(self) -> str:
        return f"{self.part}{self.segment + 1:02d}-{self.volume:03d}"

    @classmethod
    def of(cls, stimulus_id: str) -> "_Clip":
        name, volume = stimulus_id.split("-")
        return cls(name[:-2], int(name[-2:]) - 1, int(volume))


def _record(clip: _Clip, frames: np.ndarray, captions: list[str], file: str, start: float, how: str) -> dict[str, Any]:
    record: dict[str, Any] = {"stimulus_id": clip.stimulus_id, "image": frames[KEYFRAME], "captions": captions}
    if how != "none":
        about = {"file": file, "start": start, "seconds": SECONDS}
        record["clip"] = {**about, "frames": list(frames)} if how == "frames" else about
    return record


class _MindVideo:
    """MinD-Video's arrays, one a part and subject."""

    usual_window, order_unknown = 2, False
    prepared_by = "prepared by MinD-Video's authors"
    note = "MinD-Video's form: one response of selected vertices a volume, repetitions averaged."

    def __init__(self, folder: Path, scenes: str) -> None:
        self._folder, self._scenes = folder, scenes

    def has(self, part: str, number: str = "?") -> bool:
        """Whether there are responses of a part, of a subject or of any."""
        return any(os.path.lexists(self.file(part, each)) for each in (SUBJECTS if number == "?" else number))

    def file(self, part: str, number: str) -> Path:
        return self._folder / f"fmri_{part}_subject{number}.npy"

    def responses(self, part: str, number: str) -> np.ndarray:
        """(segments, volumes, vertices), memory-mapped."""
        path = self.file(part, number)
        values = read_array(path, "array of responses", WHERE, memory_map=True)
        if values.ndim != 3 or values.shape[0] > SEGMENTS[part] or values.shape[1] != VOLUMES:
            raise FmriModelsError(
                f"{one_line(path)} has the shape {values.shape}; expected ({SEGMENTS[part]}, {VOLUMES}, vertices); "
                f"{WHERE}."
            )
        return values

    def recordings(self, part: str, number: str) -> Iterator[tuple[int, list[int], Callable[[], np.ndarray]]]:
        """Segment, its clips that are taken, and what gives its (volumes, vertices)."""
        values = self.responses(part, number)
        for segment in range(len(values)):
            yield segment, self._taken(part, segment), lambda segment=segment: np.asarray(values[segment])

    def _taken(self, part: str, segment: int) -> list[int]:
        if part != "test" or self._scenes == "all":
            return list(range(VOLUMES))
        path = self._folder / "test_seg_id_3hz.npy"
        names = _texts(path)
        if names is None or names.shape != (SEGMENTS["test"], VOLUMES):
            raise FmriModelsError(
                f"{one_line(path)} is needed for scenes=single, and is missing or not ({SEGMENTS['test']}, {VOLUMES}) "
                f"texts; {WHERE}."
            )
        return [volume for volume in range(VOLUMES) if "-" not in str(names[segment, volume])]

    def width(self, number: str) -> int:
        return int(self.responses(next(part for part in SEGMENTS if self.has(part, number)), number).shape[2])

    def expected_vertices(self, number: str) -> int | None:
        return None

    def expected_trials(self) -> int | None:
        return VOLUMES * sum(SEGMENTS.values()) if self._scenes == "all" else None

    def stimuli(self, ids: Collection[str], clips: str) -> Iterator[dict[str, Any]]:
        by_part: dict[str, list[_Clip]] = {}
        for clip in sorted(map(_Clip.of, ids), key=lambda each: (each.part, each.segment, each.volume)):
            by_part.setdefault(clip.part, []).append(clip)
        for part, wanted in by_part.items():
            path = self._folder / f"video_{part}_256_3hz.npy"
            frames = read_array(path, "array of frames", WHERE, memory_map=True)
            if frames.ndim != 6 or frames.shape[1:3] != (VOLUMES, FRAMES) or frames.shape[5] != 3:
                raise FmriModelsError(
                    f"{one_line(path)} has the shape {frames.shape}; expected (segments, {VOLUMES}, {FRAMES}, height, "
                    f"width, 3); {WHERE}."
                )
            if frames.dtype != np.uint8 or wanted[-1].segment >= len(frames):
                raise FmriModelsError(
                    f"{one_line(path)} has {len(frames)} segments of {frames.dtype}; expected uint8 of "
                    f"{wanted[-1].segment + 1} at least; {WHERE}."
                )
            captions = _texts(self._folder / f"text_{part}_256_3hz.npy")
            for clip in wanted:
                told = []
                if captions is not None and captions.shape[:2] == frames.shape[:2]:
                    told = list(dict.fromkeys(map(str, np.ravel(captions[clip.segment, clip.volume]))))
                start = SECONDS * (clip.segment * VOLUMES + clip.volume)
                yield _record(
                    clip, np.asarray(frames[clip.segment, clip.volume]), told, f"preprocessed/{path.name}", start, clips
                )


class _NeuroClips:
    """NeuroClips' tensors: clips of all segments one after the other, with their repetitions."""

    usual_window, order_unknown = 1, True
    prepared_by = "prepared by NeuroClips' authors"

    def __init__(self, folder: Path, repeats: str) -> None:
        self._folder, self._repeats = folder, repeats
        means = "the mean of" if repeats == "mean" else "each of"
        self.note = f"NeuroClips' form: selected vertices, standardised by run; {means} two (test: ten) recordings."

    def has(self, part: str, number: str = "?") -> bool:
        """As of the other form."""
        return any(os.path.lexists(self.file(part, each)) for each in (SUBJECTS if number == "?" else number))

    def file(self, part: str, number: str) -> Path:
        return self._folder / f"subj0{number}_{part}_fmri.pt"

    def _tensor(self, part: str, number: str) -> Any:
        path = self.file(part, number)
        values = torch_tensor(path, 3, WHERE)
        if len(values) % VOLUMES or len(values) > SEGMENTS[part] * VOLUMES:
            raise FmriModelsError(
                f"{one_line(path)} has the shape {tuple(values.shape)}; expected ({SEGMENTS[part] * VOLUMES}, repeats, "
                f"vertices); {WHERE}."
            )
        return values

    def recordings(self, part: str, number: str) -> Iterator[tuple[int, list[int], Callable[[], np.ndarray]]]:
        """As of the other form; a repetition is a recording of its own, and its segment counts on."""
        values = self._tensor(part, number)
        for segment in range(len(values) // VOLUMES):
            own = slice(segment * VOLUMES, (segment + 1) * VOLUMES)
            if self._repeats == "mean":
                yield segment, list(range(VOLUMES)), lambda own=own: values[own].float().mean(dim=1).numpy()
            else:
                for repeat in range(values.shape[1]):
                    yield (
                        segment,
                        list(range(VOLUMES)),
                        lambda own=own, repeat=repeat: values[own, repeat].float().numpy(),
                    )

    def width(self, number: str) -> int:
        return int(self._tensor(next(part for part in SEGMENTS if self.has(part, number)), number).shape[2])

    def expected_vertices(self, number: str) -> int | None:
        return NEUROCLIPS_VERTICES[number]

    def expected_trials(self) -> int | None:
        repeats = {"train": 2, "test": 10} if self._repeats == "single" else {"train": 1, "test": 1}
        return VOLUMES * sum(count * repeats[part] for part, count in SEGMENTS.items())

    def stimuli(self, ids: Collection[str], clips: str) -> Iterator[dict[str, Any]]:
        wanted = sorted(map(_Clip.of, ids), key=lambda each: (each.part, each.segment, each.volume))
        for part in dict.fromkeys(clip.part for clip in wanted):
            path = self._folder / f"GT_{part}_3fps.pt"
            frames = torch_tensor(path, 5, WHERE)
            own = [clip for clip in wanted if clip.part == part]
            if tuple(frames.shape[1:3]) != (FRAMES, 3) or own[-1].segment * VOLUMES + own[-1].volume >= len(frames):
                raise FmriModelsError(
                    f"{one_line(path)} has the shape {tuple(frames.shape)}; expected (clips, {FRAMES}, 3, height, "
                    f"width); {WHERE}."
                )
            for clip in own:
                place = clip.segment * VOLUMES + clip.volume
                values = frames[place].float().numpy()
                if values.min() < 0 or values.max() > 1:
                    raise FmriModelsError(f"{one_line(path)} has values outside of 0 to 1; {WHERE}.")
                pixels = np.rint(values.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
                yield _record(clip, pixels, [], path.name, SECONDS * place, clips)


def _texts(path: Path) -> np.ndarray | None:
    """An array of texts; None where there is none, or where it is of objects, which would have to be unpickled."""
    if not os.path.lexists(path):
        return None
    check_regular_file(path, "array of texts", WHERE)
    try:
        values = np.load(path, allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error) and path.read_bytes()[:6] == b"\x93NUMPY":
            return None
        raise FmriModelsError(f"{one_line(path)} can't be read ({one_line(error, 100)}); {WHERE}.") from error
    except (OSError, EOFError) as error:
        raise FmriModelsError(f"{one_line(path)} can't be read ({one_line(error, 100)}); {WHERE}.") from error
    return values if isinstance(values, np.ndarray) and values.dtype.kind == "U" else None


def _subject(
    form: _MindVideo | _NeuroClips, number: str, window: int, lag: int, validation_segments: int
) -> PublishedSubject:
    width = form.width(number)
    recordings: list[Recording] = []
    for part in SEGMENTS:
        if not form.has(part, number):
            continue
        found = list(form.recordings(part, number))
        segments = sorted({segment for segment, _, _ in found})
        kept_out = set(segments[len(segments) - min(validation_segments, len(segments) - 1) :])
        for place, (segment, volumes, values) in enumerate(found):
            own_part = "validation" if part == "train" and segment in kept_out else part
            recordings.append(
                Recording(
                    f"{part} segment {segment + 1}, recording {place}",
                    read=_reader(values, volumes, window, lag, width, form.file(part, number)),
                    stimulus_ids=[_Clip(part, segment, volume).stimulus_id for volume in volumes],
                    runs=segment + 1 + (0 if part == "train" else SEGMENTS["train"]),
                    part=own_part,
                    files=[form.file(part, number)],
                )
            )
    return PublishedSubject(
        f"subj0{number}",
        windowed(KnownVoxels(width), window),
        recordings,
        expected_trials=form.expected_trials(),
        expected_voxels=None
        if form.expected_vertices(number) is None
        else window * (form.expected_vertices(number) or 0),
    )


def _reader(
    values: Callable[[], np.ndarray], volumes: Sequence[int], window: int, lag: int, width: int, path: Path
) -> Callable[[], Iterator[np.ndarray]]:
    """Gives the flat windows of some volumes of a segment, which never reach into the next one."""

    def blocks() -> Iterator[np.ndarray]:
        series = values()
        if series.shape[1] != width:
            raise FmriModelsError(
                f"{one_line(path)} has {series.shape[1]} vertices, and the other part of the subject {width}; {WHERE}."
            )
        for start in range(0, len(volumes), _TRIALS_AT_ONCE):
            own = np.asarray(volumes[start : start + _TRIALS_AT_ONCE])
            places = np.minimum(own[:, None] + lag + np.arange(window), len(series) - 1)
            yield series[places].reshape(len(own), -1)

    return blocks


prepare = preparation(read)
