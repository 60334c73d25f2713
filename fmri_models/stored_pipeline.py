"""A pipeline as it is saved and loaded, here and on the Hub."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging

from .adapters import adapters_of, check_can_be_kept, keep_with_base, unwrapped
from .component_index import CARD_FILE, check_can_be_saved, check_without_adapters
from .conversion_record import ConversionRecord
from .drawing_settings import DrawingSettings
from .errors import FmriModelsError
from .generation.generator_adapter import ADAPTER_FOLDER, base_alone, check_adapter_is_whole
from .generation.loading import parse_source, resolved
from .held_generator import HoldsGenerator
from .hub_repository import FETCH_OPTIONS, split_push_options, upload, upload_saved
from .known_classes import entries_of_index, find_class
from .library_options import DIFFUSERS_SAVE_OPTIONS, take_dtype
from .loaded_components import LoadedComponents
from .model_subjects import what_names_subjects
from .names import one_line
from .offloading import weights_in_place
from .pipeline_components import check_subjects
from .pipeline_folder import (
    ADAPTER_KEY,
    COMPONENTS,
    INDEX_FILE,
    local_pipeline,
    no_longer_needed,
    no_longer_true,
    other_class,
    read_index,
    with_places,
    without_places,
)
from .pipeline_loading import LoadingOptions, is_read_whole, loading_errors_as_sentences, read_whole
from .processing.folder import FOLDER_IN_PIPELINES as PROCESSOR_FOLDER
from .processing_fmri import FmriProcessor
from .provenance import (
    Provenance,
    check_origin_may_be_shared,
    check_weights_may_be_shared,
    disclaim_record,
    permission_on_card,
    published,
    replaced_components,
    terms_of_training,
    write_card_again,
)
from .records import import_path
from .registry import card_writer
from .remote_code import additions
from .saving import merged_folder, warn_of_pickles
from .subject_adapters import adapted_subjects, check_only_of_subjects, merge_subject
from .subject_folder import no_longer_needed as subject_files_no_longer_needed
from .subject_folder import size_of, subject_folder, upload_subject
from .swapping import recover, written_files
from .training_record import TrainingRecord
from .unchanged import unchanged_on_errors
from .weights import check_variant_name

logger = logging.get_logger(__name__)


class StoredPipeline(HoldsGenerator):
    """Saving and loading of a pipeline with what lies beside its components: card, training record, report."""

    processor: FmriProcessor
    drawing_settings: DrawingSettings

    def __init__(self) -> None:
        super().__init__()
        self._provenance = Provenance()

    @property
    def training_record(self) -> TrainingRecord | None:
        """How a loaded pipeline was trained; None where that is not known."""
        return self._provenance.training_record

    @training_record.setter
    def training_record(self, record: TrainingRecord | None) -> None:
        self._provenance.training_record = record

    @property
    def has_trained_generator(self) -> bool:
        """Whether the image generator was trained together with the brain model, as far as that is known."""
        # Of what is read by everybody, the source of the one before may be missing.
        record = self.training_record
        return super().has_trained_generator or (record is not None and record.trains_generator)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        push_to_hub: bool = False,
        safe_serialization: bool = True,
        **kwargs: Any,
    ) -> None:
        """Saves all components: files of these names are replaced together, everything else in the folder stays.

        An image generator that has an `image_generator_source` is named there and not copied. The adapter that it was
        trained with lies beside it (`image_generator_adapter/`), and the generator is saved or named without. The card,
        the training record and the report that a loaded pipeline came with go along; a README.md of somebody else's
        stays. Where a component was changed or exchanged since, the report and its figures on the card are left out,
        and the record says of other weights that nobody knows what they have learned from. A report of other weights
        that lay in the folder is removed with them, and a record of theirs that is not replaced says that the weights
        came later.

        Args:
            save_directory: The folder.
            is_main_process: Whether this process writes; the others of a distributed training do nothing.
            push_to_hub: Upload what was written, too, to `repo_id` or the folder's name.
            safe_serialization: Weights are saved as safetensors, whatever it says.
            **kwargs: Those of `DiffusionPipeline.save_pretrained` and of `push_to_hub`.

        Raises:
            FmriModelsError: The variant is no name, the system refuses to write, or the Hub to take it; or as
                [`push_to_hub`].
        """
        warn_of_pickles(safe_serialization)
        permission = kwargs.pop("permission", None)
        if not is_main_process:
            return
        check_variant_name(kwargs.get("variant"))
        push_options = split_push_options(kwargs, DIFFUSERS_SAVE_OPTIONS)
        self._check_can_be_saved()
        self._register_as_it_is()
        with weights_in_place(*self._networks()):
            now = LoadedComponents.of(self)
        changed = self._provenance.changed(now)
        has_others = bool(changed)

        def obsolete(there: Path, written: set[str]) -> list[str]:
            return (no_longer_true if has_others else no_longer_needed)(there, written)

        with merged_folder(save_directory, obsolete) as partial:
            with base_alone(self._held.at_hand):
                super().save_pretrained(str(partial), **kwargs)
            if (adapter := self._held.present_adapter()) is not None:
                adapter.write(partial / ADAPTER_FOLDER)
            if adapters_of(self.brain_model) and not adapted_subjects(self.brain_model):
                self._save_base(partial / "brain_model", kwargs)
            without_places(partial / INDEX_FILE, Path(save_directory))
            if changed:
                self._provenance.disclaim(changed, has_adapter=bool(adapters_of(self.brain_model)))
            self._provenance.write(partial, Path(save_directory))
            replaced = replaced_components(partial, Path(save_directory))
            has_others |= bool(replaced)
            if "brain_model" in replaced and self.training_record is None:
                disclaim_record(partial, Path(save_directory))
            if self._provenance.is_disclaimed or (has_others and not (partial / CARD_FILE).is_file()):
                write_card_again(partial, Path(save_directory))
            files = written_files(partial)
        if changed:
            self._provenance.components = now
        if push_to_hub:
            self._write_card_to_publish(Path(save_directory), permission)
            files = published([*files, CARD_FILE], self.training_record)
            upload_saved(save_directory, files, "pipeline", push_options, additions(Path(save_directory), files))

    def _check_can_be_saved(self) -> None:
        """Refuses components that could not be loaded again.

        Raises:
            FmriModelsError: Names the first one.
        """
        brain_model, generator = unwrapped(self.brain_model), self._held.at_hand
        check_can_be_saved({"brain_model": brain_model, "processor": self.processor}, "pipeline")
        if generator is not None and generator.adapter_base is not None:
            check_adapter_is_whole(generator)
        with base_alone(generator):
            if generator is not None and self._held.source is None:
                generator.check_can_be_saved()
            elif generator is not None:
                note = (
                    " This pipeline only names where its image generator is: to keep a changed one, set its source to "
                    "None and assign it to pipeline.image_generator again."
                )
                check_without_adapters(generator.components, type(generator).__name__, note)
        # Options of the processor may have been changed since; what does not fit could not be loaded.
        check_subjects(brain_model, self.processor)
        if adapted_subjects(brain_model):
            check_only_of_subjects(brain_model)
        elif adapters_of(brain_model):
            check_can_be_kept(brain_model)

    def _register_as_it_is(self) -> None:
        """Notes for the index what components and settings are now, complete, whatever somebody has registered."""
        self._register_image_generator()
        if unwrapped(self.brain_model) is not self.brain_model:
            self.register_modules(brain_model=unwrapped(self.brain_model))
        self.register_to_config(drawing_settings=self.drawing_settings.to_dict())

    def _networks(self) -> list[torch.nn.Module]:
        generator = {} if self._held.at_hand is None else self._held.at_hand.components
        return [each for each in (self.brain_model, *generator.values()) if isinstance(each, torch.nn.Module)]

    def _save_base(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Writes the weights of the brain model beside its adapter, which is all that is saved of such a model."""
        given = {name: options[name] for name in ("max_shard_size", "variant") if options.get(name) is not None}
        self.brain_model.save_base(folder, **given)
        keep_with_base(folder)

    def add_subject(
        self,
        name: str,
        fmri: np.ndarray | torch.Tensor | Iterable[np.ndarray],
        sessions: Sequence[int] | np.ndarray | None = None,
        voxels: Any = None,
        voxel_scores: np.ndarray | None = None,
        stimuli: Sequence[str] | np.ndarray | None = None,
        runs: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        """Adds a subject: statistics of its training trials, and new layers, which have learned nothing yet.

        Args:
            name: Name of the subject.
            fmri: (trials, voxels) betas of its training trials as they were recorded; give no others.
            sessions: Session of each trial, where the processor keeps statistics by session.
            voxels: ROI, coordinates and noise ceiling of each voxel, where the processor chooses by these.
            voxel_scores: (voxels,) score on training trials, where the processor chooses the best voxels.
            stimuli: What each trial showed, see [`FmriProcessor.fit`].
            runs: Run of each trial, where the processor keeps statistics by run.

        Raises:
            FmriModelsError: The name is there already, trials are too few or not finite, or the method takes no further
                subjects. The pipeline then is as before.
        """
        processor, brain_model = self.processor, unwrapped(self.brain_model)
        statistics = processor.fitted_subject(name, fmri, sessions, voxels, voxel_scores, stimuli, runs)
        with self._noting_subject(name):
            brain_model.add_subject(name, processor.processed_width(statistics))
            processor.put_subject(name, statistics)

    def save_subject(
        self,
        name: str,
        directory: str | os.PathLike,
        dtype: torch.dtype | str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> int:
        """Saves one subject, for other copies of this pipeline: its layers, its processor's statistics, and the adapter
        that it has on shared weights.

        Args:
            name: The subject.
            directory: Folder; what it has of a subject saved before is replaced, everything else stays.
            dtype: Of the saved weights, such as `torch.float16`; None leaves theirs.
            push_to_hub: Upload the folder, too, to `repo_id` or the folder's name, with a card.
            **kwargs: Those of [`push_to_hub`]: `repo_id`, `private`, `token`, `permission` and the like.

        Returns:
            Size of what was written, in bytes.

        Raises:
            FmriModelsError: The subject is unknown, the method has no layers of subjects, the system refuses to write,
                or it may not be published or the Hub does not take it: the folder is written then.
        """
        processor, permission = self.processor, kwargs.pop("permission", None)
        push_options = split_push_options(kwargs, method="save_subject")
        processor.subject(name)
        with merged_folder(directory, subject_files_no_longer_needed) as partial:
            unwrapped(self.brain_model).write_subject(name, partial, dtype, has_processor=True)
            processor.subset([name]).save_pretrained(partial / PROCESSOR_FOLDER)
            if self.training_record is not None:
                self.training_record.save(partial)
            if ConversionRecord.file in self._provenance.files:
                (partial / ConversionRecord.file).write_bytes(self._provenance.files[ConversionRecord.file])
            size = size_of(partial)
        if push_to_hub:
            upload_subject(directory, push_options, permission)
        return size

    def load_subject(self, pretrained_subject_name_or_path: str | os.PathLike, **kwargs: Any) -> str:
        """Adds a subject that `save_subject` of a pipeline has written.

        Args:
            pretrained_subject_name_or_path: Folder, or repository id.
            **kwargs: How files are fetched: `revision`, `token`, `cache_dir` and the like.

        Returns:
            The subject's name.

        Raises:
            FmriModelsError: There is no subject, it is of another base, method or processor, its name is there already,
                or its files are not whole. The pipeline then is as before.
        """
        folder = subject_folder(os.fspath(pretrained_subject_name_or_path), kwargs)
        brain_model = unwrapped(self.brain_model)
        record, layers = brain_model.read_subject(folder)
        place = folder / PROCESSOR_FOLDER
        if not record.has_processor:
            raise FmriModelsError(
                f"The subject {record.subject} in {one_line(folder)} was saved without its processor's statistics; "
                "save it with a pipeline's save_subject(), or load it with brain_model.load_subject() and give the "
                "pipeline a processor that has them."
            )
        other = FmriProcessor.from_pretrained(place)
        if other.subject_names != [record.subject]:
            raise FmriModelsError(
                f"The processor in {one_line(place)} is of {other.subject_names} and not of {record.subject} alone; "
                "save the subject again, or take another copy of its folder."
            )
        statistics = self.processor.statistics_of(other, record.subject)
        if (width := self.processor.processed_width(statistics)) != record.num_voxels:
            raise FmriModelsError(
                f"The processor in {one_line(place)} gives {width} voxels of {record.subject} and its layers read "
                f"{record.num_voxels}; save the subject again, or take another copy of its folder."
            )
        with self._noting_subject(record.subject, TrainingRecord.load(folder), ConversionRecord.load(folder)):
            brain_model.take_subject(folder, record, layers)
            self.processor.put_subject(record.subject, statistics)
        return record.subject

    def merge_subject(self, name: str) -> None:
        """Adds a subject's LoRA to the weights, for good, and parts with all other subjects.

        What the pipeline was trained on stays known, and the report that it came with is left out when it is saved: it
        may be about others. Load another copy for them.

        Args:
            name: One of its subjects with an adapter on the shared weights.

        Raises:
            FmriModelsError: It is unknown or has none, or as `merge_subject` of `subject_adapters`. The
                pipeline then is as before.
        """
        processor = self.processor.subset([name])
        with self._noting(lambda provenance: provenance.disclaim(set(), has_adapter=False)):
            merge_subject(unwrapped(self.brain_model), name)
            self.register_modules(processor=processor)

    @contextmanager
    def _noting_subject(
        self, name: str, record: TrainingRecord | None = None, conversion: ConversionRecord | None = None
    ) -> Iterator[None]:
        """Notes that a subject was added inside the block; see [`_noting`]."""
        with self._noting(lambda provenance: provenance.note_subject(name, record, conversion)):
            yield

    @contextmanager
    def _noting(self, note: Callable[[Provenance], None]) -> Iterator[None]:
        """Notes what is done to subjects inside the block, which is another change than that of weights.

        If the block or the note fails, model, processor and provenance are as before.
        """
        brain_model = unwrapped(self.brain_model)
        is_loaded, is_unchanged = self._provenance.components is not None, False
        if is_loaded:
            with weights_in_place(*self._networks()):
                is_unchanged = not self._provenance.changed(LoadedComponents.of(self))
        with unchanged_on_errors([self.brain_model], [*what_names_subjects(brain_model), self.processor]):
            yield
            noted = self._provenance.copy()
            if is_unchanged:
                with weights_in_place(*self._networks()):
                    noted.components = LoadedComponents.of(self)
            note(noted)
            self._provenance = noted

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        revision: str | None = None,
        max_shard_size: int | str | None = None,
        permission: str | None = None,
    ) -> str:
        """Uploads the pipeline with its card, training record and report in one commit.

        A pipeline without a card gets one, which says that nothing was measured unless a report came with it.

        Args:
            repo_id: `user/name`, or a name in your namespace; the repository is made where there is none.
            commit_message: First line of the commit.
            private: Whether a repository that is made is private.
            token: Token; None takes the one that is logged in.
            create_pr: Propose the commit instead of making it.
            safe_serialization: Weights are saved as safetensors, whatever it says.
            variant: Part of the names of the weights files, such as `"fp16"`.
            revision: Branch; None takes the main one.
            max_shard_size: Size of one weights file.
            permission: Which written permission there is to pass data on whose terms forbid it, in a line that the
                card keeps.

        Returns:
            Address of the commit.

        Raises:
            FmriModelsError: A file may not be published, the terms of the training data forbid it, or the Hub does not
                take it.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / repo_id.rsplit("/", 1)[-1]
            self.save_pretrained(
                folder, safe_serialization=safe_serialization, variant=variant, max_shard_size=max_shard_size
            )
            self._write_card_to_publish(folder, permission)
            files = published(written_files(folder), self.training_record)
            committed = upload(
                folder,
                files,
                repo_id,
                commit_message or "Upload pipeline",
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
                additions=additions(folder, files),
            )
        return committed.commit_url

    def _write_card_to_publish(self, folder: Path, permission: str | None) -> None:
        """Writes the card where there is none or where it has to name a permission.

        Raises:
            FmriModelsError: The terms of what the weights have learned from, or the authors of what they were made of,
                forbid that they are passed on.
        """
        stated = permission or permission_on_card(folder)
        check_weights_may_be_shared(terms_of_training(self.training_record), "The pipeline", stated)
        check_origin_may_be_shared(ConversionRecord.load(folder), self.training_record, "The pipeline", stated)
        if permission:
            statements = import_path(f"{__package__}.hub.owner_statements:OwnerStatements")
            card_writer()(folder, statements(permission=permission))
        elif not (folder / CARD_FILE).is_file():
            card_writer()(folder)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a pipeline from a folder or a Hub repository, as the class of its method.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            **kwargs: Those of `DiffusionPipeline.from_pretrained`; `dtype` reaches the image generator too,
                `image_generator=` or `image_generator_source=` replaces the saved one, and `drawing_settings=` those
                that were saved: a mapping the values that it names, [`DrawingSettings`] all of them. `unseen_session=`
                says what the processor does with sessions of which it has no statistics, see [`FmriProcessor`].

        Raises:
            FmriModelsError: There is no pipeline, a component is missing or damaged, or it was written by a newer
                version.
        """
        path = str(pretrained_model_name_or_path)
        options = LoadingOptions.of(kwargs, f"{cls.__name__}.from_pretrained")
        folder = local_pipeline(path, options.arguments)
        recover(folder)
        index = read_index(folder)
        pipeline_class = _class_of(index, folder)
        arguments = options.of_saved(pipeline_class, index, folder)
        provenance = Provenance.read(folder, other_brain_model="brain_model" in options.given)
        with read_whole(), loading_errors_as_sentences(path, arguments):
            pipeline = super(StoredPipeline, pipeline_class).from_pretrained(
                str(folder),
                use_safetensors=True,
                **{name: value for name, value in arguments.items() if name not in FETCH_OPTIONS},
            )
            pipeline.register_to_config(_name_or_path=path)
        if not isinstance(pipeline, cls):
            raise FmriModelsError(
                f"{one_line(path)} holds a {type(pipeline).__name__}, not a {cls.__name__}; load it with "
                f"{type(pipeline).__name__} or FmriToImagePipeline."
            )
        if options.unseen_session is not None:
            pipeline.processor.unseen_session = options.unseen_session
        provenance.components = LoadedComponents.of(pipeline, options.given)
        pipeline._provenance = provenance
        pipeline._held.dtype, pipeline._held.variant = options.generators_dtype, options.variant
        pipeline._held.hub_options = options.generators_hub_options
        return pipeline if options.device is None else pipeline.to(options.device)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Any:
        """A pipeline of the components of another one, as in diffusers; how its brain model was trained goes along.

        Args:
            pipeline: A pipeline.
            **kwargs: Those of `DiffusionPipeline.from_pipe`: components and options in place of the other's, and
                `dtype`, which is float32 without.
        """
        take_dtype(kwargs, f"{cls.__name__}.from_pipe")
        if isinstance(pipeline, StoredPipeline):
            # One that is at hand has it already.
            is_named = pipeline._held.at_hand is None and "image_generator" not in kwargs
            kwargs.setdefault(ADAPTER_KEY, pipeline._held.adapter if is_named else None)
        with read_whole():
            made: Any = super().from_pipe(pipeline, **kwargs)
        if isinstance(pipeline, StoredPipeline) and made.brain_model is pipeline.brain_model:
            made._provenance = pipeline._provenance.copy()
            made._held.hub_options, made._held.variant = dict(pipeline._held.hub_options), pipeline._held.variant
        return made

    def register_to_config(self, **kwargs: Any) -> None:
        """Notes values with the pipeline; loaders of diffusers do so with the place that it was loaded from, last."""
        super().register_to_config(**entries_of_index(kwargs))
        if not is_read_whole() and kwargs.get("_name_or_path") is not None:
            self._take_what_lies_beside(Path(kwargs["_name_or_path"]))

    def _take_what_lies_beside(self, folder: Path) -> None:
        """What `from_pretrained` of this class reads besides, of a folder that `DiffusionPipeline` has loaded."""
        # The loader casts networks alone, and a generator is none.
        generator = self._held.at_hand
        if generator is not None and generator.dtype != self.brain_model.dtype:
            generator.to(self.brain_model.dtype)
        if not (folder / INDEX_FILE).is_file():
            logger.warning(
                f"What the pipeline {one_line(folder)} was trained on is not known here, as DiffusionPipeline does not "
                f"fetch it; load it with FmriToImagePipeline.from_pretrained."
            )
            return
        stated = read_index(folder).get("image_generator_source")
        if stated is not None and self._held.source == resolved(parse_source(stated)):
            self._held.refer_to(parse_source(with_places(stated, folder)), self.brain_model)
        self._provenance = Provenance.read(folder)
        self._provenance.components = LoadedComponents.of(self)


def _class_of(index: Mapping[str, Any], folder: Path) -> type[StoredPipeline]:
    """The class of a method's pipeline that an index names.

    Raises:
        FmriModelsError: It is none, or a component without which nothing can be decoded is missing.
    """
    name = index.get("_class_name")
    found = find_class(name) if isinstance(name, str) else None
    if found is None or not issubclass(found, StoredPipeline):
        raise other_class(name, folder)
    for component in COMPONENTS:
        if component not in found._optional_components and not (folder / component).is_dir():
            raise FmriModelsError(
                f"{folder} has no {component}/, without which nothing can be decoded; save the pipeline again."
            )
    return found
