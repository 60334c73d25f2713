"""The audit on real pipelines: one that has memorised, one that has not, and subjects of one width."""

import json

import pytest

from fmri_models import FmriModelsError, FmriToImagePipeline
from fmri_models.auditing.audit import Audit
from fmri_models.cli.main import main
from fmri_models.examples import EXAMPLES_FOLDER, TRIALS_FOLDER
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests import small_table
from tests.small_table import write_small_table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two subjects with as many voxels as training pictures, so that weights can memorise."""
    with pytest.MonkeyPatch.context() as patch:
        for name in small_table.NUM_VOXELS:
            patch.setitem(small_table.NUM_VOXELS, name, 60)
        return write_small_table(tmp_path_factory.mktemp("data") / "table", noise=2.0)


def trained(table, out, penalty, *changes):
    fixed = f"stages.0.objective.penalties=[{penalty}]"
    train(load_recipe("linear", [f"data={table}", f"out={out}", "generator=pixels", fixed, *changes]))
    return out


@pytest.fixture(scope="module")
def memorised(table, tmp_path_factory):
    return trained(table, tmp_path_factory.mktemp("memorised") / "out", 1e-3)


@pytest.mark.slow
def test_what_was_memorised_is_told_and_more_than_pictures_tell(memorised, table):
    audit = Audit.of(memorised, table)
    for each in audit.membership:
        assert each.area is not None and each.baseline is not None and each.difference_ci95 is not None
        assert each.area.value > 0.7 and each.area.ci95[0] > 0.5 and each.area.p < 0.02
        assert each.difference_ci95[0] > 0
        assert each.area.n == (70, 12) and each.sessions == [1, 2, 3]


def test_a_model_that_learned_nothing_of_the_pictures_tells_nothing(memorised, table, tmp_path):
    import torch

    pipeline = FmriToImagePipeline.from_pretrained(memorised)
    with torch.no_grad():
        for parameter in pipeline.brain_model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    pipeline.save_pretrained(tmp_path / "random")
    audit = Audit.of(tmp_path / "random", table)
    assert all(each.area.ci95[0] <= 0.5 <= each.area.ci95[1] for each in audit.membership)
    assert any("has learned from" in note for note in audit.notes), "the weights were changed since"


def test_a_subject_that_is_named_twice_is_audited_once(memorised, table):
    audit = Audit.of(memorised, table, subjects=["subj02", "subj02"])
    assert [each.subject for each in audit.membership] == ["subj02"]
    assert audit.to_dict()["versions"]["torch"]


def test_people_are_told_by_their_layers(memorised, table):
    for each in Audit.of(memorised, table).identification:
        assert each.others and each.identified and each.area is not None and each.area > 0.6
        assert each.stimuli == 12


def test_one_subject_is_not_identified(table, tmp_path):
    (found,) = Audit.of(trained(table, tmp_path / "out", 100, "subjects=[subj07]"), table).identification
    assert found.area is None and "one subject" in found.not_defined


@pytest.mark.slow
def test_the_command_writes_what_it_says(memorised, table, tmp_path, capsys):
    arguments = ["audit", str(memorised), "--data", str(table), "--subject", "subj07", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["subject"] for each in told["membership"]] == ["subj07"]
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == told
    page = (tmp_path / "out" / "audit.md").read_text()
    assert "membership, subj07" in page and "simulated" in page and str(tmp_path) not in page
    assert main(arguments) == 0 and "membership, subj07" in capsys.readouterr().out


def test_what_can_not_be_audited_is_refused_in_a_sentence(memorised, table, capsys):
    trials = EXAMPLES_FOLDER / TRIALS_FOLDER
    assert main(["audit", str(memorised), "--data", str(trials)]) == 1
    assert "another content" in capsys.readouterr().err
    with pytest.raises(FmriModelsError, match="no subject 'nobody'; it has"):
        Audit.of(memorised, table, subjects=["nobody"])
