"""What only the owner of weights can state: their licence, whose consent covers them, a permission to pass data on."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FmriModelsError
from ..licenses import HUB_LICENSES, NOT_STATED, license_fields
from ..names import check_line, one_line
from ..reading import parse_yaml, read_text

LIBRARY = "fmri_models"
_HEADER = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---[\r\n]", re.DOTALL)
_CONSENT, _PERMISSION = "consent", "redistribution_permission"
_LICENSE_KEYS = ("license", "license_name", "license_link")
_LONGEST = 1000


@dataclass(frozen=True)
class OwnerStatements:
    """Statements that stand in the header of a card, from where they are read back.

    Args:
        license: Licence of the weights: an id of the Hub, or another name or address; None where it is not stated.
        consent: Whose consent covers that the weights are published, in a line.
        permission: Which written permission there is to pass data on whose licence forbids it, in a line.
    """

    license: str | None = None
    consent: str | None = None
    permission: str | None = None

    def __post_init__(self) -> None:
        for what, value in (("licence", self.license), ("consent", self.consent), ("permission", self.permission)):
            if value is not None:
                check_line(value, what, _LONGEST)

    @classmethod
    def of_card(cls, path: str | os.PathLike) -> "OwnerStatements":
        """Those of a card of this package; none where there is no file.

        Raises:
            FmriModelsError: It is no card of this package.
        """
        header = card_header_of(Path(path))
        license = kept_license(header)
        stated = license.get("license")
        if stated == "other":
            stated = license.get("license_link") or license.get("license_name") or stated
        lines = (_line_of(header.get(key)) for key in (_CONSENT, _PERMISSION))
        return cls(_line_of(stated), *lines)

    def replaced_by(self, given: "OwnerStatements | None") -> "OwnerStatements":
        """These, with what is given in the place of what was stated."""
        if given is None:
            return self
        return replace(self, **{name: value for name, value in asdict(given).items() if value is not None})

    def header_fields(self, kept: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The fields of a card's header: a licence as the Hub takes it, and what was stated besides.

        Args:
            kept: The licence's fields as they stand in the card, which no given licence replaces.
        """
        stated = {_CONSENT: self.consent, _PERMISSION: self.permission}
        return {**_hub_license(self.license or "", kept or {}), **{key: line for key, line in stated.items() if line}}


def card_header_of(path: Path) -> dict[str, Any]:
    """The header of a card of this package; empty where there is no file.

    Raises:
        FmriModelsError: It is no card of this package.
    """
    if not path.is_file():
        return {}
    header = _HEADER.match(read_text(path, "model card", "move it away first"))
    try:
        stated = parse_yaml(_without_placeholder(header[1]), f"The header of {one_line(path)}") if header else None
    except FmriModelsError:
        stated = None
    if not isinstance(stated, dict) or stated.get("library_name") != LIBRARY:
        raise FmriModelsError(f"{one_line(path)} is no model card of {LIBRARY} and would be lost; move it away first.")
    return stated


def _without_placeholder(header: str) -> str:
    """A header in which somebody has stated a licence above what stands there as long as nobody has."""
    if len(re.findall(r"^license:", header, re.MULTILINE)) < 2:
        return header
    return re.sub(r"^license: other\n(license_name: not-stated\n)?", "", header, count=1, flags=re.MULTILINE)


def kept_license(header: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a licence that somebody has stated in a header; empty where nobody has."""
    found = {key: header[key] for key in _LICENSE_KEYS if _is_text(header.get(key))}
    return {} if found == NOT_STATED else found


def _hub_license(license: str, kept: Mapping[str, str]) -> dict[str, str]:
    """What the Hub takes: one of its own ids, or `other` with a name."""
    if kept.get("license") in HUB_LICENSES:
        return dict(kept)
    if license in HUB_LICENSES - {"other"}:
        return {"license": license}
    return {**license_fields(license), **{key: kept[key] for key in kept if key != "license"}}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _line_of(value: Any) -> str | None:
    """A statement that somebody may have written by hand, as one line."""
    return one_line(value.strip(), _LONGEST) if _is_text(value) else None
