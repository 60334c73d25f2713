"""The command line as a person uses it: exit codes, one-line errors, and files that commands hand to each other."""

import csv
import io
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from fmri_models.cli.main import COMMANDS, main
from tests.small_table import NUM_VOXELS, PARTS, write_small_table


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    data = write_small_table(folder / "data")
    assert main(["train", "linear", f"data={data}", f"out={folder / 'model'}", "generator=pixels"]) == 0
    return folder


def failed(capsys, *arguments, code=1):
    """Runs a command that has to fail, and returns its one line."""
    assert main([str(argument) for argument in arguments]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("fmri-models: error: ")
    assert not any("Traceback" in line for line in lines)
    return lines[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command.replace("_", "-"), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "example" in shown
    assert f"fmri-models {command.replace('_', '-')}" in shown


def test_wrong_usage_exits_with_2(capsys):
    for arguments in ([], ["dream"], ["train"], ["evaluate", "--out", "x"], ["demo", "--method", "telepathy"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


def test_a_method_that_is_not_there_yet_exits_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--method", "no_such_method"])
    assert ended.value.code == 2
    assert "choose from" in (shown := capsys.readouterr().err) and "linear" in shown


def test_errors_are_one_line_and_debug_shows_where(capsys, tmp_path):
    assert "does not exist" in failed(capsys, "train", "linear", f"data={tmp_path / 'none'}", f"out={tmp_path / 'o'}")
    assert main(["train", "linear", f"data={tmp_path / 'none'}", f"out={tmp_path / 'o'}", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_dry_run_trains_nothing(workplace, capsys):
    assert main(["train", "linear", f"data={workplace / 'data'}", f"out={workplace / 'no'}", "--dry-run",
                 "generator=pixels"]) == 0  # fmt: skip
    assert "parameters" in capsys.readouterr().out
    assert not (workplace / "no").exists()


def test_reconstructing_a_table(workplace, capsys):
    out = workplace / "pictures"
    assert main(["reconstruct", "--model", str(workplace / "model"), "--fmri", str(workplace / "data"), "--subject",
                 "subj02", "--out", str(out), "--seed", "0", "1"]) == 0  # fmt: skip
    assert len(list(out.glob("*.png"))) == 2 * PARTS["test"]
    rows = list(csv.DictReader((out / "trials.csv").open()))
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert set(rows[0]) == {"trial", "stimulus", "seed", "scores"}


def test_reconstructing_an_array(workplace):
    betas = np.random.default_rng(0).normal(size=(3, NUM_VOXELS["subj07"]))
    np.save(workplace / "betas.npy", betas)
    out = workplace / "from_array"
    assert main(["reconstruct", "--model", str(workplace / "model"), "--fmri", str(workplace / "betas.npy"),
                 "--subject", "subj07", "--session", "2", "--out", str(out)]) == 0  # fmt: skip
    assert Image.open(out / "trial00002.png").size == (12, 12)


def reconstruct_arguments(workplace, **replaced):
    options = {
        "model": workplace / "model", "fmri": workplace / "data", "subject": "subj02", "out": workplace / "refused",
        **replaced,
    }  # fmt: skip
    return ["reconstruct", *(part for name, value in options.items() for part in (f"--{name}", value))]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 7)), "subj02 has 7 voxels; the processor was fitted on 45"),
        (np.full((2, 45), np.nan), "NaN or infinite"),
        (np.zeros(45), r"expected a \(rows, values\) array"),
        (np.array([["a", "b"]]), "expected a .rows, values. array"),
        (np.array([[object()]]), "no readable .npy array"),
    ],
)
def test_bad_arrays(workplace, capsys, array, message, tmp_path):
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    line = failed(capsys, *reconstruct_arguments(workplace, fmri=tmp_path / "bad.npy", session=1))
    assert re.search(message, line)
    assert not (workplace / "refused").exists()


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"subject": "subj99"}, "Subject 'subj99' is unknown"),
        ({"model": "nowhere"}, "The folder nowhere does not exist"),
        ({"fmri": "nothing.npy"}, "no file nothing.npy"),
        ({"split": "dreams"}, "no part 'dreams'"),
        ({"strength": 7}, "strength is 7"),
    ],
)
def test_bad_arguments_of_reconstruct(workplace, capsys, replaced, message):
    assert message in failed(capsys, *reconstruct_arguments(workplace, **replaced))
    assert not (workplace / "refused").exists()


