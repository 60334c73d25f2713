"""What training refuses, or learns wrong, of a table whose files are all in order: one list for writing and checking.

Each trial and each picture passes once, whoever reads them; the rest is a few numbers a trial.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..names import listed
from .schema import TEST, TRAIN, UNLABELLED, labelled_parts

# Whole numbers in so few voxels may be equal in two trials by chance.
_FEWEST_VOXELS = 4
# A decoder is fitted to the mean response to each stimulus.
FEWEST_TRAINING_STIMULI = 2
_SIZES_NAMED = 3
_TRIALS_A_CHUNK = 256


class _Place(NamedTuple):
    """A trial: its part of the default split, and its position in that."""

    part: str
    position: int


class Shown(NamedTuple):
    """Trials of a subject in a part of the default split: their numbers, and what was shown."""

    trials: Sequence[int]
    stimuli: Sequence[str]


# The number of a subject's trial.
_Number = Callable[[str, _Place], int]


class _Subject:
    """What is kept of one subject's trials."""

    def __init__(self, width: int) -> None:
        self.counts: Counter[str] = Counter()
        self.constant: list[_Place] = []
        self.by_content: dict[bytes, list[_Place]] = defaultdict(list)
        self.lowest = np.full(width, np.inf, np.float32)
        self.highest = -self.lowest

    def add(self, part: str, fmri: np.ndarray) -> None:
        first = self.counts[part]
        self.counts[part] += len(fmri)
        # Zeros of both signs are one number.
        values = np.ascontiguousarray(fmri, np.float32) + np.float32(0)
        constant = (values == values[:, :1]).all(axis=1) if values.shape[1] > 1 else np.zeros(len(values), bool)
        for index, pattern in enumerate(values):
            place = _Place(part, first + index)
            if constant[index]:
                self.constant.append(place)
            elif len(pattern) >= _FEWEST_VOXELS:
                self.by_content[hashlib.blake2b(pattern.tobytes(), digest_size=16).digest()].append(place)
        if part == TRAIN and len(values):
            np.fmin(self.lowest, values.min(axis=0), out=self.lowest)
            np.fmax(self.highest, values.max(axis=0), out=self.highest)

    def pairs(self) -> list[tuple[_Place, _Place]]:
        """A trial with the earlier one whose betas it has; those of which one is tested and one learned from first."""
        pairs = []
        for places in self.by_content.values():
            learned = next((place for place in places if place.part == TRAIN), places[0])
            pairs += [(learned, place) for place in places if place != learned]
        return sorted(pairs, key=lambda pair: pair[0].part == pair[1].part)


