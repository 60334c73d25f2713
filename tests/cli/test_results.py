"""`--json`: one object on standard output, whatever happens; and what commands say beside it."""

import json
import os
import subprocess
import sys

import pytest

from fmri_models.cli.main import build_parser, main
from fmri_models.cli.results import commands_of
from tests.new_process import python
from tests.small_table import PARTS, write_small_table


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    data = write_small_table(folder / "data", subjects=("subj07",))
    assert main(["train", "linear", f"data={data}", f"out={folder / 'model'}", "generator=pixels"]) == 0
    return folder


def found(capsys, *arguments, code=0):
    """Runs a command with --json; gives the object, and what was said beside it."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == code
    out, err = capsys.readouterr()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(out, parse_constant=refuse), err


def leaves(parser):
    commands = commands_of(parser)
    return [leaf for command in commands.values() for leaf in leaves(command)] if commands else [parser]


def test_every_command_with_results_has_the_option():
    without = {
        leaf.prog.split(maxsplit=1)[1]
        for leaf in leaves(build_parser())
        if "--json" not in {flag for action in leaf._actions for flag in action.option_strings}
    }
    assert without == {"space", "completion"}


def test_data(workplace, capsys):
    about, err = found(capsys, "data", "info", workplace / "data")
    assert about["subjects"]["subj07"]["trials_of_parts"].keys() == {"train", "validation", "test"}
    assert about["subjects"]["subj07"]["dropped_voxels"] == 0
    assert about["splits"]["default"]["folds"] == 1
    assert "subj07: " in err
    checked, _ = found(capsys, "data", "validate", workplace / "data")
    assert checked["findings"] == []
    split, _ = found(capsys, "data", "split", workplace / "data", "--name", "ten", "--by", "kfold", "--folds", "3")
    assert split["folds"] == 3
    few = ["data", "split", workplace / "data", "--name", "few", "--by", "fewer", "--trials", "12"]
    split, _ = found(capsys, *few)
    assert split["folds"] == 1


def test_training_and_what_it_would_take(workplace, capsys, tmp_path):
    arguments = ["train", "linear", f"data={workplace / 'data'}", f"out={tmp_path / 'model'}", "generator=pixels"]
    estimate, _ = found(capsys, *arguments, "--dry-run")
    assert "memory" in [line["name"] for line in estimate["estimate"]]
    trained, _ = found(capsys, *arguments)
    assert trained["pipelines"] == [str(tmp_path / "model")]
    # The pictures are too small for networks.
    assert "--protocol small_pictures" in trained["next"]


@pytest.mark.slow
def test_evaluating_comparing_drawing_and_retrieving(workplace, capsys, tmp_path):
    model, data = workplace / "model", workplace / "data"
    for name, seed in (("one", 0), ("two", 1)):
        options = ["--protocol", "small_pictures", "--seed", seed]
        evaluated, err = found(capsys, "evaluate", "--model", model, "--data", data, "--out", tmp_path / name, *options)
        assert "best control" in err
    written = json.loads((tmp_path / "two" / "report.json").read_text())
    assert evaluated["report"]["results"] == written["results"]
    compared, _ = found(capsys, "compare", tmp_path / "one", tmp_path / "two")
    assert [report["name"] for report in compared["reports"]] == ["one", "two"]
    assert compared["differences_from_first"]["two"]["pixcorr"]["n"] == PARTS["test"]
    patterns = ["--model", model, "--fmri", data, "--subject", "subj07"]
    drawn, _ = found(capsys, "reconstruct", *patterns, "--out", tmp_path / "pictures")
    assert drawn["pictures"] == PARTS["test"]
    gallery = ["--gallery", tmp_path / "one" / "images" / "truth", "--top-k", 2]
    retrieved, _ = found(capsys, "retrieve", *patterns, *gallery)
    assert len(retrieved["results"]) == 2 * PARTS["test"]
    assert isinstance(retrieved["results"][0]["similarity"], float)
    carded, _ = found(capsys, "card", model, "--report", tmp_path / "one")
    assert carded["has_figures"] is True
    fitted, _ = found(capsys, "fit-processor", model, "--data", data)
    assert fitted["subjects"] == ["subj07"]


def test_simulating(capsys, tmp_path):
    numbers = ["--trials", 30, "--validation", 5, "--test", 5, "--repetitions", 1, "--voxels", 50]
    simulated, err = found(capsys, "simulate", "--stimuli", "builtin:scenes", *numbers, "--out", tmp_path / "table")
    assert simulated["table"] == str(tmp_path / "table")
    assert "fmri-models train linear" in simulated["next"]
    assert "Simulating subj01: 30/30 trials" in err


def test_errors_are_objects_too(workplace, capsys):
    failed, err = found(capsys, "data", "info", "nowhere", code=1)
    assert f"fmri-models: error: {failed['error']}" in err
    failed, err = found(
        capsys, "reconstruct", "--model", "nowhere", "--fmri", "x", "--subject", "y", "--out", "z", code=1
    )
    assert "The folder nowhere does not exist" in failed["error"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["--json", "evaluate"])
    assert ended.value.code == 2
    assert "--out" in json.loads(capsys.readouterr().out)["error"]


def test_findings_stand_beside_the_error(workplace, capsys, tmp_path):
    import shutil

    shutil.copytree(workplace / "data", tmp_path / "table")
    file = next((tmp_path / "table").rglob("*test*.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    failed, _ = found(capsys, "data", "validate", tmp_path / "table", code=1)
    assert failed["findings"] and "problem" in failed["error"]


def test_what_other_programs_print_is_no_result(tmp_path):
    """A data set script may run what it likes."""
    (tmp_path / "files").mkdir()
    (tmp_path / "mine.py").write_text(
        "import os\n\ndef prepare(source, out, **options):\n"
        "    os.system('echo from a shell')\n    print('from Python')\n"
        "    raise ValueError('no such data')\n"
    )
    command = [
        sys.executable,
        "-m",
        "fmri_models.cli.main",
        "prepare",
        "mine.py",
        "--source",
        "files",
        "--out",
        "o",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "no such data" in json.loads(finished.stdout)["error"]
    assert "from a shell" in finished.stderr and "from Python" in finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "linaer"], "Did you mean 'linear'?"),
        (["train", "linear", "lerning=3"], "unknown key 'lerning'"),
        (["train", "linear", "data=nowhere", "out=x"], "does not exist"),
        (["evaluate", "--model", "nowhere", "--data", "d", "--out", "x"], "The folder nowhere does not exist"),
        (["evaluate", "--model", ".", "--data", ".", "--out", "x", "--protocol", "z"], "There is no protocol 'z'"),
        (["card", "nowhere"], "The folder nowhere does not exist"),
        (["compare", ".", "a"], "There is no report a"),
        (["compare", ".", "."], "given twice"),
        (["reconstruct", "--model", ".", "--fmri", "f", "--subject", "s", "--out", "full"], "apart from it"),
    ],
)
def test_wrong_arguments_are_answered_before_pytorch_is_loaded(arguments, message, tmp_path):
    program = f"""
