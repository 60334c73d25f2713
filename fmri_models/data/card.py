"""The data set card: what a person reads, and the YAML by which `datasets.load_dataset` finds the files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard

from ..licenses import license_fields
from ..names import check_line, markdown
from ..reading import parse_yaml, read_text
from . import schema
from .table_terms import LEFT_OUT
from .windows import Windows

_PERMISSION = "redistribution_permission"
_DESCRIPTION = "A trial table: single-trial betas and what was shown."
_ABOUT_STIMULI = "in their own configuration, each once; trials refer to them by `stimulus_id`"
_WITHOUT_PICTURES = "without pictures, which may not be passed on: ids, captions, categories and hashes of pixels"
_LOAD_STIMULI = 'stimuli = load_dataset("FOLDER", "{}", split="train")\n'
_TEMPLATE = """---
{header}---

# {name}

{description}

- **Responses:** {responses}{cautions}
- **Source:** {source}
- **License:** {license}{permission}
- **Subjects:** {subjects}
- **Stimuli:** {stimuli}
{prepared}
```python
from fmri_models.data import TrialTable

table = TrialTable.open("FOLDER")
trials = table.trials("{first}", "{first_split}")
betas = trials.fmri({positions})  # ({num_shown}, {voxels}) float32
```

or, without this package:

```python
from datasets import load_dataset

trials = load_dataset("FOLDER", split="{first_split}")  # of {first}; others by name: load_dataset("FOLDER", "{last}")
{load_stimuli}```