def test_an_output_folder_with_content_is_kept(workplace, capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    assert "not empty" in failed(capsys, *reconstruct_arguments(workplace, out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_demo_does_not_touch_a_folder_of_something_else(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    assert "no folder of an earlier demo" in failed(capsys, "demo", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("part", "kind"), [("data", "trial table"), ("pipeline", "pipeline")])
def test_a_demo_replaces_its_own_table_and_pipeline_alone(capsys, tmp_path, part, kind):
    """Notes beside them stay in any case, so that they are no reason to refuse."""
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / part).mkdir()
    (tmp_path / part / "thesis.tex").write_text("important")
    assert f"is no {kind}" in failed(capsys, "demo", "--out", tmp_path)
    assert (tmp_path / part / "thesis.tex").read_text() == "important"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["demo.json", "notes.txt", part])


def test_retrieval_needs_embeddings(workplace, tmp_path, capsys):
    latents_alone = [f"data={workplace / 'data'}", f"out={tmp_path / 'model'}", "generator=pixels", "targets=[latents]"]
    assert main(["train", "linear", *latents_alone]) == 0
    line = failed(capsys, "retrieve", "--model", tmp_path / "model", "--fmri", workplace / "data",
                  "--subject", "subj02", "--gallery", workplace / "data")  # fmt: skip
    assert "decodes no image embeddings" in line


@pytest.mark.slow
def test_retrieval_in_a_gallery_of_pictures(tmp_path, capsys):
    """With the embedded generator: small pictures lie outside its domain, but its CLIP tells them apart."""
    data = write_small_table(tmp_path / "data", subjects=("subj07",))
    assert main(["train", "linear", f"data={data}", f"out={tmp_path / 'model'}", "targets=[image_embeds]"]) == 0
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    from fmri_models import TrialTable

    table = TrialTable.open(data)
    ids = sorted(set(table.trials("subj07", "test").stimulus_ids.tolist()))
    for name, picture in zip(ids, table.stimuli.images(ids), strict=True):
        Image.fromarray(picture[..., 0]).save(gallery / f"{name}.png")
    capsys.readouterr()
    assert main(["retrieve", "--model", str(tmp_path / "model"), "--fmri", str(data), "--subject", "subj07",
                 "--gallery", str(gallery), "--top-k", "2"]) == 0  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 2 * len(ids)
    found = [row["item"] == row["stimulus"] for row in rows if row["rank"] == "1"]
    assert np.mean(found) > 0.5
    line = failed(capsys, "retrieve", "--model", tmp_path / "model", "--fmri", data, "--subject", "subj07", "--gallery",
                  gallery, "--top-k", "99")  # fmt: skip
    assert "top_k is 99; the gallery has 12" in line


def test_fit_processor(workplace, capsys):
    assert (
        main(["train", "linear", f"data={workplace / 'data'}", f"out={workplace / 'refitted'}", "generator=pixels"])
        == 0
    )
    assert main(["fit-processor", str(workplace / "refitted"), "--data", str(workplace / "data"), "--statistics",
                 "pooled"]) == 0  # fmt: skip
    assert "subj07" in capsys.readouterr().out


def test_a_reader_that_stops_reading_is_no_error(workplace):
    command = [sys.executable, "-m", "fmri_models.cli.main", "data", "info", str(workplace / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "linear", "--out", ""], "The value of --out is empty"),
        (["evaluate", "--out=", "--data", "x"], "The value of --out is empty"),
        (["convert", "mindeye", "", "--out", "x"], "An argument is empty"),
        (["data", "info", "a\x1b[31m"], r"'a\\x1b\[31m' has control characters"),
        (["data", "info", "a\udcff"], r"'a\\udcff' has control characters or is no text in UTF-8"),
        (["data", "info", "a\0b"], r"'a\\x00b' has control characters"),
    ],
)
def test_arguments_that_no_command_can_use(capsys, arguments, message):
    assert re.search(message, failed(capsys, *arguments, code=2))