import sys
from fmri_models.cli.main import main
code = main({arguments!r})
print(code, "torch" in sys.modules)
"""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == ["1", "False"], finished.stderr
    assert message in finished.stderr


def test_warnings_are_sentences_once_each(capsys, monkeypatch, workplace):
    import logging
    import warnings

    from fmri_models.command_output import in_sentences

    logger = logging.getLogger("fmri_models.anything")
    with in_sentences("fmri-models"):
        for _ in range(2):
            warnings.warn("Voxels without variance\nbecome 0.", UserWarning, stacklevel=1)
            logger.warning("The best penalty is an end of the range.")
        warnings.warn("will be removed", FutureWarning, stacklevel=1)
        logger.info("Going on from there.")
    assert capsys.readouterr().err.splitlines() == [
        "fmri-models: warning: Voxels without variance become 0.",
        "fmri-models: warning: The best penalty is an end of the range.",
        "fmri-models: Going on from there.",
    ]


# What a command may change of a process that goes on after it.
STATE = """
import logging, os, sys
{imports}
def state():
    environment = {{name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}}
    return environment, sys.stdout, sys.stderr, sys.stdout.errors, sys.stderr.errors
def levels():
    return [vars(logging.getLogger(name))["level"] for name in ("transformers", "diffusers", "fmri_models")]
