"""Modules that belong to subjects, one each and stored under the subject's name: how they are named, today and before.

What they compute is in `encoders.subject_layers`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from torch import nn

from .errors import FmriModelsError

# Of the dot, which separates modules' names, and of names that are taken as they stand.
_ESCAPED = re.compile(r"%[0-9A-F]{2}")


class SubjectModules(nn.Module):
    """One module a subject, each under its subject's name.

    Names of subjects are names of modules as far as these allow it: `subj01` is `subj01`, `a.b` is `a%2Eb`; a number
    alone, or the name of an attribute of modules, has its first character written so (`%31`, `%66loat`). A number alone
    thereby always is the place of a subject, as which modules were stored before they had names: such tensors are read
    as those of the subject at that place.

    Args:
        modules: Subject ▶ module, in the order of the configuration's subjects; a sequence where the subjects have no
            names, whose modules are numbered.
    """

    def __init__(self, modules: Mapping[str, nn.Module] | Sequence[nn.Module]) -> None:
        super().__init__()
        self.has_names = isinstance(modules, Mapping)
        self.names: list[str] = []
        self._keys: list[str] = []
        pairs = modules.items() if isinstance(modules, Mapping) else enumerate(modules)
        for name, module in pairs:
            self._append(str(name), module)

    def _append(self, name: str, module: nn.Module) -> None:
        key = self._key(name) if self.has_names else name
        self.names.append(name)
        self._keys.append(key)
        self.add_module(key, module)

    def _key(self, name: str) -> str:
        """What a subject's module is called."""
        key = name.replace("%", "%25").replace(".", "%2E")
        is_taken = key.isdecimal() or (hasattr(self, key) and key not in self._keys)
        return f"%{ord(key[0]):02X}{key[1:]}" if is_taken else key

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[place] for place in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, subject: int | str) -> Any:
        """The module of a subject, by name or by place."""
        place = self.names.index(subject) if isinstance(subject, str) else subject
        return self._modules[self._keys[place]]

    def new_layer(self, num_voxels: int) -> nn.Module:
        """A module for a further subject of so many voxels, as those that are there were made; it is not added."""
        raise NotImplementedError(f"{type(self).__name__} makes no further modules.")

    def append(self, name: str, num_voxels: int, layer: nn.Module) -> None:
        """Adds the module of a further subject, which is the last one then."""
        self._append(name, layer)

    def remove(self, name: str) -> None:
        """Takes the module of a subject out."""
        place = self.names.index(name)
        del self._modules[self._keys[place]]
        del self.names[place], self._keys[place]

    def key_of(self, name: str) -> str:
        """The name of the subject's module, by which its tensors' names begin."""
        return self._keys[self.names.index(name)]

    def key_today(self, stored: str) -> str:
        """The name of the module whose tensors were stored under a name; that itself, where it is none of an earlier.

        Args:
            stored: Place of a subject, or its name, written as it is today or with other characters escaped.
        """
        if not self.has_names or stored in self._keys:
            return stored
        if stored.isdecimal():
            # Written as by Python, so that 01 is no place.
            is_place = str(int(stored)) == stored and int(stored) < len(self)
            return self._keys[int(stored)] if is_place else stored
        name = unquote(stored) if _ESCAPED.search(stored) else stored
        return self._keys[self.names.index(name)] if name in self.names else stored

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            stored, dot, rest = key.removeprefix(prefix).partition(".")
            if dot and (today := self.key_today(stored)) != stored:
                state_dict[f"{prefix}{today}.{rest}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def subject_modules(network: nn.Module) -> dict[str, SubjectModules]:
    """What a network has of modules that belong to subjects: the name of each container ▶ the container."""
    return {name: module for name, module in network.named_modules() if isinstance(module, SubjectModules)}


def prefixes_today(network: nn.Module, stored: Iterable[str]) -> dict[str, str]:
    """Beginnings of stored tensors' names that are others today: those of subjects' modules that had numbers.

    Args:
        network: The network, which may be on the meta device.
        stored: Names of tensors.

    Returns:
        Stored beginning ▶ the one of today, both with the dot at their end; nothing where all are as today.
    """
    found: dict[str, str] = {}
    containers = subject_modules(network)
    for name in stored if containers else ():
        for place, container in containers.items():
            prefix = f"{place}." if place else ""
            if not name.startswith(prefix):
                continue
            key, dot, _ = name.removeprefix(prefix).partition(".")
            if dot and (today := container.key_today(key)) != key:
                found[f"{prefix}{key}."] = f"{prefix}{today}."
    return found


def name_today(name: str, prefixes: Mapping[str, str]) -> str:
    """A stored tensor's name as it is today, by what `prefixes_today` has found."""
    prefix = next((before for before in prefixes if name.startswith(before)), None)
    return name if prefix is None else prefixes[prefix] + name.removeprefix(prefix)


def former_names(names: Iterable[str], subjects: Sequence[str]) -> dict[str, str]:
    """Names that tensors had when subjects' modules were numbered ▶ those of today.

    Args:
        names: Of today.
        subjects: Names of the subjects, in the order of their numbers.
    """
    former = {}
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts):
            if (subject := unquote(part)) in subjects:
                number = str(subjects.index(subject))
                former[".".join([*parts[:place], number, *parts[place + 1 :]])] = name
    return former


def refuse_unnamed(network: nn.Module, names: Sequence[str]) -> None:
    """Refuses a network whose subjects' modules have no names, or others than its configuration.

    Args:
        network: The network.
        names: Those of the configuration.

    Raises:
        FmriModelsError: Names the container.
    """
    for place, container in subject_modules(network).items():
        if not container.has_names or container.names != list(names):
            raise FmriModelsError(
                f"The layers {place} of {type(network).__name__} are not, by name, of the subjects of its "
                "configuration; the method has to make them with config.voxels_by_subject."
            )
