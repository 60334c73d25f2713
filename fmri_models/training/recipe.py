"""Recipes: what is trained on what, as YAML with `key=value` overrides."""

import copy
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field

from ..conditions import GUIDES
from ..data.augmentation import picture_augmentation
from ..data.processed import Repetitions
from ..data.target_options import Captions, Posterior, TargetOptions
from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..generation.loading import parse_source
from ..guides import GuideSource, guide_sources
from ..hub_repository import is_folder
from ..names import check_line, check_name, did_you_mean, one_line
from ..option_types import Line, Names, check_fields
from ..plain_values import check_plain
from ..registry import get_method
from ..seeds import check_seed
from ..training_record import without_places
from ..typed_values import check_key, typed
from .adaptation_options import Adaptation, subject_lora
from .content_name import content_name
from .learning_generator import GeneratorTraining, check_one_lora, generator_training
from .options import TrainingOptions
from .recipe_files import recipe_values, set_value
from .recipe_options import GENERATOR_KEYS, SELECTABLE, check_keys, declared_options
from .sources import source_tables
from .trial_simulation import trial_simulation
from .unpaired import table_name, unpaired_sources, unpaired_tables

_MEND = "correct the recipe"

_FILE_SIZE = re.compile(r"(?:[0-9]{0,6}[1-9][0-9]{0,6}(?:\.[0-9]{1,6})?|0\.[1-9][0-9]{0,5}) ?[KMGTkmgt][Bb]")
# How sentences on a stage's options begin.
_OPTION_OF_STAGE = re.compile(r"(?:training|objective|augmentation|simulation|teacher|image_generator|unpaired)\b")


def _file_size(text: str) -> str:
    if not _FILE_SIZE.fullmatch(text):
        raise ValueError("a number and one of KB, MB, GB and TB, such as 2GB or 500MB")
    return text


FileSize = Annotated[str, AfterValidator(_file_size)]


@dataclass
class Stage:
    """One stage of training.

    Args:
        name: Name in logs and folders.
        objective: Arguments of the method's objective.
        train_on: Parts of the split whose trials are learned from.
        validate_on: Parts of the split on which choices are made; those that are trained on are left out.
        training: How the stage is trained by gradient; None for a method in closed form.
        augmentation: How the pictures of training trials are changed before they are embedded, anew in each step:
            `"none"`, `"published"` (as MindEye's), or a mapping of what differs from that, see
            [`PictureAugmentation`]. Pictures of validation trials stay as they are.
        teacher: Folder or Hub repository of a picture network whose feature maps are learned from, too; None for none.
        simulation: A mapping of what differs from the defaults of
            [`TrialSimulation`], with which trials are simulated beside those that were
            measured; None simulates none.
        image_generator: What of the image generator learns: `{train: [cross_attention]}` with names of groups that the
            generator has, or `{lora: {r: 8, alpha: 16}}`, or both; None trains none of it. See [`GeneratorTraining`].
        unpaired: Further sources of fMRI without pictures, each a mapping of what differs from the defaults of
            [`UnpairedSource`]; an objective finds them in its batches beside the examples.
        repetitions: What this stage makes of repetitions; None does as the recipe says.
    """

    name: Line
    objective: dict[str, Any] = field(default_factory=dict)
    train_on: list[Line] = field(default_factory=lambda: ["train"])
    validate_on: list[Line] = field(default_factory=lambda: ["validation"])
    training: TrainingOptions | None = None
    augmentation: str | dict[str, Any] = "none"
    teacher: str | None = None
    simulation: dict[str, Any] | None = None
    image_generator: dict[str, Any] | None = None
    unpaired: list[dict[str, Any]] | None = None
    repetitions: Repetitions | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name in ("", ".", "..") or re.search(r"[/\\]", self.name):
            raise FmriModelsError(f"A stage is named {one_line(repr(self.name))}; expected a text without '/'.")
        check_line(self.name, "name of a stage", most=100)
        check_fields(vars(self), Stage, "stage.", _MEND, checked_elsewhere=("training", "augmentation", "teacher"))
        if not self.train_on:
            raise FmriModelsError(f"The stage {self.name!r} learns from no part of the split; name one in train_on.")
        if "test" in self.validate_on:
            raise FmriModelsError(
                f"The stage {self.name!r} has test trials in validate_on; choices are made on validation trials."
            )
        if self.teacher is not None and not isinstance(self.teacher, str):
            raise FmriModelsError(
                f"The stage {self.name!r} has the teacher {self.teacher!r}; expected a folder's name."
            )
        on_the_fly = picture_augmentation(self.augmentation) is not None or self.teacher is not None
        if on_the_fly and self.training is None:
            raise FmriModelsError(
                f"The stage {self.name!r} is fitted in closed form, once for all pictures; leave augmentation and "
                "teacher out."
            )
        if trial_simulation(self.simulation) is not None and (on_the_fly or self.training is None):
            raise FmriModelsError(
                f"The stage {self.name!r} simulates trials, which needs training by gradient and goes with neither "
                "augmentation nor teacher; leave one of them out."
            )
        needs_gradient = {"image_generator": self.image_generator, "unpaired": self.unpaired}
        for name, value in needs_gradient.items():
            if value is not None and self.training is None:
                raise FmriModelsError(
                    f"The stage {self.name!r} is fitted in closed form and has {name}, which learns by gradient; leave "
                    f"{name} out, or give the stage training:."
                )
        generator_training(self.image_generator)
        unpaired_sources(self.unpaired)

    @property
    def generator_training(self) -> GeneratorTraining | None:
        """What of the image generator learns."""
        return generator_training(self.image_generator)

    @property
    def generator_groups(self) -> list[str]:
        """Groups of the image generator's own parameters that learn."""
        return [] if self.generator_training is None else self.generator_training.train

    @property
    def held_out_parts(self) -> list[str]:
        """Parts of the split on which choices are made and that are not learned from."""
        return [part for part in self.validate_on if part not in self.train_on]