class TrainingChecks:
    """Takes the pictures and trials of a table, and says what is wrong with them together."""

    def __init__(self) -> None:
        self._subjects: dict[str, _Subject] = {}
        self._sizes: Counter[tuple[int, ...]] = Counter()
        self._of_size: dict[tuple[int, ...], str] = {}
        self._blank: list[str] = []

    def add_picture(self, stimulus: str, pixels: np.ndarray) -> None:
        """Takes a picture, (H, W, C)."""
        size = pixels.shape[:2]
        self._sizes[size] += 1
        self._of_size.setdefault(size, stimulus)
        if (pixels == pixels.flat[0]).all():
            self._blank.append(stimulus)

    def add_trials(self, subject: str, part: str, fmri: np.ndarray) -> None:
        """Takes the next trials of a subject in a part of the default split, (trials, voxels)."""
        if subject not in self._subjects:
            self._subjects[subject] = _Subject(fmri.shape[1])
        for start in range(0, len(fmri), _TRIALS_A_CHUNK):
            self._subjects[subject].add(part, fmri[start : start + _TRIALS_A_CHUNK])

    def passing(self, subject: str, part: str, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Chunks of trials as they are, each of which is taken when the next one is asked for."""
        for chunk in chunks:
            yield chunk
            self.add_trials(subject, part, chunk)

    def notes(self) -> list[str]:
        """What is worth knowing and nothing wrong, one sentence each."""
        untrained = [name for name, subject in sorted(self._subjects.items()) if not subject.counts[TRAIN]]
        return [*self._untrained_notes(untrained), *self._blank_notes()]

    def _untrained_notes(self, names: list[str]) -> list[str]:
        without = [name for name in names if not labelled_parts(+self._subjects[name].counts)]
        tested = [name for name in names if name not in without]
        notes = []
        if tested:
            notes.append(
                f"There are no training trials of {listed(tested)}, so that a trained model can be tested on the table "
                "and none be trained."
            )
        if without:
            notes.append(
                f"All trials of {listed(without)} are without a stimulus: masked pretraining learns from them (a stage "
                f"with train_on: [{UNLABELLED}]), and nothing can be tested on them."
            )
        return notes

    def _blank_notes(self) -> list[str]:
        if not self._blank:
            return []
        have, they_have = ("has", "it has") if len(self._blank) == 1 else ("have", "they have")
        return [
            f"{len(self._blank)} of {self._sizes.total()} pictures {have} one value throughout "
            f"({listed(self._blank)}) and can't be correlated with anything: where tested, {they_have} no score in "
            "identification by pixels."
        ]

    def findings(self, shown: Mapping[str, Mapping[str, Shown]]) -> list[str]:
        """What is wrong, one sentence each; empty if nothing is.

        Args:
            shown: Of each subject and part, in the order in which trials were taken.
        """

        def number(subject: str, place: _Place) -> int:
            return int(shown[subject][place.part].trials[place.position])

        found = [self._size_finding()] if len(self._sizes) > 1 else []
        for name, subject in sorted(self._subjects.items()):
            found += self._findings_of(name, subject, len(set(shown[name][TRAIN].stimuli)), number)
        return [*found, *self._shared_findings()]

    def _size_finding(self) -> str:
        sizes = [f"{count} of {width}x{height} such as {self._of_size[height, width]}"
                 for (height, width), count in self._sizes.most_common(_SIZES_NAMED)]  # fmt: skip
        more = f" and {len(self._sizes) - _SIZES_NAMED} sizes more" if len(self._sizes) > _SIZES_NAMED else ""
        return (
            f"The pictures have {len(self._sizes)} sizes ({', '.join(sizes)}{more}), and training takes pictures of "
            "one size, whatever the image generator: prepare the table again with `--size PIXELS`, which crops them to "
            "their central square and resizes it, or with pictures of one size."
        )

    def _findings_of(self, name: str, subject: _Subject, num_stimuli: int, number: _Number) -> Iterator[str]:
        # Without any training trials it is a table to test on, as `notes` says.
        if subject.counts[TRAIN] and num_stimuli < FEWEST_TRAINING_STIMULI:
            yield (
                f"{name} has trials of {num_stimuli} {'stimulus' if num_stimuli == 1 else 'stimuli'} in the part "
                f"{TRAIN!r} of the split, and training needs at least {FEWEST_TRAINING_STIMULI}: give it more, or "
                "leave the subject out."
            )
        elif (subject.lowest == subject.highest).all():
            yield f"No voxel of {name} changes over its training trials, so nothing can be learned from them."
        if subject.constant:
            places = listed(number(name, place) for place in subject.constant)
            one = len(subject.constant) == 1
            yield (
                f"{len(subject.constant)} {'trial' if one else 'trials'} of {name} (number {places}) "
                f"{'has' if one else 'have'} the same value in every voxel and so no response, and training refuses "
                f"{'it' if one else 'them'}: leave {'it' if one else 'them'} out of betas and events."
            )
        if pairs := subject.pairs():
            (former, later), count = pairs[0], len(pairs)
            is_leak = {former.part, later.part} in ({TRAIN, TEST}, {UNLABELLED, TEST})
            learned = ", so that what is tested is learned from" if is_leak else ""
            yield (
                f"{count} {'trial' if count == 1 else 'trials'} of {name} {'has' if count == 1 else 'have'} exactly "
                f"the betas of another one, such as number {number(name, later)} ({later.part}) those of number "
                f"{number(name, former)} ({former.part}){learned}: give each response once."
            )

    def _shared_findings(self) -> Iterator[str]:
        """Betas that two subjects have in common."""
        names = sorted(self._subjects)
        for position, name in enumerate(names):
            for other in names[position + 1 :]:
                first, second = self._subjects[name].by_content, self._subjects[other].by_content
                if shared := len(first.keys() & second.keys()):
                    totals = [sum(map(len, contents.values())) for contents in (first, second)]
                    yield (
                        f"{name} and {other} have identical betas in {shared} trials (of {totals[0]} and {totals[1]}), "
                        "so one is a copy of the other: give each subject's own."
                    )
