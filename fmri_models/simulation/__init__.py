"""A model of the visual brain that decoders can be checked against: pictures to single-trial betas.

Its equations, constants and limits are in docs/simulator.md. What it makes is always called simulated.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .brain import Experiment, Simulator, SimulatorConfig
    from .tables import simulate

__all__ = ["Experiment", "Simulator", "SimulatorConfig", "simulate"]

_MODULES = {"Experiment": "brain", "Simulator": "brain", "SimulatorConfig": "brain", "simulate": "tables"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