`voxels/` has the voxels (ROI, position, noise ceiling), `splits/` says which trials may be learned from. A trial table
(schema {schema}) written by fmri_models {version}.
"""


def data_card(metadata: Mapping, permission: str | None = None) -> str:
    """The card's text for a table's metadata (`table.json`).

    Args:
        metadata: What `table.json` holds.
        permission: Which written permission there is to pass data on whose terms forbid it.
    """
    said = check_line(permission or "", "permission")
    stated = {_PERMISSION: said} if said else {}
    first, last = (_with_trials(metadata)[end] for end in (0, -1))
    first_split = _parts(metadata, first)[0]
    shown = list(range(min(2, metadata["trials"][first][first_split])))
    return _TEMPLATE.format(
        header=yaml.safe_dump({**_header(metadata), **stated}, sort_keys=False, allow_unicode=True),
        name=markdown(metadata["name"]),
        description="\n".join(map(markdown, metadata["description"].splitlines())) or _DESCRIPTION,
        responses=_responses(metadata),
        cautions="".join(f"\n- **Caution:** {markdown(each)}" for each in metadata.get("cautions", [])),
        source=markdown(metadata["source"]) or "not stated",
        license=markdown(metadata["license"]) or "not stated",
        permission=f"\n- **Passed on with permission:** {markdown(said)}" if said else "",
        subjects=", ".join(f"{s} ({metadata['num_voxels'][s]:,} voxels)" for s in metadata["subjects"]),
        first=first,
        stimuli=_about_stimuli(metadata),
        load_stimuli=_LOAD_STIMULI.format(_stimuli_config(metadata)) if _has_stimuli(metadata) else "",
        last=last,
        first_split=first_split,
        prepared=_prepared(metadata),
        positions=shown,
        num_shown=len(shown),
        voxels=metadata["num_voxels"][first],
        schema=metadata["schema"],
        version=metadata["package_version"],
    )


def _about_stimuli(metadata: Mapping) -> str:
    if not _has_stimuli(metadata):
        return "none; trials have an empty `stimulus_id`"
    return f"{_ABOUT_STIMULI}; {_WITHOUT_PICTURES}" if metadata.get(LEFT_OUT) is True else _ABOUT_STIMULI


def _responses(metadata: Mapping) -> str:
    """What was recorded, and in which windows."""
    modality = "" if metadata.get("modality", "fmri") == "fmri" else f" ({metadata['modality'].upper()}, not fMRI)"
    windows = Windows.of_metadata(metadata)
    said = "" if windows is None else f". {markdown(windows.sentence())} `Trials.windows()` gives them in that shape"
    return ("**simulated**, no human data" if metadata["simulated"] else "measured") + modality + said


def _prepared(metadata: Mapping) -> str:
    """By what published files were read, and how they can be known again."""
    prepared = metadata.get("prepared")
    if not isinstance(prepared, Mapping):
        return ""
    files = prepared.get("files")
    files = files if isinstance(files, Mapping) else {}
    size = sum(each.get("bytes", 0) for each in files.values() if isinstance(each, Mapping))
    summed = all(isinstance(each, Mapping) and "sha256" in each for each in files.values())
    with_sums = " with their SHA-256" if files and summed else ""
    script = f"{prepared.get('script')}, version {prepared.get('script_version')}"
    return (
        f"- **Prepared by:** {markdown(script)}, from {len(files)} files ({size / 1e6:,.1f} MB), which `table.json` "
        f"lists{with_sums}\n"
    )


def permission_on_card(card: Path) -> str | None:
    """The written permission that a table's card names; None where it names none, or is somebody else's."""
    return _permission_in(read_text(card, "data set card", "write it again"))


def _permission_in(text: str) -> str | None:
    header = re.match(r"\s*---\n(.*?)\n---\n", text, re.DOTALL)
    if header is None or re.search(rf"^{_PERMISSION}:", header[1], re.MULTILINE) is None:
        return None
    values = parse_yaml(header[1], "The header of the data set card")
    found = values.get(_PERMISSION) if isinstance(values, dict) else None
    return found if isinstance(found, str) and found.strip() else None


def with_permission(text: str, metadata: Mapping, permission: str) -> str:
    """A card that names a permission: anew where it is as it was written, else in its header alone."""
    if text in (data_card(metadata), data_card(metadata, _permission_in(text))):
        return data_card(metadata, permission)
    card = DatasetCard(text, ignore_metadata_errors=True)
    card.data[_PERMISSION] = check_line(permission, "permission")
    return str(card)


def _header(metadata: Mapping) -> dict:
    # What is loaded without a name: the trials of the first subject, since subjects differ in their voxels.
    configs: list[dict[str, Any]] = [
        {
            "config_name": subject,
            "data_files": [
                {"split": split, "path": f"{schema.TRIALS_FOLDER}/{subject}/{split}-*.parquet"}
                for split in _parts(metadata, subject)
            ],
        }
        for subject in _with_trials(metadata)
    ]
    if configs:
        configs[0]["default"] = True
    if _has_stimuli(metadata):
        stimuli = {"split": "train", "path": f"{schema.STIMULI_FOLDER}/stimuli-*.parquet"}
        configs.append({"config_name": _stimuli_config(metadata), "data_files": [stimuli]})
    return {
        "pretty_name": metadata["name"],
        **license_fields(metadata["license"]),
        "tags": [
            metadata.get("modality", "fmri"),
            "brain-decoding",
            "fmri_models",
            *(["simulated"] if metadata["simulated"] else []),
        ],
        "configs": configs,
    }


def _with_trials(metadata: Mapping) -> list[str]:
    """The subjects that have trials; first the one that is loaded without a name."""
    subjects = [subject for subject in metadata["subjects"] if _parts(metadata, subject)]
    # `datasets` takes a configuration of this name as the default one, and refuses another that is marked so.
    return sorted(subjects, key=lambda subject: subject != "default")


def _has_stimuli(metadata: Mapping) -> bool:
    """Whether anything was shown; a table of fMRI alone has no files of stimuli."""
    return any(counts.get(part) for counts in metadata["trials"].values() for part in schema.SPLITS)


def _stimuli_config(metadata: Mapping) -> str:
    """Under which name the stimuli are loaded, which no subject may have too."""
    return next(name for name in (schema.STIMULI_FOLDER, "pictures", "shown") if name not in metadata["subjects"])


def _parts(metadata: Mapping, subject: str) -> list[str]:
    return [split for split in schema.FILE_PARTS if metadata["trials"][subject].get(split)]