@dataclass
class Selection:
    """Which of several settings a fold is trained with, chosen inside its own training stimuli (`selection.py`).

    Args:
        candidates: Settings to choose from, each a mapping like the overrides of the command: dotted keys into `model`,
            `processor` and `stages` ▶ values. An empty one is the recipe as it is.
        metric: What decides, a metric of reports that needs pictures alone, such as `pixcorr`, `ssim` or `mse`.
        folds: Inner folds by stimulus.
    """

    candidates: list[dict[str, Any]]
    metric: str = "pixcorr"
    folds: Annotated[int, Field(le=1000)] = 3

    def __post_init__(self) -> None:
        if not isinstance(self.candidates, list) or not all(isinstance(each, dict) for each in self.candidates):
            raise FmriModelsError(
                f"selection.candidates is {self.candidates!r}; expected a list of mappings such as "
                "[{model.hidden_size: 64}, {model.hidden_size: 128}]."
            )
        if len(self.candidates) < 2:
            raise FmriModelsError(
                f"selection.candidates has {len(self.candidates)} settings, which is no choice; give at least two, or "
                "leave selection out."
            )
        if not isinstance(self.folds, int) or isinstance(self.folds, bool) or self.folds < 2:
            raise FmriModelsError(f"selection.folds is {self.folds!r}; expected a whole number from 2.")
        check_fields(vars(self), Selection, "selection.", _MEND)