def of_array(command):
    """A command that decodes the rows of an array."""
    return [command, "--model", "x", "--fmri", "y.npy", "--subject", "a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "linear"], "invalid choice: 'trian'.*Did you mean 'train'"),
        (["train", "linear", "--dryrun"], "unrecognized arguments: --dryrun. Did you mean '--dry-run'"),
        (["train", "linear", "--over"], "unrecognized arguments: --over. Did you mean '--overwrite'"),
        (["data", "split", "x", "--name", "a", "--by", "kfol"], "invalid choice: 'kfol'.*Did you mean 'kfold'"),
        (["data", "split", "x", "--name", "a", "--by", "kfold", "--fold", "3"], "--fold 3. Did you mean '--folds'"),
        (["data", "split", "x", "--name", "a", "--by", "semantic", "--folds", "3"], "--folds does not go with --by"),
        (["data", "split", "x", "--name", "a", "--by", "fewer"], "--by fewer needs --trials"),
        (
            ["data", "split", "x", "--name", "a", "--by", "run", "--trials", "9"],
            "--trials and --of do not go with --by run",
        ),
        (["data", "split", "x", "--name", "a", "--by", "run", "--test-fraction", ".1"], "--test-fraction does not go"),
        (["card", "model", "report"], "unrecognized arguments: report. 'report' stands behind no option.*--report"),
        (["train", "linear", "--dry-run", "--resume"], "--resume: not allowed with argument --dry-run"),
        (["train", "linear", "--dry-run", "--overwrite"], "--overwrite: not allowed with argument --dry-run"),
        (["train", "linear", "--overwrite", "--resume"], "--resume: not allowed with argument --overwrite"),
        (["fit-processor", "x", "--data", "y", "--subject", "a=b", "--subject", "a=c"], "--subject names a twice"),
        (["prepare", "digits69", "--source", "x", "--out", "y", "--option", "a=1", "--option", "a=2"], "gives a twice"),
        (
            ["convert", "mindeye", "x.pth", "subject_names=[a]", "--subject", "b", "--out", "x"],
            "--subject has no effect",
        ),
        (
            [*of_array("reconstruct"), "--out", "z", "--repetitions", "single"],
            "--repetitions has no effect here: each row of an array is decoded",
        ),
        (
            [*of_array("retrieve"), "--gallery", "z", "--repetitions", "average"],
            "--repetitions has no effect here",
        ),
        (
            [
                "evaluate",
                "--images",
                "a",
                "--truth",
                "b",
                "--out",
                "c",
                "--reference",
                "none",
                "--unseen-session",
                "pooled",
                "--candidates",
                "7",
                "--steps",
                "3",
                "--repetitions",
                "single",
                "--refit-permuted",
                "--precision",
                "float32",
            ],
            "--repetitions, --reference, --refit-permuted, --unseen-session, --steps, --candidates, --precision have",
        ),
        (["evaluate", "--images", "a", "--truth", "b", "--out", "c", "--strength", "0.7"], "--strength has no effect"),
        (["retrieve", "--modle", "x"], "are required.*--modle is unknown. Did you mean '--model'"),
        (["convert", "mindey", "x.pth", "--out", "x"], "Did you mean 'mindeye'"),
        (["convert", "mindeye", "x.pth", "hidden_size", "--out", "x"], "not of the form key=value"),
        (["convert", "mindeye", "x.pth", "norm=layer", "norm=batch", "--out", "x"], "replaces norm"),
    ],
)
def test_misspelt_flags_and_commands_are_refused_with_the_nearest(capsys, arguments, message):
    try:
        code = main(arguments)
    except SystemExit as usage:
        code = usage.code
    assert code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "linera"], "Did you mean 'linear'"),
        (["train", "linear", "seed=1", "seed=2"], "replaces seed"),
        (["train", "linear", "data="], "'data=' has no value"),
        (["convert", "mindeye", "x.pth", "hidden_sise=3", "--out", "x"], "Did you mean 'hidden_size'"),
        (["convert", "mindeye", "x.pth", "hidden_size=wide", "--out", "x"], "hidden_size is 'wide'; expected a whole"),
        (["convert", "mindeye", "x.pth", "num_timesteps=wide", "--out", "x"], "num_timesteps is 'wide'"),
        (["prepare", "digit69", "--source", ".", "--out", "x"], "Did you mean 'digits69'"),
        (["evaluate", "--images", "a", "--truth", "b", "--protocol", "smal_pictures", "--out", "x"],
         "Did you mean 'small_pictures'"),
    ],
)  # fmt: skip
def test_misspelt_names_are_refused_with_the_nearest(capsys, arguments, message):
    assert re.search(message, failed(capsys, *arguments))


