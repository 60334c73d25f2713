"""How image generators come from folders and repositories, and go into them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field

from ..component_index import check_can_be_saved, check_without_adapters, component_classes
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..hub_repository import (
    UploadedInSentences,
    at_revision,
    check_place,
    commit_of,
    fetch_folder,
    hub_errors_as_sentences,
    is_folder,
    list_files,
    local_folder,
    split_push_options,
    upload_saved,
)
from ..known_classes import entries_of_index
from ..library_options import DIFFUSERS_SAVE_OPTIONS, check_loading_options, not_loaded, take_device_map, take_dtype
from ..names import one_line
from ..offloading import weights_in_place
from ..saving import merged_folder, warn_of_pickles, weights_no_longer_needed
from ..swapping import recover, written_files
from ..weights import check_variant, check_variant_name
from .generator_adapter import AdaptedBase
from .generator_folder import INDEX_FILE, check_generator_folder, check_generator_index, check_schedule, stored_dtypes
from .own_notices import without_own_notices
from .placed_generator import PlacedGenerator
from .source import GeneratorSource

ImageSide = Annotated[int, Field(ge=1, le=2**14)]


class GeneratorOptions(BaseModel):
    """What a recipe or a saved pipeline may say of how a generator is loaded; each generator adds its own.

    Files choose among these alone. All other arguments of `from_source` and `from_pretrained`, those that run code
    among them, come from whoever calls these in Python.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class StoredGenerator(UploadedInSentences, PlacedGenerator):
    """A pipeline whose folder is looked at before it is read, and written as a whole.

    Attributes:
        default_repository: Hub repository of the published weights; None where there are none.
        package_folder: Folder of the weights that come with the package; None where there are none. A pipeline that
            names such a generator is drawn with those of the package that is installed.
        published_spaces: The spaces of these weights, by the names of the properties; stated where they are gigabytes,
            so that what a training costs is counted without loading them. Only shapes matter.
        diffusers_class_names: Names of diffusers' own pipeline classes whose folders this class reads.
        options: Which arguments of `from_source` a file may give.
    """

    default_repository: ClassVar[str | None] = None
    package_folder: ClassVar[Path | None] = None
    published_spaces: ClassVar[Mapping[str, EmbeddingSpace]] = {}
    diffusers_class_names: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[type[GeneratorOptions]] = GeneratorOptions
    # Where it was loaded from; a pipeline refers to such a generator instead of containing it.
    source: GeneratorSource | None = None
    # Of which commit of a Hub repository it is; None where it was not loaded from one.
    commit: str | None = None
    # What the adapter belongs to that it was trained with; None where it has none.
    adapter_base: AdaptedBase | None = None

    @classmethod
    def from_source(
        cls,
        repository: str | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Loads the generator from where its weights were published, or from a copy of that.

        Args:
            repository: Folder or Hub repository; None for `default_repository`, or the package's own weights.
            revision: Branch, tag or commit of a Hub repository.
            subfolder: Folder inside of it that holds `model_index.json`.
            **kwargs: Those of `from_pretrained`, such as `dtype`, `cache_dir`, `local_files_only`; without `dtype`,
                float32.

        Raises:
            FmriModelsError: There is no default, and none was given.
        """
        cls._take_dtype(kwargs)
        source = cls._local_source(repository, revision, subfolder, kwargs)
        return cls.from_pretrained(source, **kwargs, **at_revision(source, revision))

    @classmethod
    def _take_dtype(cls, kwargs: dict[str, Any]) -> None:
        """Leaves what the networks are loaded in as `dtype`, which is float32 where nobody says anything."""
        take_dtype(kwargs, f"{cls.__name__}.from_source", component_classes(cls))
        kwargs.setdefault("dtype", torch.float32)

    @classmethod
    def _local_source(
        cls, repository: str | None, revision: str | None, subfolder: str | None, options: dict[str, Any]
    ) -> str:
        """Folder or repository for `from_pretrained`, which itself knows no subfolders."""
        repository = repository or cls.default_repository
        if repository is None and cls.package_folder is not None:
            repository = str(cls.package_folder)
        if repository is None:
            raise FmriModelsError(f"{cls.__name__} has no published weights; pass repository= with a folder or name.")
        check_place(repository)
        if subfolder is None:
            return repository
        patterns = [f"{subfolder}/*"]
        return str(local_folder(repository, patterns, revision=revision, **hub_options(options)) / subfolder)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a generator from a folder or a Hub repository whose index, configurations and weights are whole.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            **kwargs: Those of `DiffusionPipeline.from_pretrained`, and `subfolder`; components (or None), and
                arguments of the constructor.

        Raises:
            FmriModelsError: The folder is none of this generator, names code, or has weights that are missing,
                unexpected, of other shapes or types, or not finite.
        """
        path = os.fspath(pretrained_model_name_or_path)
        if (subfolder := kwargs.pop("subfolder", None)) is not None:
            path = cls._local_source(path, kwargs.pop("revision", None), subfolder, kwargs)
        trusted = is_trusted(kwargs)
        if not _has_networks(cls):
            kwargs.pop("variant", None)
        if not trusted:
            check_loading_options(cls, kwargs)
        what = f"{cls.__name__}.from_pretrained"
        take_dtype(kwargs, what, component_classes(cls))
        device = take_device_map(kwargs, what)
        folder = Path(path) if is_folder(path) else cls._fetched(path, trusted, kwargs)
        recover(folder)
        if not trusted:
            check_generator_folder(cls, folder, path, kwargs)
            kwargs |= stored_dtypes(cls, folder, kwargs)
        try:
            with without_own_notices():
                loaded = super().from_pretrained(str(folder), **kwargs)
        except FmriModelsError:
            raise
        # Readers of tokenizers, schedulers and preprocessing raise whatever they come upon.
        except Exception as error:
            raise not_loaded(f"The image generator in {one_line(path)}", error, kwargs) from error
        for name, component in loaded.components.items():
            check_schedule(component, f"The {name} of the image generator in {one_line(path)}")
        loaded.register_to_config(_name_or_path=path)
        loaded.commit = commit_of(folder)
        if not loaded._networks and isinstance(kwargs.get("dtype"), torch.dtype):
            loaded.to(kwargs["dtype"])
        return loaded if device is None else loaded.to(device)

    @classmethod
    def _fetched(cls, repository: str, trusted: bool, options: dict[str, Any]) -> Path:
        """The folder of the cache with a generator of the Hub; what its index says is looked at before the rest comes.

        Raises:
            FmriModelsError: It is none of this generator.
            NotFetchedError: It is no repository's id, or is not to be had.
        """
        check_place(repository)
        if not trusted:
            fetching = {"revision": options.get("revision"), **hub_options(options)}
            found = fetch_folder(repository, [INDEX_FILE], **fetching)
            check_generator_index(cls, found / INDEX_FILE, repository, options)
        if options.get("variant") is not None and not options.get("local_files_only"):
            files = list_files(repository, options.get("revision"), options.get("token")) or []
            names = [name.rsplit("/", 1)[-1] for name in files]
            check_variant(names, f"The image generator in {repository}", options["variant"])
        with hub_errors_as_sentences(repository, options.get("revision")):
            return Path(cls.download(repository, **options))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        push_to_hub: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves all components: files of these names are replaced together, everything else in the folder stays.

        Args:
            save_directory: The folder.
            push_to_hub: Upload what was written, too, to `repo_id` or the folder's name.
            safe_serialization: Weights are saved as safetensors, whatever it says.
            variant: Part of the names of the weights files, such as `"fp16"`; the same is given on loading.
            max_shard_size: Size of one weights file.
            **kwargs: Those of `DiffusionPipeline.save_pretrained` and of `push_to_hub`.

        Raises:
            FmriModelsError: A component could not be loaded again (among them networks with an adapter of PEFT), the
                variant is no name, the system refuses to write, or the Hub to take it.
        """
        warn_of_pickles(safe_serialization)
        check_variant_name(variant)
        self.check_can_be_saved()
        self._register_later_components()
        push_options = split_push_options(kwargs, DIFFUSERS_SAVE_OPTIONS)
        with weights_in_place(*self._networks), merged_folder(save_directory, weights_no_longer_needed) as partial:
            super().save_pretrained(str(partial), variant=variant, max_shard_size=max_shard_size, **kwargs)
            files = written_files(partial)
            for file in files:
                if file.endswith(".json"):
                    _without_places(partial / file)
        if push_to_hub:
            upload_saved(save_directory, files, "image generator", push_options)

    def check_can_be_saved(self) -> None:
        """Refuses components that could not be loaded again.

        Raises:
            FmriModelsError: Names the first one.
        """
        check_without_adapters(self.components, type(self).__name__)
        check_can_be_saved(self.components, type(self).__name__)

    def register_to_config(self, **kwargs: Any) -> None:
        """Notes values with the generator, classes of other packages under the name by which a loader finds them."""
        super().register_to_config(**entries_of_index(kwargs))

    def _register_later_components(self) -> None:
        """Makes components that were None at first what diffusers saves."""
        later = {name: each for name, each in self.components.items() if self.config[name][0] is None}
        self.register_modules(**{name: component for name, component in later.items() if component is not None})


def is_trusted(options: Mapping[str, Any]) -> bool:
    """Whether whoever calls `from_pretrained` with these arguments lets code of others run."""
    return options.get("trust_remote_code") is True or options.get("custom_pipeline") is not None


def _has_networks(generator_class: type) -> bool:
    """Whether any component may have weights, of which there can be variants."""
    allowed = component_classes(generator_class).values()
    return any(issubclass(each, torch.nn.Module) for component in allowed for each in component)


def hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options of `from_pretrained` that say how files are fetched."""
    names = ("cache_dir", "token", "local_files_only", "force_download", "proxies")
    return {name: options[name] for name in names if name in options}


def _without_places(file: Path) -> None:
    """Where a component was loaded from is nobody else's business."""
    values = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(values, dict) and values.keys() & {"_name_or_path", "name_or_path"}:
        kept = {key: value for key, value in values.items() if key not in ("_name_or_path", "name_or_path")}
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