@dataclass
class Recipe:
    """What is trained on what.

    Args:
        method: Name of the method.
        data: The trial table's folder.
        out: Where the pipeline is written.
        subjects: Names of the subjects in the model's order; None takes all of the table.
        split: Name of the split file.
        fold: Which fold of the split.
        folds: `"all"` trains one model a fold, into `out/fold00` …; overrides `fold`.
        generator: Image generator: its name, such as `embedded` or `pixels`, a folder or a Hub repository, or a mapping
            with some of `name`, `repository`, `revision`, `subfolder`, `dtype` and `options` (arguments of the
            generator's own). None for stages that learn from fMRI alone, on tables without pictures, too; the pipeline
            then draws nothing.
        targets: What the model decodes: `image_embeds`, `latents`, `text_embeds` (of captions), `guides` (the layers
            that `guides` names); None takes the first two as far as the generator has them, and the guides if any are
            named.
        captions: `text_embeds` are those of the `first` caption of each stimulus, or the `mean` over all its captions.
        posterior: `latents` are the `mode` of the autoencoder's posterior, or a `sample` of it, drawn once from `seed`.
        guides: Networks that see pictures, whose layers are decoded: a mapping with `network`, and where they are not
            the network's own `weights` (a file or folder) and `layers`, or a list of them; see [`GuideSource`].
        initial_model: Pipeline (a folder or a Hub repository) whose brain model training starts from; None starts anew.
            Reports say which test pictures it has learned from.
        adaptation: What learns when subjects are added to the `initial_model`: `"reset"`, their own layers alone;
            `"lora"`, these and LoRA on what all subjects share; `"full"`, all. The table then is that of the new
            subjects, and the pipeline has those of the initial model, too. None starts from a model of the same ones.
        lora: Options of `adaptation: lora`, a mapping of what differs from the defaults of [`SubjectLora`].
        sources: Further tables that are learned from in every step beside this one: folders, or mappings of what
            differs from the defaults of [`SourceTable`]. Their subjects are named `table.subject`, and
            what they have of their own in the model is not saved.
        repetitions: Train on the `average` of a stimulus' repetitions, on `single` trials, or on `all` repetitions, of
            which the method makes one pattern anew in each step. Validation trials are averaged with `all`.
        processor: Options of the processor.
        model: Options of the method's configuration.
        drawing: What the pipeline draws with, a mapping of what differs from the settings of its generator's class
            ([`DrawingSettings`]).
        stages: The stages of training.
        selection: Settings from which each fold's are chosen inside its training stimuli; None leaves no choice.
        trackers: Where training by gradient is logged, by Accelerate's names: `tensorboard`, `wandb`, `trackio` ...
        seed: Seed of everything that is drawn.
        max_shard_size: Size of one weights file.
    """

    method: str
    stages: list[Stage]
    data: Line | None = None
    out: Line | None = None
    subjects: Names | None = None
    split: str = "default"
    fold: Annotated[int, Field(ge=0)] = 0
    folds: Literal["all"] | None = None
    generator: str | dict[str, Any] | None = "embedded"
    targets: Names | None = None
    guides: dict[str, Any] | list[dict[str, Any]] | None = None
    captions: Captions = "first"
    posterior: Posterior = "mode"
    initial_model: Line | None = None
    adaptation: Adaptation | None = None
    lora: dict[str, Any] | None = None
    sources: list[str | dict[str, Any]] | None = None
    repetitions: Repetitions = "average"
    processor: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    drawing: dict[str, Any] = field(default_factory=dict)
    selection: Selection | None = None
    trackers: list[str] = field(default_factory=list)
    seed: int = 0
    max_shard_size: FileSize = "2GB"

    def __post_init__(self) -> None:
        check_plain(
            {key: value for key, value in vars(self).items() if key not in ("stages", "selection")}, "The recipe", _MEND
        )
        check_fields(vars(self), Recipe, "", _MEND, checked_elsewhere=("stages", "selection", "generator", "trackers"))
        check_name(self.split, "name of the split")
        for what in ("data", "out", "initial_model"):
            if getattr(self, what) is not None:
                check_line(getattr(self, what), f"recipe's {what}")
        get_method(self.method)
        if self.repetitions not in get_args(Repetitions):
            raise FmriModelsError(f"repetitions is {self.repetitions!r}; expected 'average', 'single' or 'all'.")
        self._check_generator()
        self._check_guides()
        self._check_target_options()
        self._check_model()
        self._check_drawing()
        if self.folds not in (None, "all"):
            raise FmriModelsError(f"folds is {self.folds!r}; expected 'all', or fold=NUMBER for a single one.")
        check_seed(self.seed, "recipe's seed")
        if not isinstance(self.trackers, list) or not all(isinstance(name, str) for name in self.trackers):
            shown = one_line(repr(self.trackers), 80)
            raise FmriModelsError(f"trackers is {shown}; expected a list of names such as [tensorboard].")
        if not self.stages:
            raise FmriModelsError("The recipe has no stages; give at least one.")
        self._check_adaptation()
        self._check_sources()
        check_one_lora({stage.name: stage.generator_training for stage in self.stages})
        if self.repetitions == "all" and any(stage.training is None for stage in self.stages):
            raise FmriModelsError(
                "repetitions is 'all', and a stage in closed form reads its trials once; choose 'average' or 'single'."
            )
        if self.selection is not None:
            self._check_selection(self.selection)

    @property
    def target_options(self) -> TargetOptions:
        """How targets are made of pictures and captions."""
        return TargetOptions(self.captions, self.posterior, self.seed)

    @property
    def trains_by_gradient(self) -> bool:
        """Whether any stage does."""
        return any(stage.training is not None for stage in self.stages)

    @property
    def train_parts(self) -> list[str]:
        """Parts of the split that any stage learns from."""
        return sorted({part for stage in self.stages for part in stage.train_on})

    def places_read(self, recipe_file: str | os.PathLike | None = None) -> list[Path]:
        """Files and folders of this machine that a training reads.

        Args:
            recipe_file: Where the recipe itself was read; None for one of the package's.
        """
        generator = None if self.generator is None else parse_source(self.generator).repository
        of_stages = [place for stage in self.stages for place in (stage.teacher, *unpaired_tables(stage.unpaired))]
        of_stages += [source.data for source in source_tables(self.sources)]
        of_stages += [source.weights for source in self.guide_sources]
        places = [self.data, self.initial_model, generator, *of_stages, recipe_file]
        return [path for path in (Path(place) for place in places if place is not None) if path.exists()]

    @classmethod
    def from_published(cls, values: Mapping[str, Any], source: str) -> "Recipe":
        """The recipe that [`published`] has given; what lay in folders is only named there.

        Args:
            values: As they are saved with a pipeline.
            source: Where they come from, for messages.

        Raises:
            FmriModelsError: A value is unknown to this version, or of another type.
        """
        return _recipe_from(copy.deepcopy(dict(values)), source)

    def with_values(self, values: Mapping[str, Any]) -> "Recipe":
        """The recipe with other values of dotted keys such as `stages.0.training.steps`, and without its selection.

        Raises:
            FmriModelsError: There is no such key, or it refuses the value.
        """
        changed = asdict(replace(self, selection=None))
        for key, value in values.items():
            set_value(changed, key, copy.deepcopy(value), f"{key}={value}")
        return _recipe_from(changed, "with " + ", ".join(f"{key}={value}" for key, value in values.items()))

    def _check_generator(self) -> None:
        """A text, or a mapping of texts with a name or a place; `options` is a mapping of its own. None is none."""
        if self.generator is None:
            return
        values = {"name": self.generator} if isinstance(self.generator, str) else self.generator
        known = isinstance(values, dict) and set(values) <= set(GENERATOR_KEYS)
        expected = {key: dict if key == "options" else str for key in values} if known else {}
        texts = known and all(value is None or isinstance(value, expected[key]) for key, value in values.items())
        if not texts or not (values.get("name") or values.get("repository")):
            unknown = [key for key in values if key not in GENERATOR_KEYS] if isinstance(values, dict) else []
            hint = did_you_mean(unknown[0], GENERATOR_KEYS) if unknown else ""
            raise FmriModelsError(
                f"generator is {one_line(repr(self.generator))}; expected a name, a folder or a Hub repository, or a "
                f"mapping with name or repository and no keys but {', '.join(GENERATOR_KEYS)}.{hint}"
            )
        source = parse_source(self.generator)
        if source.revision is not None and source.repository is not None and is_folder(source.repository):
            raise FmriModelsError(
                f"generator has the revision {one_line(source.revision, 80)!r} of {one_line(source.repository)}, which "
                "is a folder and has none; leave revision out."
            )

    def _check_guides(self) -> None:
        named = bool(guide_sources(self.guides))
        if self.targets is not None and named != (GUIDES in self.targets):
            found, missing = (
                ("guides", "no guides among its targets") if named else ("guides as a target", "no guides:")
            )
            raise FmriModelsError(
                f"The recipe has {found} and {missing}; give both, such as targets: [guides] with guides: {{network: "
                "scene_vgg}, or none."
            )
        if named and not get_method(self.method).load("config").decodes_guides:
            raise FmriModelsError(
                f"The method {self.method!r} decodes no guides; take the method linear, or leave guides out of the "
                "recipe."
            )

    @property
    def guide_sources(self) -> list[GuideSource]:
        """Networks whose layers are decoded."""
        return guide_sources(self.guides)

    def _check_target_options(self) -> None:
        if self.captions == "mean" and "text_embeds" not in (self.targets or ()):
            raise FmriModelsError(
                "captions is 'mean', and text_embeds is none of the recipe's targets; add it, or leave captions out."
            )
        if self.posterior == "mode":
            return
        if self.targets is not None and "latents" not in self.targets:
            raise FmriModelsError(
                "posterior is 'sample', and latents is none of the recipe's targets; add it, or leave posterior out."
            )
        if any(stage.simulation is not None for stage in self.stages):
            raise FmriModelsError(
                "posterior is 'sample', and trials that are simulated have the likeliest latents; leave simulation or "
                "posterior out."
            )

    def _check_model(self) -> None:
        """Refuses options that are set from elsewhere, or that training does not look at."""
        config = get_method(self.method).load("config")
        for key in self.model:
            check_key(key, sorted(config.own_fields()), "The recipe's model", config.free_fields())
            if key not in config.free_fields():
                raise FmriModelsError(
                    f"model.{key} is none of the method's options: the data, the generator or training itself set it, "
                    "or it changes nothing here; remove it."
                )

    def _check_adaptation(self) -> None:
        if self.adaptation not in (None, *get_args(Adaptation)):
            expected = ", ".join(get_args(Adaptation))
            raise FmriModelsError(f"adaptation is {one_line(repr(self.adaptation), 40)}; expected {expected} or null.")
        subject_lora(self.lora)
        if self.lora is not None and self.adaptation != "lora":
            raise FmriModelsError(
                "The recipe has lora and not adaptation: lora, which it is for; add that, or leave it out."
            )
        if self.adaptation is None:
            return
        if self.initial_model is None:
            raise FmriModelsError(
                f"adaptation is {self.adaptation!r} and there is no initial_model whose subjects are added to; add "
                "initial_model=DIR."
            )
        for name in ("model", "processor"):
            # What a processor does with sessions that it does not know is no part of its statistics.
            if value := [key for key in getattr(self, name) or () if key != "unseen_session"]:
                raise FmriModelsError(
                    f"The recipe has {name}.{value[0]} and an adaptation, which takes these options from its "
                    f"initial model; leave {name} out."
                )
        for stage in self.stages:
            if stage.training is None:
                raise FmriModelsError(
                    f"The stage {stage.name!r} is fitted in closed form, and an adaptation learns by gradient; give it "
                    "training:, or leave adaptation out."
                )
            if stage.simulation is not None:
                raise FmriModelsError(
                    f"The stage {stage.name!r} simulates trials, which no adaptation does; leave simulation out."
                )

    def _check_sources(self) -> None:
        if not source_tables(self.sources):
            return
        if self.selection is not None:
            raise FmriModelsError(
                "The recipe has sources and a selection, which is scored on training pictures that sources may show; "
                "leave one of them out."
            )
        for stage in self.stages:
            if stage.training is None:
                raise FmriModelsError(
                    f"The stage {stage.name!r} is fitted in closed form and the recipe has sources, which are learned "
                    "from by gradient; leave sources out."
                )
            made_anew = stage.augmentation != "none" or stage.teacher is not None or stage.simulation is not None
            if made_anew:
                raise FmriModelsError(
                    f"The stage {stage.name!r} makes pictures or trials anew in each step, and the recipe has sources, "
                    "whose pictures are in other tables; leave augmentation, teacher and simulation out, or sources."
                )

    def _check_drawing(self) -> None:
        check_keys(self.drawing, DrawingSettings, "The recipe's drawing")
        for key, value in self.drawing.items():
            try:
                DrawingSettings().changed({key: value})
            except FmriModelsError as error:
                raise FmriModelsError(f"drawing.{error}") from error

    def _check_selection(self, selection: Selection) -> None:
        if "test" in self.train_parts:
            raise FmriModelsError(
                "The recipe learns from test trials and has a selection, which is made inside the training trials; "
                "leave test out of train_on, or selection out of the recipe."
            )
        for candidate in selection.candidates:
            for key in candidate:
                if not str(key).startswith(tuple(f"{name}." for name in SELECTABLE)):
                    raise FmriModelsError(
                        f"A candidate of the selection sets {str(key)!r}; expected keys into model, processor or "
                        "stages, such as stages.0.training.steps."
                    )
            self.with_values(candidate)

    def to_dict(self) -> dict[str, Any]:
        """The recipe without the places of data and output, which mean nothing elsewhere."""
        return {key: value for key, value in asdict(self).items() if key not in ("data", "out")}

    def published(self) -> dict[str, Any]:
        """The recipe as it is saved with the pipeline: what lies in a folder is named by its content, not its path."""
        values = self.to_dict()
        values["initial_model"] = content_name(self.initial_model)
        values["sources"] = [
            {**asdict(source), "data": table_name(source.data)} for source in source_tables(self.sources)
        ] or None
        for stage, own in zip(values["stages"], self.stages, strict=True):
            stage["teacher"] = content_name(own.teacher)
            for source in stage["unpaired"] or []:
                source["data"] = table_name(source.get("data"))
        values["guides"] = [
            {**asdict(source), "weights": content_name(source.weights), "layers": source.layers_read}
            for source in self.guide_sources
        ] or None
        place = None if self.generator is None else content_name(parse_source(self.generator).repository)
        if isinstance(self.generator, dict):
            values["generator"]["repository"] = place
        elif place is not None:
            values["generator"] = place
        if self.selection is not None:
            values["selection"]["candidates"] = published_candidates(self.selection.candidates)
        published: dict[str, Any] = without_places(values)
        return published