def test_usage_errors_show_no_control_characters(capsys):
    with pytest.raises(SystemExit):
        main(["train", "linear", "--\u202eevil\u2028"])
    assert "\u202e" not in capsys.readouterr().err


def test_a_file_name_that_is_too_long_is_a_sentence(capsys):
    assert "too long" in failed(capsys, "train", f"{'x' * 5000}.yaml")


def test_an_output_that_is_full_is_a_sentence(workplace):
    command = [sys.executable, "-m", "fmri_models.cli.main", "data", "info", str(workplace / "data")]
    with open("/dev/full", "w") as full:
        finished = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith("fmri-models: error: ")
    assert "disk is full" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_command_in_one_sentence_with_nothing_partial(workplace, tmp_path, number, code):
    """The simulator writes tables of thousands of trials for some seconds."""
    command = [sys.executable, "-m", "fmri_models.cli.main", "simulate", "--stimuli", "builtin:scenes", "--train",
               "20000", "--out", str(tmp_path / "out")]  # fmt: skip
    # Where the tests run in the background, what they start would not hear Ctrl-C.
    handled = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, handled)
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".partial-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        # Python can't protect the instructions between the folder's making and the block that removes it.
        time.sleep(0.3)
        process.send_signal(number)
        error = process.stderr.read()
        assert process.wait() == code, error
    assert error.strip().splitlines()[-1].startswith("fmri-models: ")
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs_as_the_command():
    finished = subprocess.run(
        [sys.executable, "-m", "fmri_models.cli.main", "--version"], capture_output=True, text=True, check=True
    )
    assert finished.stdout.startswith("fmri-models ")


def test_the_package_is_the_command():
    ended = subprocess.run([sys.executable, "-m", "fmri_models", "--help"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stdout.startswith("usage: fmri-models ")


def test_prepare_ends_with_commands_that_can_be_typed_and_name_training(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stimuli").mkdir()
    rng = np.random.default_rng(0)
    for name in range(12):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "stimuli" / f"s{name:02d}.png")
    np.save("betas.npy", rng.standard_normal((24, 20)).astype(np.float32))
    rows = [f"s{trial % 12:02d},1,1" for trial in range(24)]
    (tmp_path / "events.csv").write_text("\n".join(["stimulus_id,session,run", *rows]) + "\n")
    options = ["--fmri", "betas.npy", "--events", "events.csv", "--stimuli", "stimuli", "--out", "my table"]
    assert main(["prepare", "arrays", *options]) == 0
    told = capsys.readouterr().out
    assert "too few for a figure to mean much" in told and "DIR" not in told
    assert "  fmri-models train linear 'data=my table' 'out=my table-linear'" in told.splitlines()
