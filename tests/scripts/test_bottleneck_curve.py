"""A curve of a method that learns by gradient: trained for each number of dimensions, kept, and gone on with."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fmri_models.data import TrialTable
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.bottleneck_curve import BottleneckContent
from scripts import bottleneck_curve as script
from tests.evaluation.regional_table import Region, write_regional_table
from tests.small_table import write_kfold, write_small_table
from tests.training.small_recipes import recipes_in, small_method


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    subjects = {"subj01": [Region("V1", 40, 3), Region("", 5, 0)]}
    data = write_regional_table(folder / "data", subjects, noise=0.1)
    with small_method():
        yield folder, data, recipes_in(folder, data)


def test_patterns_hold_no_more_than_k_numbers_and_keep_their_width(made, tmp_path):
    _, data, recipes = made
    table = TrialTable.open(data)
    (found,) = script.subject_maps(recipes(), table, "reduced_rank", 10).values()
    for name, subject in {"2": found.of_dimensions(2), "0": found.uninformed(seed=0)}.items():
        script.write_reduced_table(table, tmp_path / name, {"subj01": subject}, int(name))
    reduced = TrialTable.open(tmp_path / "2")
    assert reduced.num_voxels("subj01") == 45 and reduced.voxels("subj01").roi[-1] == ""
    for part in ("train", "test"):
        own, before = (each.trials("subj01", part) for each in (reduced, table))
        assert own.stimulus_ids.tolist() == before.stimulus_ids.tolist()
        lengths = np.linalg.svd(own.fmri() - own.fmri().mean(axis=0), compute_uv=False)
        assert lengths[2] < 1e-4 * lengths[0] and lengths[1] > 1e-2 * lengths[0]
    assert np.array_equal(reduced.stimuli.images(["picture000"]), table.stimuli.images(["picture000"]))
    noise = TrialTable.open(tmp_path / "0").trials("subj01", "test")
    lengths = np.linalg.svd(noise.fmri() - noise.fmri().mean(axis=0), compute_uv=False)
    assert lengths[1] < 1e-4 * lengths[0]
    shown = table.stimuli.images(noise.stimulus_ids).reshape(len(noise), -1)
    brightest = np.abs(np.corrcoef(noise.fmri()[:, 0], shown.T)[0, 1:])
    assert brightest.max() < 0.65


def test_trials_that_are_learned_from_get_what_a_map_without_them_gives(made):
    _, data, recipes = made
    table = TrialTable.open(data)
    (found,) = script.subject_maps(recipes(), table, "reduced_rank", 10).values()
    trained = table.trials("subj01", "train")
    given = found._dimensions(trained, np.arange(3))
    assert np.array_equal(given.numpy(), found.map.training[:3].numpy())
    inside = found.map(found.processor(trained.fmri(np.arange(3)), session=[1, 1, 1], return_tensors="np")["fmri"])
    assert not np.allclose(inside.numpy(), given.numpy(), rtol=1e-3)


def test_of_single_trials_and_another_split_and_subject(tmp_path):
    data = write_small_table(tmp_path / "data")
    write_kfold(data, "kfold3", 3)
    table = TrialTable.open(data)
    with small_method():
        recipe = recipes_in(tmp_path, data)("out", "split=kfold3", "fold=1", "subjects=[subj02]")
        maps = script.subject_maps(recipe, table, "principal_components", 10)
    reduced = {name: each.of_dimensions(4) for name, each in maps.items()}
    script.write_reduced_table(table, tmp_path / "reduced", reduced, 4, "kfold3")
    written = TrialTable.open(tmp_path / "reduced")
    assert written.subjects == ["subj02"] and written.num_folds("kfold3") == 3
    for part in ("train", "test"):
        own, before = (each.trials("subj02", part, "kfold3", 1) for each in (written, table))
        assert own.trials.tolist() == before.trials.tolist()
    assert set(maps["subj02"].learned) == set(table.trials("subj02", "train", "kfold3", 1).trials.tolist())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"folds": "all"}, "one fold"),
        ({"sources": ["elsewhere"]}, "has sources"),
        ({"data": None}, "has no data"),
    ],
)
def test_what_no_reduced_table_says_anything_of_is_refused(made, changes, said):
    recipe = made[2]()
    for name, value in changes.items():
        # As recipes check themselves when they are made.
        object.__setattr__(recipe, name, value)
    with pytest.raises(FmriModelsError, match=said):
        script.check_recipe(recipe, [1])
    with pytest.raises(FmriModelsError, match="whole numbers from 1"):
        script.check_recipe(made[2](), [0, 1])


@pytest.mark.slow
def test_a_curve_is_trained_once_and_gone_on_with(made, capsys, monkeypatch):
    folder, _, recipes = made
    steps = "stages.0.training.steps=400"
    recipe = replace(recipes("curve/full/pipeline", steps))
    curve = script.Curve(recipe, folder / "curve", [1, 3], protocol="small_pictures")
    notes = curve.run()
    assert notes[0].startswith("Bottleneck, two-way pixels: the full decoder scores")
    content = json.loads((folder / "curve" / "curve.json").read_text())
    BottleneckContent.model_validate(content)
    assert content["method"] == "small" and content["dimensions"] == [0, 1, 3]
    values = {name: found["pairwise_pixcorr"]["value"] for name, found in content["results"].items()}
    assert set(values) == {"floor", "0", "1", "3", "full", "ceiling"}
    assert values["0"] < 0.65 and values["1"] < values["3"] and values["3"] > values["full"] - 0.05
    assert {"curve.md", "curve.json"} <= {path.name for path in (folder / "curve").iterdir()}
    capsys.readouterr()
    # Another number is trained, and the others are not.
    trained = []
    monkeypatch.setattr(
        script,
        "train",
        lambda *args, before=script.train, **options: trained.append(args[0].out) or before(*args, **options),
    )
    replace(curve, dimensions=[1, 2, 3]).run()
    assert [out.split("/")[-2] for out in trained] == ["2"]
    assert capsys.readouterr().out.count("finished, kept") == 4
    with pytest.raises(FmriModelsError, match="curve of another map"):
        replace(curve, map_name="principal_components").run()
    with pytest.raises(FmriModelsError, match="curve of another recipe"):
        replace(curve, recipe=recipes("curve/full/pipeline", "stages.0.training.steps=41")).run()
