"""Options with one value are given once; those that collect values collect all."""

import argparse

import pytest

from fmri_models.cli.console import SeedOption
from fmri_models.cli.main import build_parser, main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--model", "a", "--model", "b", "--data", "c", "--out", "d"], "--model is given twice"),
        (["evaluate", "--model", "a", "--data", "c", "--out", "d", "--seed", "1", "--seed=2"], "--seed is given twice"),
        (["space", "--port", "7860", "--port", "7861"], "--port is given twice"),
        (["space", "--port", "99999999"], "'99999999' is no port; expected a number from 1 to 65535"),
        (["space", "--port=-1"], "'-1' is no port"),
        (["space", "--port", "0"], "'0' is no port"),
        (["convert", "mindeye", "x.pth", "fmri_models_version=3", "--out", "x"], "no field 'fmri_models_version'"),
        (["convert", "mindeye", "x.pth", "dtype=float16", "--out", "x"], "no field 'dtype'"),
    ],
)
def test_what_would_have_no_effect_is_refused(capsys, arguments, message):
    try:
        code = main(arguments)
    except SystemExit as usage:
        code = usage.code
    assert code in (1, 2) and message in capsys.readouterr().err


def test_options_that_collect_values_may_be_repeated():
    parsed = build_parser().parse_args(
        ["prepare", "arrays", "--out", "x", "--fmri", "a=1.npy", "b=2.npy", "--fmri", "c=3.npy", "--voxels", "v.csv"]
    )
    assert (parsed.fmri, parsed.voxels) == (["a=1.npy", "b=2.npy", "c=3.npy"], ["v.csv"])
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, action=SeedOption, nargs="+", default=[0])
    assert parser.parse_args(["--seed", "1", "2", "--seed", "3"]).seed == [1, 2, 3]
    assert parser.parse_args([]).seed == [0]
