"""The contract of objectives: defaults, checks, and what was written before there were base classes."""

import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field
from torch import nn

from fmri_models import ClosedFormObjective, FmriModelsError, GradientObjective, LinearConfig, LinearModel
from fmri_models.objectives import Batch, Gather, derived_objective
from fmri_models.option_types import NumberFromZero, PositiveNumber, Share, in_words
from tests.small_demo import blocks_of

SPACE = {"encoder": "pixels", "layer": "latent", "shape": [1, 2, 3]}


def make_model() -> LinearModel:
    torch.manual_seed(0)
    model = LinearModel(LinearConfig(subject_names=["subj01"], num_voxels=[5], latent_space=SPACE))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def make_batch(examples: int = 4) -> Batch:
    source = torch.Generator().manual_seed(1)
    return {
        "fmri": torch.randn(examples, 5, generator=source),
        "subject_ids": torch.zeros(examples, dtype=torch.long),
        "stimulus_ids": [f"s{number}" for number in range(examples)],
        "latents": torch.randn(examples, 1, 2, 3, generator=source),
    }


@dataclass
class Smallest(GradientObjective[LinearModel]):
    """All that has to be written."""

    def losses(
        self, model: LinearModel, batch: Batch, progress: float, gather: Gather, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        output = model(gather(batch["fmri"]), batch["subject_ids"], latents=gather(batch["latents"]))
        return {"loss": output.loss * progress}


def test_the_smallest_objective_has_a_default_for_everything_else() -> None:
    objective, model = Smallest(), make_model()
    assert objective.targets is None and not objective.takes_repetitions
    assert (objective.few_stimuli, objective.few_stimuli_with_simulation) == (0, 0)
    assert objective.prepare(model, examples=None) is None  # type: ignore[func-returns-value, arg-type]
    assert [id(each) for each in objective.trainable(model)] == [id(each) for each in model.parameters()]
    decayed, rest = objective.parameter_groups(model, 0.1)
    assert {each.ndim for each in decayed["params"]} == {2} and decayed["weight_decay"] == 0.1
    assert {each.ndim for each in rest["params"]} == {1} and rest["weight_decay"] == 0.0
    source = torch.Generator()
    at_the_end = objective.losses(model, make_batch(), 1.0, lambda tensor: tensor, source)
    assert torch.equal(objective.validation_metrics(model, make_batch(), source)["loss"], at_the_end["loss"])


def test_what_has_to_be_written_is_named() -> None:
    with pytest.raises(TypeError, match="abstract method '?losses"):
        GradientObjective()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract method '?fit"):
        ClosedFormObjective()  # type: ignore[abstract]


def test_the_example_of_the_documentation_is_an_objective(repository) -> None:
    block = next(each for each in blocks_of(repository / "docs" / "training.md") if "MyMethodObjective" in each)
    names: dict[str, Any] = {"__name__": __name__}
    exec(block, names)
    losses = names["MyMethodObjective"]().losses(make_model(), make_batch(), 0.0, None, torch.Generator())
    assert losses["loss"].requires_grad
    with pytest.raises(FmriModelsError, match="objective.voxel_noise is -1; expected a number from 0"):
        names["MyMethodObjective"](voxel_noise=-1)


@dataclass
class Checked(Smallest):
    share: Share = 0.5
    positive: PositiveNumber = 1.0
    from_zero: NumberFromZero = 0.0
    whole: Annotated[int, Field(ge=2)] = 2
    either: Annotated[Literal["a", "b"] | None, in_words("a or b, or null for neither")] = None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("share", 1.5, "1.5; expected a number from 0 to 1"),
        ("share", True, "True; expected a number from 0 to 1"),
        ("positive", 0, "0; expected a positive number"),
        ("positive", float("nan"), "nan; expected a positive number"),
        ("from_zero", float("inf"), "inf; expected a number from 0"),
        ("from_zero", "1", "'1'; expected a number from 0"),
        ("whole", 1, "1; expected greater than or equal to 2"),
        ("either", "c", "'c'; expected a or b, or null for neither"),
    ],
)
def test_fields_are_checked_by_their_types(name: str, value: Any, expected: str) -> None:
    with pytest.raises(FmriModelsError, match=rf"^objective\.{name} is {expected}; correct it\.$"):
        Checked(**{name: value})
    assert Checked(share=1, positive=3, from_zero=0, either="a").share == 1


