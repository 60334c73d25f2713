"""Records that lie beside a pipeline's components: a file of JSON with a schema version, checked on reading."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

from .reading import checked, read_object
from .saving import check_schema, json_text, write_text


class SavedRecord:
    """Base of dataclasses that are such a file; the fields are its keys, `schema` among them.

    Attributes:
        file: Name of the file.
        newest_schema: The newest version of it that is read.
        what: What messages call it.
        mend: What to do about a damaged one, as the end of a sentence.
    """

    file: ClassVar[str]
    newest_schema: ClassVar[int]
    what: ClassVar[str]
    mend: ClassVar[str]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the record into a folder."""
        write_text(Path(folder) / self.file, self.to_json())

    def to_json(self) -> str:
        """What the file holds."""
        return json_text(asdict(self))  # type: ignore[call-overload]

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Self | None:
        """Reads the record of a folder; None if it has none.

        Raises:
            FmriModelsError: It is damaged, or was written by a newer version.
        """
        path = Path(folder) / cls.file
        # What is there and no file must not pass for a pipeline without a record, which may be evaluated on anything.
        if not os.path.lexists(path):
            return None
        return cls.from_dict(read_object(path, cls.what, cls.mend), str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str) -> Self:
        """The record that the values of such a file make.

        Args:
            values: What was read.
            source: Where it was read, for messages.

        Raises:
            FmriModelsError: A value is missing, unknown or of another type, or a newer version has written it.
        """
        check_schema(values.get("schema"), cls.newest_schema, source)
        entries = cls.checked_entries(values, f"the {cls.what} {source}")
        return checked({**values, **entries}, cls, f"The {cls.what} {source}", cls.mend)

    @classmethod
    def checked_entries(cls, values: Mapping[str, Any], named: str) -> dict[str, Any]:
        """Values that are checked one by one, so that a message names the one that does not fit; by default none.

        Args:
            values: What was read.
            named: What messages call the record, with its place.
        """
        return {}
