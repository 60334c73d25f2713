"""Passing a table on: the terms of its data set and of its pictures go with it, whatever it is called or made of."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.hub import write_table_card
from fmri_models.data.table_terms import PICTURES_OF, check_may_be_passed_on, terms_of_pictures, terms_of_table
from fmri_models.data.validation import validate_table
from fmri_models.data.without_pictures import without_pictures
from fmri_models.data_terms import terms_of
from fmri_models.errors import FmriModelsError
from fmri_models.simulation import simulate

SCRIPTS = Path(__file__).resolve().parents[2] / "dataset_scripts"
GOD = {"name": "god", "license": "CC0", "source": ""}


def write(path: Path, image: bool = True, count: int = 40, **about) -> Path:
    rng = np.random.default_rng(0)
    names = [f"s{number:02d}" for number in range(count)]
    with TrialTableWriter(path, **{"name": "mine", **about}) as writer:
        writer.add_stimuli(
            {
                "stimulus_id": name,
                "image": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) if image else None,
                "captions": [f"a {name}", "b"],
                "category": "c",
                "factors": {"kind": 1},
            }
            for name in names
        )
        writer.add_trials("subj01", "train", stimulus_ids=names[:-4], fmri=rng.normal(size=(count - 4, 6)))
        writer.add_trials("subj01", "test", stimulus_ids=names[-4:], fmri=rng.normal(size=(4, 6)))
    return path


def check(table: Path, private: bool = False, pictures: bool = True) -> None:
    write_table_card(table, TrialTable.open(table).metadata, None, private, pictures)


def test_responses_that_may_not_be_passed_on_stay_here_in_every_form(tmp_path):
    table = write(tmp_path / "table", name="nsd")
    for private in (False, True):
        for pictures in (False, True):
            with pytest.raises(
                FmriModelsError, match=r"Natural Scenes Dataset, whose terms \(https.*nothing of it may"
            ):
                check(table, private, pictures)


def test_pictures_that_may_not_be_passed_on_stay_here_and_the_rest_may_go(tmp_path):
    table = write(tmp_path / "table", **GOD)
    for private in (False, True):
        with pytest.raises(FmriModelsError, match=r"Generic Object Decoding.*its pictures.*--without-pictures"):
            check(table, private)
    check(table, pictures=False)
    # A table that has none needs no option.
    check(write(tmp_path / "bare", image=False, **GOD))


def test_what_nobody_knows_goes_to_private_repositories_alone(tmp_path):
    table = write(tmp_path / "table", name="miyawaki2008")
    with pytest.raises(FmriModelsError, match=r"not known.*private repository \(--private\)"):
        check(table)
    with pytest.raises(FmriModelsError, match="not known"):
        check(table, pictures=False)
    check(table, private=True)
    pictures = write(tmp_path / "pictures", name="haxby2001")
    with pytest.raises(FmriModelsError, match="of whose pictures it is not known"):
        check(pictures)
    check(pictures, private=True)
    check(pictures, pictures=False)


def test_ones_own_data_and_what_may_be_passed_on_go_anywhere(tmp_path):
    check(write(tmp_path / "own"))
    check(write(tmp_path / "bold5000", name="bold5000", image=False))


def test_a_permission_is_enough():
    metadata = {"name": "nsd", "license": "", "source": ""}
    check_may_be_passed_on(metadata, "letter of 1 May 2026")
    with pytest.raises(FmriModelsError, match="permission"):
        check_may_be_passed_on(metadata, None)


def constants(script: Path) -> dict[str, str]:
    found = {}
    for line in ast.parse(script.read_text()).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            if name in ("LICENSE", "CITATION"):
                found[name] = ast.literal_eval(line.value)
    return found


@pytest.mark.parametrize("name", ["bold5000", "digits69", "god", "haxby2001", "miyawaki2008", "nsd", "things_fmri"])
def test_a_prepared_table_is_known_by_another_name(name):
    """By its script, and, as a training record has it, by licence and citation alone."""
    expected = terms_of(name)
    assert expected is not None
    metadata = {"name": "mine", "license": "", "source": "", "prepared": {"script": f"dataset_scripts/{name}.py"}}
    assert terms_of_table(metadata) == expected
    stated = constants(SCRIPTS / f"{name}.py")
    text = (SCRIPTS / f"{name}.py").read_text()
    citation = stated.get("CITATION") or " ".join(text[text.index("citation=(") :].split('"')[1:4:2])
    found = terms_of("mine", stated["LICENSE"], citation)
    assert found is not None and found.name == expected.name
    assert found.redistribution == expected.redistribution


def test_terms_stay_with_a_split(tmp_path):
    table = write(tmp_path / "table", **GOD)
    assert main(["data", "split", str(table), "--name", "folds", "--by", "kfold", "--folds", "4"]) == 0
    with pytest.raises(FmriModelsError, match="Generic Object Decoding"):
        check(table)


def pictures_of(path: Path) -> list[str]:
    return [each["name"] for each in TrialTable.open(path).metadata.get(PICTURES_OF, [])]


def test_terms_go_with_the_pictures_of_a_table(tmp_path):
    nsd = write(tmp_path / "nsd-table", name="nsd", license="", source="")
    simulated = simulate(nsd, tmp_path / "simulated", num_voxels=200, repetitions=1)
    assert pictures_of(simulated) == ["nsd"]
    metadata = TrialTable.open(simulated).metadata
    assert terms_of_table(metadata) is None
    assert terms_of_pictures(metadata) == terms_of("nsd")
    with pytest.raises(FmriModelsError, match="has pictures of Natural Scenes Dataset"):
        check(simulated, private=True)
    check(simulated, pictures=False)
    # Also where they are taken from the copy.
    events, fmri = tmp_path / "events.csv", tmp_path / "fmri.npy"
    names = TrialTable.open(simulated).stimuli.ids
    events.write_text("stimulus_id\n" + "".join(f"{name}\n" for name in names))
    np.save(fmri, np.random.default_rng(0).normal(size=(len(names), 7)).astype(np.float32))
    own = tmp_path / "own"
    arguments = ["--fmri", str(fmri), "--events", str(events), "--stimuli", str(simulated), "--out", str(own)]
    assert main(["prepare", "arrays", *arguments]) == 0
    assert pictures_of(own) == ["simulated-nsd-table", "nsd"]
    with pytest.raises(FmriModelsError, match="has pictures of Natural Scenes Dataset"):
        check(own)


def test_pictures_of_a_folder_are_of_no_table(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number in range(40):
        values = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"s{number}.png")
    simulated = simulate(folder, tmp_path / "simulated", num_voxels=200, repetitions=1)
    metadata = TrialTable.open(simulated).metadata
    assert PICTURES_OF not in metadata
    # The folder's name does not make them the package's own.
    assert metadata["name"] == "simulated-pictures-scenes" and terms_of_table(metadata) is None


@pytest.mark.parametrize("found", ["x", 3, {"name": "nsd"}, [3, "nsd", {"name": 5}, None]])
def test_what_somebody_else_wrote_there_is_no_error(found):
    metadata = {"name": "mine", "license": "", "source": "", PICTURES_OF: found, "prepared": found}
    assert terms_of_pictures(metadata) is None
    check_may_be_passed_on(metadata, None)


def test_a_copy_without_pictures_is_a_table(tmp_path):
    table = write(tmp_path / "table", **GOD)
    opened = TrialTable.open(table)
    # What is asked for later is read later.
    assert opened.stimuli.num_pictures == 40
    betas = opened.trials("subj01").fmri()
    changed = without_pictures(table, opened.metadata, "letter")
    assert set(changed) == {"stimuli/stimuli-00000-of-00001.parquet", "table.json", "README.md"}
    for name, content in changed.items():
        (table / name).write_bytes(content)
    assert validate_table(table) == []
    copy = TrialTable.open(table)
    assert copy.stimuli.num_pictures == 0
    for what in ("ids", "captions", "categories", "factors", "content_hashes"):
        first, second = (getattr(each.stimuli, what) for each in (opened, copy))
        assert (first() if callable(first) else first) == (second() if callable(second) else second)
    assert np.array_equal(copy.trials("subj01").fmri(), betas)
    assert copy.fingerprint != opened.fingerprint
    card = (table / "README.md").read_text()
    assert "without pictures, which may not be passed on" in card and "redistribution_permission: letter" in card
    assert json.loads(changed["table.json"])["pictures_left_out"] is True
    check(table)


def test_what_somebody_has_written_into_the_card_stays(tmp_path):
    table = write(tmp_path / "table", **GOD)
    card = table / "README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    assert "README.md" not in without_pictures(table, TrialTable.open(table).metadata)