before, levels_before = state(), levels()
from fmri_models.cli.main import main
assert main(["card", {model!r}]) == 0
assert state() == before, (state(), before)
"""
SAID = "from transformers.utils import logging as a; from diffusers.utils import logging as b; " + (
    "a.set_verbosity_info(); b.set_verbosity_info()"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("imports", "environment", "check"),
    [
        (SAID, {}, "levels() == levels_before"),
        # Of libraries that the command imports.
        ("", {"TRANSFORMERS_VERBOSITY": "info"}, "levels() == [logging.INFO, logging.WARNING, 0]"),
    ],
)
def test_a_process_goes_on_as_it_was(workplace, imports, environment, check):
    program = STATE.format(imports=imports, model=str(workplace / "model")) + f"assert {check}, levels()"
    ours = ("VERBOSITY", "TOKENIZERS", "GOMP", "KMP", "OMP_WAIT")
    clean = {name: value for name, value in os.environ.items() if not any(part in name for part in ours)}
    subprocess.run([*python(), "-c", program], check=True, env={**clean, **environment})


def shell(command, folder):
    """Runs a line of a shell in which `fm` is the command."""
    line = f'fm() {{ "{sys.executable}" -m fmri_models.cli.main "$@"; }}; {command}'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["", "--json"])
def test_streams_that_are_closed(workplace, option):
    closed = shell(f"fm data info data {option} >&-", workplace)
    assert closed.returncode == 0 and (closed.stderr == b"") is (option == "")
    closed = shell(f"fm data info data {option} 2>&-", workplace)
    assert closed.returncode == 0 and closed.stdout
    assert shell(f"fm data info nowhere {option} >&- 2>&-", workplace).returncode == 1
    closed = shell(f"fm data info nowhere {option} >&-", workplace)
    assert closed.returncode == 1 and b"does not exist" in closed.stderr and b"Traceback" not in closed.stderr
    closed = shell(f"fm data info nowhere {option} 2>&-", workplace)
    assert closed.returncode == 1 and (b"does not exist" in closed.stdout) is (option == "--json")
    closed = shell(f"fm --help {option} >&-", workplace)
    assert closed.returncode == 0 and closed.stderr == b""


def test_a_file_does_not_take_the_place_of_a_closed_stream(workplace):
    """What a library in C writes would be written into it."""
    program = (
        "import os\n"
        "from fmri_models.command_output import writable_streams\n"
        "with writable_streams():\n"
        "    file = open('opened', 'w')\n"
        "    assert file.fileno() > 2\n"
        "    os.write(1, b'from C')\n"
    )
    (workplace / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        line = f'"{sys.executable}" program.py {closed}'
        subprocess.run(["bash", "-c", line], cwd=workplace, env=environment, check=True)
        assert (workplace / "opened").read_bytes() == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
@pytest.mark.parametrize("module", ["fmri_models.cli.main", "fmri_models.training.__main__"])
def test_characters_that_the_output_has_not(environment, module):
    arguments, function = (["demo"], "demo.run") if "cli" in module else (["linear"], "program.run")
    program = (
        f"import sys; from fmri_models.cli import demo; import {module} as program; "
        f"{function} = lambda args: print(chr(8593), 'Zo' + chr(235)); sys.exit(program.main({arguments}))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, env={**os.environ, **environment}
    )
    assert finished.stdout.split() == [b"\\u2191", b"Zo\\xeb"] and finished.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "info", "d", "--json=1"], "ignored explicit argument '1'"),
        (["--json=true", "data", "info", "d"], "unrecognized arguments: --json=true"),
        (["data", "info", "d", "--", "--json"], "What follows -- is no option; put --json before it."),
        (["completion", "bash", "--json"], "--json"),
        (["data", "--json"], "required"),
    ],
)
def test_wrong_usage_is_an_object_however_json_was_asked_for(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert message in error and "Did you mean '--json'" not in error


def test_json_before_the_end_of_options(workplace, capsys):
    capsys.readouterr()
    assert main(["--json", "data", "info", "--", str(workplace / "data")]) == 0
    assert json.loads(capsys.readouterr().out)["subjects"]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["data", "info", "--help"]])
def test_help_is_no_result(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    alone = capsys.readouterr()
    assert ended.value.code == 0 and alone.out and not alone.err
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert ended.value.code == 0 and capsys.readouterr() == alone
