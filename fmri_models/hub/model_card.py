"""The card of a repository that is a single brain model, processor or subject."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..component_index import CARD_FILE
from ..configuration_fmri import FmriConfig
from ..entry_points import OWN_PACKAGE
from ..errors import FmriModelsError
from ..known_classes import find_model
from ..names import one_line
from ..processing_fmri import FmriProcessor
from ..project import install_lines
from ..records import Method
from ..registry import METHODS
from ..saving import write_text
from ..subject_folder import SUBJECT_FILE, SubjectRecord
from ..version import __version__
from .card_facts import citations, responsible_use
from .card_header import PIPELINE_TAG, header_text
from .card_template import rendered
from .owner_statements import LIBRARY, OwnerStatements, card_header_of, kept_license


def write_model_card(
    folder: str | os.PathLike, statements: OwnerStatements | None = None, tags: Sequence[str] = ()
) -> Path:
    """Writes the card of a folder that holds a brain model, a processor or a subject, replacing an earlier one.

    Args:
        folder: Where the model, the processor or the subject was saved.
        statements: What the owner of the weights states; what is None stays as an earlier card says it.
        tags: Further tags.

    Returns:
        The card's path.

    Raises:
        FmriModelsError: The folder holds none, or has a README.md that is no card of this package.
    """
    folder = Path(folder)
    card = folder / CARD_FILE
    stated = OwnerStatements.of_card(card).replaced_by(statements)
    header = card_header_of(card)
    kept = kept_license(header) if statements is None or statements.license is None else {}
    config = FmriConfig.from_pretrained(str(folder)) if (folder / "config.json").is_file() else None
    subject = SubjectRecord.of_folder(folder) if (folder / SUBJECT_FILE).is_file() else None
    method = _method_of_subject(subject) if subject is not None else None if config is None else _method_of(config)
    tags = list(
        dict.fromkeys(["fmri", "brain-decoding", *([] if method is None else [method.name]), *_tags(header), *tags])
    )
    data = ModelCardData(library_name=LIBRARY, pipeline_tag=PIPELINE_TAG, tags=tags, **stated.header_fields(kept))
    package = None if method is None else METHODS.package(method.name)
    text = rendered(
        "brain_model.md",
        card_data=header_text(data),
        title=_title(method, subject),
        config=config,
        subject=subject,
        auto_class="AutoFeatureExtractor" if config is None else "AutoModel",
        other_package=None if package == OWN_PACKAGE else package,
        subjects={subject.subject: subject.num_voxels} if subject is not None else _subjects(folder, config),
        install_lines=install_lines(),
        license=stated.license,
        consent=stated.consent,
        permission=stated.permission,
        notice=responsible_use(simulated=None),
        citations=citations([] if method is None or method.paper is None else [method.paper], __version__),
    )
    write_text(card, text)
    return card


def _tags(header: Mapping[str, Any]) -> list[str]:
    """Those of an earlier card."""
    found = header.get("tags")
    return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []


def _method_of(config: FmriConfig) -> Method | None:
    found = (method for method in METHODS.in_order() if method.config.endswith(f":{type(config).__name__}"))
    return next(found, None)


def _method_of_subject(subject: SubjectRecord) -> Method | None:
    model_class = find_model(subject.method)
    name = None if model_class is None else model_class.config_class.__name__
    return next((method for method in METHODS.in_order() if method.config.endswith(f":{name}")), None)


def _title(method: Method | None, subject: SubjectRecord | None) -> str:
    if subject is not None:
        return f"{subject.subject}, a subject of {subject.method if method is None else method.title}"
    return "Processor of fMRI voxels" if method is None else method.title


def _subjects(folder: Path, config: FmriConfig | None) -> dict[str, int | str]:
    """Subject ▶ voxels."""
    if config is not None:
        return dict(zip(config.subject_names, config.num_voxels, strict=True))
    if not (folder / "preprocessor_config.json").is_file():
        raise FmriModelsError(f"{one_line(folder)} holds neither a brain model nor a processor; check the path.")
    processor = FmriProcessor.from_pretrained(str(folder))
    fitted = processor.is_fitted
    return {name: processor.subject(name).num_voxels if fitted else "not fitted" for name in processor.subject_names}
