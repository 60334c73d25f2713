"""Subjects that are read by another's decoder: planted brains, and that nothing but shared training stimuli is used."""

import numpy as np
import pytest
import torch

from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.errors import FmriModelsError
from fmri_models.models.linear import LinearConfig, LinearModel, LinearObjective
from fmri_models.models.linear.aligned_subjects import mean_responses, shared_stimuli

VOXELS = {"subj01": 20, "subj02": 24, "subj03": 16}


def brains(stimuli, first=0, noise=0.1, repetitions=2, seed=0):
    """Subject ▶ trials of the same stimuli, linear in the targets in each subject's own way."""
    rng = np.random.default_rng(seed)
    values = np.random.default_rng(1000 + first).normal(size=(stimuli, 6)).astype(np.float32)
    index = np.repeat(np.arange(stimuli), repetitions)
    found = {}
    for number, (subject, voxels) in enumerate(VOXELS.items()):
        # Rotations of the same six dimensions, which all of the maps can undo.
        tuning = 3 * np.linalg.qr(np.random.default_rng(number).normal(size=(voxels, 6)))[0].T
        fmri = values[index] @ tuning + noise * rng.normal(size=(len(index), voxels))
        ids = np.array([f"s{first + row}" for row in index])
        found[subject] = ClosedFormTrials(fmri.astype(np.float32), ids, {"latents": IndexedTargets(values, index)})
    return found


def make_model(subjects=tuple(VOXELS)):
    space = {"encoder": "tiny", "layer": "latent", "shape": [2, 3]}
    voxels = [VOXELS[subject] for subject in subjects]
    return LinearModel(
        LinearConfig(subject_names=list(subjects), num_voxels=voxels, latent_space=space, targets_a_block=4)
    )


def read(model, subject, trials):
    fmri = torch.from_numpy(trials[subject].fmri)
    fmri = torch.nn.functional.pad(fmri, (0, max(model.config.num_voxels) - fmri.shape[1]))
    found = model(fmri, [subject] * len(fmri)).latents.flatten(1).detach().numpy()
    return np.corrcoef(found.flatten(), trials[subject].targets["latents"].columns(slice(None)).flatten())[0, 1]


@pytest.mark.parametrize("method", ["ridge", "procrustes", "template", "shared_response"])
def test_the_others_are_read_by_one_decoder(method):
    model, unseen = make_model(), brains(30, first=500, seed=9)
    objective = LinearObjective(penalties=[1.0], aligned_to="subj02", alignment=method, shared_dimensions=6)
    errors = objective.fit(model, brains(60))
    assert set(errors) == {"subj02"} and set(model.config.penalties) == {"subj02"}
    assert model.config.alignment == {"to": "subj02", "method": method, "stimuli": 60}
    assert all(read(model, subject, unseen) > 0.9 for subject in VOXELS)


def test_it_is_kept_and_said(tmp_path):
    model = make_model()
    LinearObjective(penalties=[1.0], aligned_to="subj02").fit(model, brains(20))
    model.save_pretrained(tmp_path)
    read_again = LinearModel.from_pretrained(tmp_path)
    assert read_again.config.alignment == model.config.alignment
    (note,) = read_again.config.notes_on_training
    assert note.startswith("subj01, subj03 are read by the decoder of subj02") and "20 training stimuli" in note
    with pytest.raises(FmriModelsError, match="as alignment; expected to"):
        LinearConfig(
            **{**make_model().config.to_dict(), "alignment": {"to": "subj09", "method": "ridge", "stimuli": 2}}
        )


def test_the_fitted_decoder_is_that_of_the_subject_alone():
    alone, aligned = make_model(["subj02"]), make_model()
    LinearObjective(penalties=[3.0]).fit(alone, {"subj02": brains(40)["subj02"]})
    LinearObjective(penalties=[3.0], aligned_to="subj02").fit(aligned, brains(40))
    for one, other in zip(
        alone.heads["latents"].parameters(), aligned.head("latents", "subj02").parameters(), strict=True
    ):
        torch.testing.assert_close(one, other)
    # It is saved and read as any other is.
    assert aligned.config.alignment["to"] == "subj02" and alone.config.alignment is None


def test_targets_of_the_others_are_never_looked_at():
    """A map is learned from responses alone."""
    trials, blind = brains(40), brains(40)
    for subject in ("subj01", "subj03"):
        blind[subject].targets["latents"] = IndexedTargets(
            np.full((40, 6), np.nan, np.float32), np.repeat(range(40), 2)
        )
    one, other = make_model(), make_model()
    for model, given in ((one, trials), (other, blind)):
        LinearObjective(penalties=[1.0], aligned_to="subj02").fit(model, given)
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key])


def test_stimuli_that_one_subject_alone_saw_are_for_the_decoder_alone():
    trials = brains(30)
    more = brains(30, first=900)["subj02"]
    values = np.concatenate([trials["subj02"].targets["latents"].values, more.targets["latents"].values])
    trials["subj02"] = ClosedFormTrials(
        np.concatenate([trials["subj02"].fmri, more.fmri]),
        np.concatenate([trials["subj02"].stimulus_ids, more.stimulus_ids]),
        {"latents": IndexedTargets(values, np.repeat(np.arange(60), 2))},
    )
    assert shared_stimuli(trials) == sorted(f"s{number}" for number in range(30))
    model = make_model()
    LinearObjective(penalties=[1.0], aligned_to="subj02").fit(model, trials)
    assert model.config.alignment["stimuli"] == 30
    tenth = shared_stimuli(trials, 0.1, seed=1)
    assert (
        len(tenth) == 3 and tenth != shared_stimuli(trials, 0.1, seed=2) and set(tenth) <= set(shared_stimuli(trials))
    )


def test_repetitions_are_averaged():
    trials = brains(5, noise=1.0)["subj01"]
    found = mean_responses(trials, ["s3"])
    np.testing.assert_allclose(found[0], np.asarray(trials.fmri)[6:8].mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("subjects", "options", "message"),
    [
        (tuple(VOXELS), {"aligned_to": "subj09"}, "aligned_to is subj09, which is none of the subjects subj01, subj02"),
        (("subj02",), {"aligned_to": "subj02"}, "the one subject that there is"),
        (
            tuple(VOXELS),
            {"aligned_to": "subj02", "alignment": "shared_response", "shared_dimensions": 12},
            "12 dimensions needs .* there are 10 shared stimuli",
        ),
        (tuple(VOXELS), {"aligned_to": "subj02", "shared_share": 0.0}, "shared_share"),
        (tuple(VOXELS), {"aligned_to": "subj02", "alignment": "anatomy"}, "alignment"),
    ],
)
def test_what_can_not_be_aligned(subjects, options, message):
    with pytest.raises(FmriModelsError, match=message):
        LinearObjective(penalties=[1.0], **options).fit(make_model(subjects), brains(10))


def test_subjects_without_a_common_stimulus():
    trials = {**brains(10), "subj03": brains(10, first=500)["subj03"]}
    with pytest.raises(FmriModelsError, match="subj01, subj02, subj03 have 0 training stimuli in common"):
        LinearObjective(penalties=[1.0], aligned_to="subj02").fit(make_model(), trials)


@pytest.mark.parametrize(("stimuli", "warns"), [(19, True), (20, False)])
def test_a_map_of_few_shared_stimuli_is_said_to_be_one(stimuli, warns, caplog):
    with caplog.at_level("WARNING", "fmri_models"):
        LinearObjective(penalties=[1.0], aligned_to="subj02").fit(make_model(), brains(stimuli))
    assert (f"by {stimuli} shared stimuli alone" in caplog.text) == warns
