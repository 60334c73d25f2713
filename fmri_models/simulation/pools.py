"""Which pictures are for training, validation and test, and which of them a subject sees."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .. import scenes
from ..data.pictures import content_sha256
from ..data.stimuli import StimulusSource, pixels_of
from ..errors import FmriModelsError
from ..names import listed
from . import constants
from .streams import Stream, stream

_DEFAULT_TRAIN = 1000
_DEFAULT_HELD_OUT = 100


# Of the built-in ones, which could be drawn without end.
_MOST_SCENES = 1_000_000


@dataclass(frozen=True)
class Counts:
    """How many stimuli a subject sees; None: the default, which depends on how many there are."""

    train: int | None = None
    validation: int | None = None
    test: int | None = None
    trials: int | None = None
    repetitions: int = 3

    def settled(self, available: int | None) -> tuple[int, int, int]:
        """Training, validation and test stimuli, given how many different pictures there are (None: any number).

        Raises:
            FmriModelsError: They are too few, or there are not so many pictures.
        """
        held_out = _DEFAULT_HELD_OUT if available is None else min(_DEFAULT_HELD_OUT, max(1, available // 10))
        validation = held_out if self.validation is None else self.validation
        test = held_out if self.test is None else self.test
        train = self._train(validation + test, available)
        if min(train, test) < 1 or validation < 0:
            raise FmriModelsError(
                f"{self._asked}That leaves {train} training, {validation} validation and {test} test stimuli; expected "
                f"at least one for training and one for test: {self._mend(validation, test)}."
            )
        if available is None and train + validation + test > _MOST_SCENES:
            raise FmriModelsError(
                f"{train} training, {validation} validation and {test} test stimuli were asked for; expected "
                f"{_MOST_SCENES} in all at most."
            )
        if available is not None and train + validation + test > available:
            raise FmriModelsError(
                f"There are {available} different pictures for {train} training, {validation} validation and {test} "
                "test stimuli; ask for fewer, or give more pictures."
            )
        return train, validation, test

    @property
    def _asked(self) -> str:
        """What a number of trials comes to, as a sentence; empty where none is given."""
        if self.trials is None:
            return ""
        stimuli = self.trials // self.repetitions
        return f"{self.trials} trials are {stimuli} stimuli, each shown {self.repetitions} times. "

    def _mend(self, validation: int, test: int) -> str:
        """What to ask for where too few stimuli are left, by the names of options of the command and of `simulate`."""
        if validation < 0 or test < 1:
            return "give other numbers (--validation, --test; num_validation, num_test in Python)"
        if self.train is not None:
            return "ask for more (--train; num_train in Python)"
        fewer = "set fewer aside (--validation, --test; num_validation, num_test in Python)"
        if self.trials is None:
            return f"give more pictures, or {fewer}"
        return f"{fewer}, or ask for more trials (--trials; num_trials) or fewer repetitions (--repetitions)"

    def _train(self, held_out: int, available: int | None) -> int:
        if self.trials is not None and self.train is not None:
            raise FmriModelsError("Both the number of trials and that of training stimuli are given; give one of them.")
        if self.trials is not None:
            return self.trials // self.repetitions - held_out
        if self.train is not None:
            return self.train
        return _DEFAULT_TRAIN if available is None else min(_DEFAULT_TRAIN, available - held_out)


@dataclass(frozen=True)
class Assignment:
    """Ids of stimuli by what they are for. All subjects share validation, test and a part of the training stimuli."""

    shared_train: Sequence[str]
    own_train: Sequence[str]
    validation: Sequence[str]
    test: Sequence[str]
    own_count: int

    def train(self, subject: int) -> list[str]:
        """Training stimuli of a subject: the shared ones and its own share of the others.

        Own shares are disjoint while there are enough pictures and begin again at the first one where there are not;
        they don't depend on the number of subjects.
        """
        start = subject * self.own_count
        own = [self.own_train[(start + index) % len(self.own_train)] for index in range(self.own_count)]
        return [*self.shared_train, *own]

    def all(self, subjects: Iterable[int]) -> list[str]:
        """Everything that any of the subjects sees, each id once."""
        train = [name for subject in subjects for name in self.train(subject)]
        return list(dict.fromkeys([*train, *self.validation, *self.test]))


class ScenePool:
    """The built-in scenes: as many as are asked for."""

    label = "scenes"
    license = "apache-2.0"
    notes: Sequence[str] = ()
    origin: Sequence[Mapping[str, str]] = ()

    def __init__(self, counts: Counts, num_subjects: int, seed: int) -> None:
        train, validation, test = counts.settled(None)
        shared = round(constants.SHARED_TRAIN_SHARE * train)
        own = train - shared
        train_seeds = scenes.scene_seeds("train", shared + num_subjects * own, seed)
        seeds = [*train_seeds, *scenes.scene_seeds("validation", validation, seed)]
        seeds += scenes.scene_seeds("test", test, seed)
        names = [scenes.stimulus_id(number) for number in seeds]
        end = len(train_seeds)
        self.assignment = Assignment(
            names[:shared], names[shared:end], names[end : end + validation], names[end + validation :], own
        )
        self._counts = [("train", len(train_seeds)), ("validation", validation), ("test", test)]
        self._seed = seed

    def withheld(self, count: int, num_subjects: int) -> Iterator[dict[str, Any]]:
        """Records of further scenes, which no subject's stimuli are."""
        learned = self._counts[0][1]
        return islice(scenes.scene_records("train", learned + count, self._seed), learned, None)

    def records(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Records of the named scenes for the trial table's writer."""
        wanted = set(names)
        for purpose, count in self._counts:
            for record in scenes.scene_records(purpose, count, self._seed):
                if record["stimulus_id"] in wanted:
                    yield record


class PicturePool:
    """Pictures of a folder, a zip file or a table, each content once."""

    license = ""

    def __init__(self, source: StimulusSource, counts: Counts, seed: int) -> None:
        self.label = source.path.stem
        self._source = source
        self.notes: Sequence[str] = source.notes()
        self.origin: Sequence[Mapping[str, str]] = source.origin
        names = _different_pictures(source)
        order = stream(seed, Stream.PICTURES).permutation(len(names))
        drawn = iter([names[index] for index in order])
        train, validation, test = counts.settled(len(names))
        shared = round(constants.SHARED_TRAIN_SHARE * train)
        in_test, in_validation = list(islice(drawn, test)), list(islice(drawn, validation))
        in_shared = list(islice(drawn, shared))
        self.assignment = Assignment(in_shared, list(drawn), in_validation, in_test, train - shared)

    def withheld(self, count: int, num_subjects: int) -> Iterator[dict[str, Any]]:
        """Records of pictures that no subject's stimuli are.

        Raises:
            FmriModelsError: There are too few.
        """
        left = self.assignment.own_train[num_subjects * self.assignment.own_count :]
        if len(left) < count:
            raise FmriModelsError(
                f"{count} unlabelled viewing trials need as many further pictures, and {len(left)} are left; take "
                "fewer training stimuli (--train) or unlabelled trials, or rest alone (--unlabelled-kinds rest)."
            )
        return self.records(left[:count])

    def records(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Records of the named stimuli for the trial table's writer, in the source's order."""
        wanted = set(names)
        return (record for record in self._source if record["stimulus_id"] in wanted)


def _different_pictures(source: StimulusSource) -> list[str]:
    """Ids, without those whose picture was there before under another one."""
    first: dict[str, str] = {}
    missing = []
    for record in source:
        if record["image"] is None:
            missing.append(record["stimulus_id"])
        else:
            first.setdefault(content_sha256(pixels_of(record)), record["stimulus_id"])
    if missing:
        raise FmriModelsError(
            f"{source.path} has {len(missing)} stimuli without a picture ({listed(missing)}); leave them out: the "
            "simulated brain needs something to look at."
        )
    return list(first.values())