@dataclass
class WrittenBefore:
    """As the documentation said before there were base classes."""

    factor: float = 1.0
    target_kinds = ("latents",)

    def losses(self, model: Any, batch: Any, progress: float, gather: Any, generator: Any) -> dict[str, torch.Tensor]:
        return {"loss": self.factor * model(batch["fmri"], batch["subject_ids"], latents=batch["latents"]).loss}

    def validation_metrics(self, model: Any, batch: Any, generator: Any) -> dict[str, torch.Tensor]:
        return {"loss": torch.ones(())}

    def trainable(self, model: Any) -> list[nn.Parameter]:
        return list(model.parameters())[:1]


def test_an_objective_without_a_base_class_works_and_is_asked_to_have_one() -> None:
    with pytest.warns(FutureWarning, match="WrittenBefore derives from no base .* from GradientObjective"):
        found = derived_objective(WrittenBefore)
    objective: Any = found(factor=2.0)  # type: ignore[call-arg]
    assert isinstance(objective, GradientObjective) and not isinstance(objective, ClosedFormObjective)
    assert objective.targets == ("latents",) and not objective.takes_repetitions
    assert len(objective.trainable(make_model())) == 1 and len(objective.parameter_groups(make_model(), 0.1)) == 2
    assert objective.validation_metrics(make_model(), make_batch(), torch.Generator())["loss"] == 1
    before = WrittenBefore(2.0).losses(make_model(), make_batch(), 0.0, None, None)["loss"]
    assert torch.equal(objective.losses(make_model(), make_batch(), 0.0, None, None)["loss"], before)


@dataclass
class WrittenBeforeWithOptions:
    """What the trainer asks for may be known of the object alone."""

    takes_repetitions: bool
    kinds: list[str]

    def __post_init__(self) -> None:
        self.target_kinds, self.few_stimuli = tuple(self.kinds), 7

    def losses(self, *given: Any) -> dict[str, torch.Tensor]:
        return {}


def test_an_objective_without_a_base_class_is_asked_itself_and_can_be_copied() -> None:
    with pytest.warns(FutureWarning):
        found: Any = derived_objective(WrittenBeforeWithOptions)
    objective = found(True, ["latents"])
    same = "WrittenBeforeWithOptions(takes_repetitions=True, kinds=['latents'])"
    for each in (objective, copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        assert (each.targets, each.takes_repetitions, each.few_stimuli) == (("latents",), True, 7)
        assert isinstance(each, GradientObjective) and each == objective and repr(each) == same
    assert copy.deepcopy(objective).kinds is not objective.kinds
    assert found.__module__ == WrittenBeforeWithOptions.__module__


def test_an_objective_in_closed_form_without_a_base_class_works_too() -> None:
    class Fits:
        def fit(self, model: Any, trials: Mapping[str, Any], validation: Any) -> str:
            return "fitted"

    with pytest.warns(FutureWarning, match="from ClosedFormObjective"):
        objective: Any = derived_objective(Fits)()
    assert isinstance(objective, ClosedFormObjective) and objective.fit(None, {}, None) == "fitted"
    assert [objective.settled(100, number, False) for number in (0, 5)] == ["leave_one_stimulus_out", "validation"]


@pytest.mark.parametrize("found", [int, len, None])
def test_what_is_no_objective_is_a_sentence(found: Any) -> None:
    with pytest.raises(FmriModelsError, match="derive it from GradientObjective or from ClosedFormObjective"):
        derived_objective(found)
