"""What can be said of a saved pipeline without its weights: its configuration, its processor, its records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configuration_fmri import SPACES, FmriConfig
from ..conversion_record import ConversionRecord
from ..drawing_settings import DrawingSettings
from ..entry_points import OWN_PACKAGE
from ..errors import FmriModelsError
from ..generation.loading import image_generator_class, image_generator_name, parse_source
from ..generation.source import GeneratorSource
from ..names import as_sentence, one_line
from ..pipeline_folder import INDEX_FILE, read_index, saved_settings
from ..processing_fmri import FmriProcessor
from ..records import Method
from ..registry import METHODS
from ..training_record import TrainingRecord


@dataclass
class SavedPipeline:
    """A pipeline's folder, as far as a card speaks of it.

    Args:
        folder: Where it is.
        method: Its method.
        generator: Class of the image generator that lies in the folder; None without one.
        generator_source: Where its image generator is, if it is named.
        drawing_settings: What it draws with.
        version: Which version of the package has saved it.
        config: Of the brain model.
        processor: The processor.
        record: How it was trained; None where nothing says so.
        conversion: What it was converted from; None for one that was trained.
    """

    folder: Path
    method: Method
    generator: str | None
    generator_source: GeneratorSource | None
    drawing_settings: DrawingSettings
    version: str
    config: FmriConfig
    processor: FmriProcessor
    record: TrainingRecord | None
    conversion: ConversionRecord | None

    @classmethod
    def read(cls, folder: Path) -> "SavedPipeline":
        """Reads a folder.

        Raises:
            FmriModelsError: It is no pipeline of this package, or it is not whole.
        """
        index = _read_index(folder)
        method = _method_of(folder, index)
        if absent := [name for name in ("brain_model", "processor") if not (folder / name).is_dir()]:
            raise FmriModelsError(
                f"The pipeline in {one_line(folder)} is not whole: it has no {absent[0]}/; save or download it again."
            )
        try:
            config = method.load("config").from_pretrained(str(folder / "brain_model"))
            processor = FmriProcessor.from_pretrained(str(folder / "processor"))
        except FmriModelsError as error:
            raise FmriModelsError(f"The pipeline in {one_line(folder)} is not whole: {error}") from error
        # Configurations are made by each method's own constructor, which raises whatever it does on wrong values.
        except Exception as error:
            raise FmriModelsError(
                f"The configuration of the brain model in {one_line(folder)} can't be read ({one_line(error)}); save "
                "or download the pipeline again."
            ) from error
        source = index.get("image_generator_source")
        return cls(
            folder,
            method,
            generator=(index.get("image_generator") or [None, None])[1],
            generator_source=None if source is None else parse_source(source),
            drawing_settings=saved_settings(index, folder) or DrawingSettings(),
            version=str(index.get("fmri_models_version", "unknown")),
            config=config,
            processor=processor,
            record=TrainingRecord.load(folder),
            conversion=ConversionRecord.load(folder),
        )

    @property
    def name(self) -> str:
        """The method's, with that of the table that it was trained on."""
        return self.method.name if self.record is None else f"{self.method.name}-{self.record.table}"

    @property
    def other_package(self) -> str | None:
        """The package that has to be installed for the method; None for the methods of this one."""
        package = METHODS.package(self.method.name)
        return None if package == OWN_PACKAGE else package

    @property
    def settings_used(self) -> dict[str, Any]:
        """The drawing settings that change something, as far as the generator's class tells."""
        source = self.generator_source
        name = image_generator_name(self.generator or "") if source is None else source.name
        values = self.drawing_settings.to_dict()
        if name is None:
            return values
        used = {*image_generator_class(name).used_settings}
        # The method may sample what is drawn from.
        used |= {"num_candidates", "selection"} if used else set()
        used -= set() if self.config.decodes_image_and_text else {"text_to_image_ratio"}
        return {name: value for name, value in values.items() if name in used}

    @property
    def draws(self) -> bool:
        """Whether there is an image generator, in the folder or by name."""
        return self.generator is not None or self.generator_source is not None

    @property
    def decodes(self) -> bool:
        """Whether the model decodes anything that pictures are drawn from or found by."""
        return any(self.config.space(name) is not None for name in SPACES)

    @property
    def generator_limits(self) -> str | None:
        """What the image generator's pictures are not, for a generator of this package."""
        if self.generator is not None:
            name = image_generator_name(self.generator)
        else:
            name = None if self.generator_source is None else self.generator_source.name
        limits = None if name is None else image_generator_class(name).limits
        return None if limits is None else as_sentence(limits)


def _read_index(folder: Path) -> dict[str, Any]:
    if not (folder / INDEX_FILE).is_file():
        raise FmriModelsError(
            f"{one_line(folder)} has no readable {INDEX_FILE}, so it is no saved pipeline; pass the folder that "
            "training wrote (with folds, one of fold00, fold01 …)."
        )
    return read_index(folder)


def _method_of(folder: Path, index: dict[str, Any]) -> Method:
    class_name = index.get("_class_name")
    for method in METHODS.in_order():
        if method.pipeline.endswith(f":{class_name}"):
            return method
    raise FmriModelsError(
        f"{one_line(folder)} holds a {one_line(repr(class_name))}, which is no pipeline of this package; check the "
        "name."
    )