def published_candidates(candidates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Candidates of a selection as they are saved with the pipeline, without paths."""
    named = [
        {key: content_name(value) if str(key).endswith(".teacher") else value for key, value in each.items()}
        for each in candidates
    ]
    published: list[dict[str, Any]] = without_places(named)
    return published


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies overrides.

    Args:
        name_or_path: Name of a shipped recipe, or path of a YAML (or JSON) file.
        overrides: `key=value`, with dots into nested values (`processor.statistics=pooled`). A value is what its option
            is declared to be: text as it stands, a number, or a list or mapping in brackets as YAML writes them.

    Raises:
        FmriModelsError: There is no such recipe, it is no valid YAML, a key is unknown, or a value is not what its
            option takes.
    """
    return _recipe_from(recipe_values(name_or_path, overrides), one_line(name_or_path))


def _recipe_from(values: dict[str, Any], source: str) -> Recipe:
    check_keys(values, Recipe, f"The recipe {source}")
    if "method" not in values:
        raise FmriModelsError(f"The recipe {source} names no method.")
    values = typed(values, declared_options(values, Recipe, Stage, Selection), "", f"The recipe {source}")
    check_plain(values, "The recipe", _MEND)
    stages = values.get("stages") or []
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise FmriModelsError(f"The recipe {source} has stages that are no list of mappings.")
    built: dict[str, Any] = {"stages": [_stage_from(stage, number, source) for number, stage in enumerate(stages)]}
    if values.get("selection") is not None:
        built["selection"] = _selection_from(values["selection"], source)
    return Recipe(**{**values, **built})


def _selection_from(values: Any, source: str) -> Selection:
    if not isinstance(values, dict) or "candidates" not in values:
        raise FmriModelsError(f"The recipe {source} has a selection that is no mapping with candidates.")
    return Selection(**values)


def _stage_from(values: dict[str, Any], number: int, source: str) -> Stage:
    if "name" not in values:
        raise FmriModelsError(f"A stage of the recipe {source} has no name; give it one.")
    check_fields(
        values, Stage, f"stages.{number}.", _MEND, checked_elsewhere=("name", "training", "augmentation", "teacher")
    )
    training = values.get("training")
    if training is not None and not isinstance(training, dict):
        raise FmriModelsError(f"The stage {values['name']!r} of the recipe {source} has a training that is no mapping.")
    with named_by_stage(number):
        return Stage(**{**values, "training": None if training is None else TrainingOptions(**training)})


@contextmanager
def named_by_stage(number: int) -> Iterator[None]:
    """Has sentences on an option of a stage begin with its whole key, `stages.1.training.steps`."""
    try:
        yield
    except FmriModelsError as error:
        if not _OPTION_OF_STAGE.match(str(error)):
            raise
        raise FmriModelsError(f"stages.{number}.{error}") from error
