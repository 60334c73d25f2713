"""What is deprecated works, says what to write instead and until when, and is taken away in time."""

import importlib
import inspect
import pkgutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fmri_models
from fmri_models import FmriModelsError, LinearConfig, LinearModel, scenes, simulation
from fmri_models.data import TrialTable
from fmri_models.data.processed import ProcessedTrials
from fmri_models.data.table_processor import fit_processor
from fmri_models.deprecation import DEPRECATIONS, Deprecation, former_name, moved_names, renamed_argument, renamed_field
from fmri_models.output_folders import RECONSTRUCTIONS, check_output_folder
from fmri_models.registry import get_method
from fmri_models.saving import atomic_folder
from tests.small_table import write_small_table


@pytest.fixture(autouse=True)
def declared_here_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test deprecates is not looked for afterwards."""
    monkeypatch.setattr("fmri_models.deprecation.DEPRECATIONS", list(DEPRECATIONS))


def declared() -> list[Deprecation]:
    """All that the package deprecates."""
    for module in pkgutil.walk_packages(fmri_models.__path__, "fmri_models."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return DEPRECATIONS


def test_nothing_that_is_deprecated_has_outlived_its_time() -> None:
    found = declared()
    assert len(found) > 20
    late = [f"{each.what} (since {each.since}, goes in {each.goes})" for each in found if each.is_overdue()]
    assert late == [], "take these away, or deprecate them in a later release and say why in CHANGELOG.md"


@pytest.mark.parametrize(
    ("version", "overdue"),
    [("0.1.0.dev0", False), ("0.1.3", False), ("0.2.0", False), ("0.3.0.dev0", True), ("0.3.0", True), ("1.0.0", True)],
)
def test_it_stays_for_two_releases(version: str, overdue: bool) -> None:
    deprecation = Deprecation("this is that now; please write that", since="0.1")
    assert deprecation.goes == "0.3"
    assert deprecation.is_overdue(version) is overdue
    assert Deprecation("a later one", since="0.9").goes == "0.11"


def test_it_says_what_to_write_and_until_when_and_points_at_whoever_wrote_it() -> None:
    deprecation = Deprecation("this is that now; please write that", since="0.1")

    def this() -> None:
        deprecation.warn()

    with pytest.warns(FutureWarning) as seen:
        this()
    (warning,) = seen
    assert str(warning.message) == "this is that now; please write that. From fmri_models 0.3 on this is an error."
    assert warning.filename == __file__
    with pytest.warns(FutureWarning, match="^that of mine; please write this. From fmri_models 0.3"):
        deprecation.warn(what="that of mine; please write this")


def test_a_release_is_two_numbers() -> None:
    with pytest.raises(ValueError, match=r"is deprecated since 'soon'; write a release, such as '0.1'"):
        Deprecation("this", since="soon")


@pytest.mark.parametrize(
    ("old", "new"), [("fmri_models.data.simulator", simulation), ("fmri_models.data.scenes", scenes)]
)
def test_the_old_place_has_the_public_names_and_says_where_they_are_now(old: str, new: object) -> None:
    module = importlib.import_module(old)
    for name in getattr(new, "__all__", ["Scene", "SceneFactors", "scene", "scene_records", "scene_seeds"]):
        with pytest.warns(FutureWarning, match=f"{old}.{name} is {new.__name__}.{name} now"):
            assert getattr(module, name) is getattr(new, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vars(module)["__getattr__"]("nothing")


@pytest.mark.parametrize(
    ("old", "name", "new", "now"),
    [
        ("fmri_models.data.processed", "fit_processor", "fmri_models.data.table_processor", "fit_processor"),
        ("fmri_models.data.splits", "SplitRows", "fmri_models.data.split_trials", "SplitTrials"),
    ],
)
def test_single_names_moved(old: str, name: str, new: str, now: str) -> None:
    with pytest.warns(FutureWarning, match=f"{old}.{name} is {new}.{now} now"):
        assert getattr(importlib.import_module(old), name) is getattr(importlib.import_module(new), now)


def test_a_name_that_was_changed_is_found_by_its_old_one() -> None:
    find = moved_names("here", "fmri_models.scenes", {"draw": "scene"}, since="0.1")
    with pytest.warns(FutureWarning, match=r"here.draw is fmri_models.scenes.scene now"):
        assert find("draw") is scenes.scene
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'scene'"):
        find("scene")


def test_an_argument_that_was_changed_is_taken_by_its_old_name() -> None:
    @renamed_argument("kinds", "targets", since="0.1")
    def learned(targets: list[str]) -> list[str]:
        return targets

    assert learned(["latents"]) == learned(targets=["latents"]) == ["latents"]
    with pytest.warns(FutureWarning, match="kinds of learned is targets now"):
        assert learned(kinds=["latents"]) == ["latents"]  # type: ignore[call-arg]


def test_arguments_of_methods_are_taken_by_their_old_names() -> None:
    space = {"encoder": "tiny", "layer": "latent", "shape": [2]}
    model = LinearModel(LinearConfig(subject_names=["a"], num_voxels=[3], latent_space=space))
    old_model: Any = model
    with pytest.warns(FutureWarning, match="part of head is target now"):
        assert old_model.head(part="latents", subject="a") is model.head("latents", "a")
    method: Any = get_method("linear")
    with pytest.warns(FutureWarning, match="part of load is role now"):
        assert method.load(part="model") is LinearModel


def test_methods_are_called_by_their_old_names(tmp_path: Path) -> None:
    table: Any = TrialTable.open(write_small_table(tmp_path / "table"))
    trials = table.all_trials("subj02")
    shown = trials.stimulus_ids[:3]
    with pytest.warns(FutureWarning, match="rows is positions now"):
        assert table.stimuli.rows(shown) == table.stimuli.positions(shown)
    with pytest.warns(FutureWarning, match="fmri_blocks is fmri_chunks now"):
        betas = np.concatenate(list(table.fmri_blocks("subj02")))
    np.testing.assert_array_equal(betas, trials.fmri())
    with pytest.warns(FutureWarning, match="rows of fmri is positions now"):
        np.testing.assert_array_equal(trials.fmri(rows=[1, 0]), betas[[1, 0]])
    with pytest.warns(FutureWarning, match="rows of subset is positions now"):
        assert trials.subset(rows=slice(2)).stimulus_ids.tolist() == shown[:2].tolist()
    options: Any = {"repetitions_a_row": 4}
    with pytest.warns(FutureWarning, match="repetitions_a_row of ProcessedTrials is repetitions_an_example now"):
        examples = ProcessedTrials(trials, fit_processor(table, ["subj02"]), "all", **options)
    assert examples.shape == (4, 45)


def test_folders_are_written_by_the_old_name_of_their_format(tmp_path: Path) -> None:
    old: Any = {"kind": RECONSTRUCTIONS}
    with pytest.warns(FutureWarning, match="kind of atomic_folder is folder_format now"):
        writing = atomic_folder(tmp_path / "out", **old)
    with writing as folder:
        (folder / "notes.txt").touch()
    with (
        pytest.warns(FutureWarning, match="kind of check_output_folder"),
        pytest.raises(FmriModelsError, match="is no"),
    ):
        check_output_folder(tmp_path / "out", overwrite=True, **old)


def test_each_way_says_until_when() -> None:
    @renamed_argument("kinds", "targets", since="0.4")
    def learned(targets: str) -> str:
        return targets

    class Table:
        def chunks(self) -> str:
            return "chunks"

        blocks = former_name("blocks", chunks, since="0.4")

    find = moved_names("here", "fmri_models.scenes", since="0.4")
    for use in (lambda: learned(kinds="latents"), Table().blocks, lambda: find("scene")):  # type: ignore[call-arg]
        with pytest.warns(FutureWarning, match=r"From fmri_models 0\.6 on this is an error\.$") as seen:
            use()
        assert seen[0].filename == __file__


def test_a_field_that_was_changed_is_taken_and_given_by_its_old_name() -> None:
    @renamed_field("parts", "modules", since="0.1")
    @dataclass
    class Learned:
        modules: tuple[str, ...] = ()
        weight: float = 1.0

    with pytest.warns(FutureWarning, match="parts of Learned is modules now; please write modules"):
        found: Any = Learned(weight=2.0, parts=("prior",))  # type: ignore[call-arg]
    assert found == Learned(("prior",), 2.0) == replace(found, weight=2.0) and asdict(found)["modules"] == ("prior",)
    with pytest.warns(FutureWarning, match="please write modules"):
        assert found.parts == ("prior",)
    assert list(inspect.signature(Learned).parameters) == ["modules", "weight"]
