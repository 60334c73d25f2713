"""One range of seeds, wherever one is given, and nothing but generators where generators belong."""

import numpy as np
import pytest
import torch

from fmri_models.cli.main import main
from fmri_models.drawing_settings import DrawingSettings
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import n_way_accuracy, retrieval_accuracy
from fmri_models.evaluation.images import evaluate_images
from fmri_models.evaluation.seeded_drawing import SeededDrawing
from fmri_models.seeds import LARGEST_SEED, check_seed, checked_generators
from fmri_models.simulation.brain import SimulatorConfig
from fmri_models.training.recipe import load_recipe

WRONG = [-1, LARGEST_SEED + 1, 2**63, 2**70, 10**400]
COMMANDS = [
    "demo --out {out}",
    "simulate --stimuli builtin:scenes --subjects 1 --out {out}",
    "prepare digits69 --source nowhere --out {out}",
    "prepare arrays --fmri x.npy --events e.csv --stimuli pics --out {out}",
    "data split nowhere --name a --by stimulus",
    "reconstruct --model nowhere --fmri x.npy --subject subj01 --out {out}",
    "evaluate --model nowhere --data nowhere --out {out}",
    "evaluate --images nowhere --truth nowhere --out {out}",
]


@pytest.mark.parametrize("seed", [*WRONG, 0.5, float("nan"), True, None, "1", [1]])
def test_what_is_no_seed_is_a_sentence(seed):
    with pytest.raises(FmriModelsError, match=r"^The seed is .*; expected a whole number from 0 to 4294967295\.$"):
        check_seed(seed)


def test_seeds():
    with pytest.raises(FmriModelsError, match="The seed is a number of more than 38 digits"):
        check_seed(-(10**5000))
    assert [check_seed(seed) for seed in (0, LARGEST_SEED, np.int64(7))] == [0, LARGEST_SEED, 7]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("seed", WRONG[:3])
def test_every_command_refuses_it_before_the_work(command, seed, tmp_path, capsys):
    assert main([*command.format(out=tmp_path / "out").split(), "--seed", str(seed)]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [f"fmri-models: error: The seed is {seed}; expected a whole number from 0 to {LARGEST_SEED}."]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["x", "1.5", "1e3", ""])
def test_what_is_no_number_is_wrong_usage(text, tmp_path, capsys):
    try:
        code = main(["demo", "--out", str(tmp_path / "out"), "--seed", text])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert "seed" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("seed", WRONG[:2])
def test_so_do_recipes_the_simulator_and_the_scores(seed, tmp_path):
    values = torch.rand(4, 3)
    for call in (
        lambda: load_recipe("linear", [f"seed={seed}"]),
        lambda: SimulatorConfig(seed=seed),
        lambda: retrieval_accuracy(values, values, pool_size=2, seed=seed),
        lambda: n_way_accuracy(values, torch.zeros(4), 2, trials=3, seed=seed),
        lambda: evaluate_images(tmp_path, tmp_path, tmp_path / "out", seed=seed),
    ):
        with pytest.raises(FmriModelsError, match=f"seed is {seed}; expected a whole number from 0 to 4294967295"):
            call()


def test_generators():
    one, other = torch.Generator(), torch.Generator()
    assert checked_generators(None, 2) is None
    assert checked_generators(one, 2) is one
    assert checked_generators((one, other), 2) == [one, other]
    for wrong, message in (
        (0, "generator is 0; expected a torch.Generator"),
        (True, "generator is True; expected"),
        ("cpu", "generator is 'cpu'; expected"),
        ([0, 1], r"generator is 0; expected .*manual_seed\(0\) makes one"),
        ([one, None], "generator is None; expected"),
        (np.random.default_rng(0), "generator is a Generator; expected"),
        ([one], "A list with one generator was given for 2 patterns; pass a torch.Generator, not in a list"),
        ([one] * 3, "3 generators were given for 2 patterns"),
        ([], "0 generators were given for 2 patterns"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            checked_generators(wrong, 2)


def test_seeds_of_numpy_draw_as_those_of_python():
    logits, targets = torch.rand(5, 10), torch.arange(5)

    def score(seed):
        return n_way_accuracy(logits, targets, 3, trials=20, seed=seed)

    assert score(np.int64(3)) == score(3) == score(np.random.default_rng(3))
    assert isinstance(score(np.random.RandomState(3)), float)
    for wrong in (1.5, "1", None, True):
        with pytest.raises(FmriModelsError, match="expected a whole number from 0"):
            score(wrong)
    assert type(SimulatorConfig(seed=np.int64(3)).seed) is int
    drawings = [SeededDrawing(DrawingSettings(), seed).sources(2) for seed in (3, np.int64(3))]
    assert len({source.initial_seed() for drawing in drawings for source in drawing}) == 2
