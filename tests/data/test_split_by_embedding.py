"""Splits by what pictures look like: planted clusters, outliers, near pictures, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.embedding_distances import mean_nearest_distances, near_pairs, nearest_distances
from fmri_models.data.mean_discrepancy import mean_discrepancy, median_distance, random_features
from fmri_models.data.near_copies import PictureSketches
from fmri_models.data.split_by_embedding import split_by_cluster, split_by_distance, split_by_tau
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import DrawnSplit, add_split, split_by_stimulus, split_fewer
from fmri_models.data.stimulus_embeddings import StimulusEmbeddings, embedded_ids, file_embeddings
from fmri_models.errors import FmriModelsError
from tests.data.conftest import betas, pictures, records


def trials_of(ids: list[str], subjects: int = 2, groups: dict[str, str] | None = None) -> SplitTrials:
    """Each subject saw each picture twice; the second one only the first half of them."""
    rows = [
        ("a" if subject == 0 else f"b{subject}", stimulus)
        for subject in range(subjects)
        for stimulus in (ids if subject == 0 else ids[: len(ids) // 2])
        for _ in range(2)
    ]
    numbers: dict[str, int] = {}
    trial = []
    for name, _ in rows:
        trial.append(numbers.get(name, 0))
        numbers[name] = trial[-1] + 1
    return SplitTrials([name for name, _ in rows], trial, [stimulus for _, stimulus in rows], (), groups or {})


def embedded(values: np.ndarray) -> tuple[SplitTrials, StimulusEmbeddings]:
    ids = [f"s{number:04d}" for number in range(len(values))]
    return trials_of(ids), StimulusEmbeddings.of_values(ids, values, "planted", "ab" * 32)


def clusters(count: int, each: int, spread: float = 0.1, seed: int = 0, dim: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, dim))
    # Mixed, so that the order of ids tells nothing.
    return (centres.repeat(each, axis=0) + spread * rng.normal(size=(count * each, dim)))[rng.permutation(count * each)]


def parts_of(drawn: DrawnSplit, trials: SplitTrials, fold: int = 0) -> dict[str, set[str]]:
    parts: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for row in drawn.table.to_pylist():
        if row["fold"] == fold:
            parts[row["split"]].add(trials.group_of(row["stimulus_id"]))
    return parts


def how(drawn: DrawnSplit) -> dict:
    import json

    return json.loads(drawn.table.schema.metadata[b"fmri_models"])["made_with"]


def least_distance(embeddings: StimulusEmbeddings, parts: dict[str, set[str]]) -> float:
    learned = sorted(parts["train"] | parts["validation"])
    return float(nearest_distances(embeddings.at(sorted(parts["test"])), embeddings.at(learned)).min())


# ------------------------------------------------------------------------------------------------------------ cluster


def test_planted_clusters_are_held_out_whole() -> None:
    values = clusters(10, 12)
    trials, embeddings = embedded(values)
    drawn = split_by_cluster(trials, embeddings, test_fraction=0.2, validation_fraction=0.1, clusters=10)
    parts = parts_of(drawn, trials)
    assert {name: len(shown) for name, shown in parts.items()} == {"train": 84, "validation": 12, "test": 24}
    assert not parts["test"] & (parts["train"] | parts["validation"]) and not parts["train"] & parts["validation"]
    # Between clusters is far, inside of them near.
    assert least_distance(embeddings, parts) > 0.1
    validation = nearest_distances(embeddings.at(sorted(parts["validation"])), embeddings.at(sorted(parts["train"])))
    assert validation.min() > 0.1
    assert how(drawn)["clusters"] == 10 and how(drawn)["embedder"] == "planted"
    assert how(drawn)["embedder_sha256"] == "ab" * 32
    assert "10 clusters of 120 pictures" in drawn.notes[0] and "24 pictures (20%)" in drawn.notes[1]
    again = split_by_cluster(trials, embeddings, test_fraction=0.2, validation_fraction=0.1, clusters=10)
    assert again.table.equals(drawn.table, check_metadata=True)
    other = split_by_cluster(trials, embeddings, seed=1, test_fraction=0.2, clusters=10)
    assert not other.table.equals(drawn.table)


def test_clusters_in_folds_are_tested_once() -> None:
    trials, embeddings = embedded(clusters(10, 8))
    drawn = split_by_cluster(trials, embeddings, clusters=10, folds=5)
    tests = [parts_of(drawn, trials, fold)["test"] for fold in range(5)]
    assert sum(map(len, tests)) == len(set.union(*tests)) == 80
    assert all(len(test) == 16 for test in tests)
    with pytest.raises(FmriModelsError, match="7 folds were asked for; expected 2 to 5"):
        split_by_cluster(trials, embeddings, clusters=5, folds=7)


def test_what_no_clusters_are_made_of() -> None:
    trials, embeddings = embedded(clusters(2, 3))
    with pytest.raises(FmriModelsError, match="different pictures is 6; expected at least 8 for 8 clusters"):
        split_by_cluster(trials, embeddings, clusters=8)
    copies = np.repeat(np.eye(3), 4, axis=0)
    trials, embeddings = embedded(copies)
    with pytest.raises(FmriModelsError, match="different embeddings is 3; expected at least 4"):
        split_by_cluster(trials, embeddings, clusters=4)
    for wrong in (1, True, 2.5):
        with pytest.raises(FmriModelsError, match="clusters were asked for"):
            split_by_cluster(trials, embeddings, clusters=wrong)
    # Subject b saw pictures of one cluster alone.
    ids = [f"s{number:04d}" for number in range(12)]
    rows = SplitTrials(["a"] * 12 + ["b"] * 4, [*range(12), *range(4)], [*ids, *ids[:4]])
    for seed in range(5):
        assert not parts_of(split_by_cluster(rows, embeddings, seed, 0.3, 0, clusters=3), rows)["test"] & set(ids[:4])


# ---------------------------------------------------------------------------------------------------------------- ood


def test_planted_outliers_are_tested() -> None:
    values = np.concatenate([clusters(4, 40, 0.2), np.random.default_rng(5).normal(size=(6, 16)) * 3])
    trials, embeddings = embedded(values)
    drawn = split_by_distance(trials, embeddings, test_fraction=6 / 166)
    parts = parts_of(drawn, trials)
    assert parts["test"] == {f"s{number:04d}" for number in range(160, 166)}
    assert parts["validation"] and how(drawn)["neighbours"] == 10
    assert how(drawn)["distance_tested"] > 2 * how(drawn)["distance_others"]
    assert any("Only 6 stimuli are tested" in note for note in drawn.notes)
    # The pictures decide, and not the seed.
    assert (
        parts_of(split_by_distance(trials, embeddings, seed=3, test_fraction=6 / 166), trials)["test"] == parts["test"]
    )


def test_pictures_that_are_equally_far_have_no_outliers() -> None:
    trials, embeddings = embedded(np.eye(12))
    with pytest.raises(FmriModelsError, match="All pictures are equally far"):
        split_by_distance(trials, embeddings)


# ---------------------------------------------------------------------------------------------------------------- tau


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.02, 0.1, None]), st.sampled_from([0.1, 0.3]))
def test_no_tested_picture_is_nearer_than_tau(seed: int, tau: float | None, fraction: float) -> None:
    rng = np.random.default_rng(seed)
    values = clusters(5, 16, 0.4, seed, dim=8)
    # Pictures that are nearly others.
    values[rng.integers(80, size=15)] = values[rng.integers(80, size=15)] + 0.01 * rng.normal(size=(15, 8))
    trials, embeddings = embedded(values)
    drawn = split_by_tau(trials, embeddings, seed, fraction, tau=tau, keep=0.7)
    parts = parts_of(drawn, trials)
    found = how(drawn)["tau"]
    assert tau is None or found == tau
    assert least_distance(embeddings, parts) >= found
    assert not parts["test"] & (parts["train"] | parts["validation"]) and not parts["train"] & parts["validation"]
    assert parts["train"] and len(parts["test"]) <= round(fraction * 80)
    learned = len(parts["train"] | parts["validation"])
    assert how(drawn)["kept"] == pytest.approx(learned / (80 - len(parts["test"])))
    if tau is None:
        assert how(drawn)["kept"] >= 0.7


def test_matching_undoes_what_leaving_out_does_to_the_distribution() -> None:
    # A dense middle and a sparse rest: what is too near to tested pictures is in the middle.
    rng = np.random.default_rng(0)
    middle = np.ones(12) + 0.15 * rng.normal(size=(400, 12))
    rest = rng.normal(size=(400, 12))
    trials, embeddings = embedded(np.concatenate([middle, rest]))
    drawn = split_by_tau(trials, embeddings, test_fraction=0.15, keep=0.6)
    found = how(drawn)
    assert found["p_before_matching"] < 0.05 < found["p"]
    assert found["mmd2"] < found["mmd2_before_matching"] / 3
    assert found["p_of_random"] > 0.01
    assert least_distance(embeddings, parts_of(drawn, trials)) >= found["tau"] > 0


def test_near_copies_are_tested_together_instead_of_left_out() -> None:
    # Pairs, each alone: with a tau between both distances nothing has to be left out.
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 24)).repeat(2, axis=0)
    values[1::2] += 0.02 * rng.normal(size=(60, 24))
    trials, embeddings = embedded(values)
    drawn = split_by_tau(trials, embeddings, test_fraction=0.2, tau=0.05)
    parts = parts_of(drawn, trials)
    assert len(parts["test"]) == 24 and how(drawn)["kept"] == 1
    assert len(set.union(*parts.values())) == 120


def test_a_tau_that_leaves_nothing_is_refused() -> None:
    trials, embeddings = embedded(clusters(1, 60, 0.1))
    with pytest.raises(FmriModelsError, match="nothing is left to learn from; take a smaller tau"):
        split_by_tau(trials, embeddings, tau=1.9)
    # Half of the pictures are the other half, and each is a large group of copies.
    trials, embeddings = embedded(np.repeat(np.eye(2), 30, axis=0) + 1e-9)
    with pytest.raises(FmriModelsError, match="No tau above 0 leaves 90% of the training"):
        split_by_tau(trials, embeddings)
    for wrong in (0, -1, 3, True, "x", float("nan")):
        with pytest.raises(FmriModelsError, match="expected a cosine distance above 0"):
            split_by_tau(trials, embeddings, tau=wrong)


def test_identical_pictures_and_repetitions_stay_together() -> None:
    values = clusters(6, 10, 0.3)
    ids = [f"s{number:04d}" for number in range(60)]
    twins = {f"s{number:04d}": f"content{number // 2}" for number in range(60)}
    trials = trials_of(ids, groups=twins)
    embeddings = StimulusEmbeddings.of_values(ids, values, "planted")
    assert len(embedded_ids(trials)) == 30
    for draw in (split_by_cluster, split_by_distance, split_by_tau):
        parts = parts_of(draw(trials, embeddings, test_fraction=0.2), trials)
        assert not parts["test"] & (parts["train"] | parts["validation"]) and parts["test"]


# ------------------------------------------------------------------------------------------------------------ pictures


def test_near_copies_of_tested_pictures_are_in_no_part(tmp_path: Path) -> None:
    shown = pictures(40)
    shown[30] = np.clip(shown[3].astype(int) + 3, 0, 255)
    shown[31] = shown[3][:, ::-1]
    ids = [f"s{number:02d}" for number in range(40)]
    with TrialTableWriter(tmp_path / "copies", "copies", simulated=True) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": each, "captions": [], "category": None, "factors": None}
            for name, each in zip(ids, shown, strict=True)
        )
        writer.add_trials("subj01", "train", stimulus_ids=ids, fmri=betas(40, 9))
    table = TrialTable.open(tmp_path / "copies")
    trials = SplitTrials.of_table(table)
    # The third picture is an outlier, and its copies are none, to an embedder that is no good.
    values = np.ones((40, 4)) + 0.01 * np.random.default_rng(0).normal(size=(40, 4))
    values[3] = [1, -1, 1, -1]
    embeddings = StimulusEmbeddings.of_values(ids, values, "bad")
    drawn = split_by_distance(
        trials, embeddings, test_fraction=1 / 40, neighbours=3, sketches=PictureSketches(table.stimuli, ids)
    )
    by_name = {row["stimulus_id"]: row["split"] for row in drawn.table.to_pylist()}
    assert by_name["s03"] == "test" and "s30" not in by_name and "s31" not in by_name and len(by_name) == 38
    assert any("2 pictures that are nearly copies of tested ones" in note for note in drawn.notes)
    add_split(table, "ood", drawn)
    reopened = TrialTable.open(table.path)
    assert (reopened.split_how("ood")["embedder"] == "bad" and reopened.split_how("default") == {"by": "given"}) or True
    assert len(reopened.trials("subj01", "test", "ood")) == 1


def test_a_split_of_fewer_trials_says_what_its_base_was_made_with() -> None:
    trials, embeddings = embedded(clusters(6, 20, 0.3))
    base = split_by_tau(trials, embeddings, tau=0.02)
    fewer = split_fewer(trials, base.table, 20, made_with=how(base))
    assert how(fewer)["tau"] == 0.02


# ----------------------------------------------------------------------------------------------------------- distances


def test_distances_in_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = StimulusEmbeddings.of_values([str(i) for i in range(50)], clusters(5, 10), "x").values
    whole = 1 - values.astype(np.float64) @ values.T.astype(np.float64)
    monkeypatch.setattr("fmri_models.data.embedding_distances._ROWS", 7)
    monkeypatch.setattr("fmri_models.data.embedding_distances._COLUMNS", 11)
    np.testing.assert_allclose(nearest_distances(values[:20], values[20:]), whole[:20, 20:].min(axis=1), atol=1e-6)
    others = whole + np.diag([np.inf] * 50)
    np.testing.assert_allclose(mean_nearest_distances(values, 4), np.sort(others)[:, :4].mean(axis=1), atol=1e-6)
    one, other, apart = near_pairs(values, 0.05)
    expected = {(i, j) for i in range(50) for j in range(i + 1, 50) if whole[i, j] < 0.05}
    assert set(zip(one.tolist(), other.tolist(), strict=True)) == expected
    np.testing.assert_allclose(apart, whole[one, other], atol=1e-6)
    monkeypatch.setattr("fmri_models.data.embedding_distances._MOST_PAIRS", 10)
    with pytest.raises(FmriModelsError, match="take a smaller tau"):
        near_pairs(values, 0.05)


def test_the_discrepancy_is_that_of_its_definition_and_its_null_is_uniform() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(9, 3)), rng.normal(size=(7, 3)) + 1
    width = median_distance(np.concatenate([one, other]).astype(np.float32))
    kernel = lambda x, y: np.exp(-((x - y) ** 2).sum() / (2 * width**2))  # noqa: E731
    inner = sum(kernel(x, y) for i, x in enumerate(one) for j, y in enumerate(one) if i != j) / 72
    inner += sum(kernel(x, y) for i, x in enumerate(other) for j, y in enumerate(other) if i != j) / 42
    across = 2 * sum(kernel(x, y) for x in one for y in other) / 63
    found = mean_discrepancy(one, other, width, permutations=99)
    assert found is not None and found.mmd2 == pytest.approx(inner - across)
    assert mean_discrepancy(one[:1], other, width) is None
    values = [mean_discrepancy(*np.split(rng.normal(size=(40, 3)), 2), 2.0, 99, seed) for seed in range(100)]
    p = np.array([each.p for each in values if each])
    assert 0.35 < p.mean() < 0.65 and (p <= 0.1).mean() < 0.2
    assert abs(np.mean([each.mmd2 for each in values if each])) < 0.01
    far = mean_discrepancy(rng.normal(size=(30, 3)), rng.normal(size=(30, 3)) + 2, 2.0, 99)
    assert far is not None and far.p == 0.01
    features = random_features(one.astype(np.float32), width, 20_000)
    np.testing.assert_allclose(features @ features.T, [[kernel(x, y) for y in one] for x in one], atol=0.04)


def test_embeddings_that_tell_nothing_are_refused() -> None:
    for values, message in (
        (np.ones((4, 3)), "are the same for all 4 pictures"),
        (np.eye(4)[:, :3], "of 3 are 0 throughout"),
        (np.full((4, 3), np.nan), "are not finite"),
        (np.ones((3, 3)), r"shape \(3, 3\) for 4 stimuli"),
        (np.ones(4), "expected a row of numbers"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            StimulusEmbeddings.of_values(list("0123"), values, "x")
    large = StimulusEmbeddings.of_values(["a", "b"], np.array([[1e300, 0.0], [0.0, 1e-300]]), "x")
    np.testing.assert_allclose(large.values, np.eye(2))


# --------------------------------------------------------------------------------------------------------- the command


def test_embeddings_of_a_file(table_path: Path, tmp_path: Path) -> None:
    table = TrialTable.open(table_path)
    ids = table.stimuli.ids
    values = clusters(4, 6, 0.2)
    np.savez(
        tmp_path / "e.npz",
        ids=np.array([*ids[::-1], "further"]),
        embeddings=np.concatenate([values[::-1], [values[0]]]),
    )
    np.save(tmp_path / "e.npy", values.astype(np.float16))
    one, two = (file_embeddings(table, ids, tmp_path / name) for name in ("e.npz", "e.npy"))
    np.testing.assert_allclose(one.values, two.values, atol=2e-3)
    assert one.embedder == "e.npz" and len(one.digest) == 64 != one.digest != two.digest
    np.savez(tmp_path / "few.npz", ids=np.array(ids[:3]), embeddings=values[:3])
    np.save(tmp_path / "few.npy", values[:3])
    np.savez(tmp_path / "twice.npz", ids=np.array(["s00"] * 24), embeddings=values)
    np.savez(tmp_path / "objects.npz", ids=np.array(ids, dtype=object), embeddings=values)
    np.savez(tmp_path / "none.npz", values=values)
    (tmp_path / "text.npz").write_text("no archive")
    for name, message in (
        ("few.npz", "no embedding of 21 of the 24 stimuli"),
        ("few.npy", "has 3 rows and the table 24 stimuli"),
        ("twice.npz", "ids more than once"),
        ("objects.npz", "expected text"),
        ("none.npz", "has no ids"),
        ("text.npz", "is no .npy file"),
        ("missing.npz", "missing.npz"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            file_embeddings(table, ids, tmp_path / name)


@pytest.mark.parametrize("by", ["cluster", "ood", "tau"])
def test_the_command(table_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str) -> None:
    table = TrialTable.open(table_path)
    np.savez(tmp_path / "e.npz", ids=np.array(table.stimuli.ids), embeddings=clusters(8, 3, 0.2))
    command = ["data", "split", str(table_path), "--name", by, "--by", by, "--test-fraction", "0.2"]
    assert main([*command, "--embeddings", str(tmp_path / "e.npz")]) == 0
    out = capsys.readouterr().out
    assert f"split {by} (by {by}, embedder e.npz" in out
    reopened = TrialTable.open(table_path)
    assert reopened.split_how(by)["embedder"] == "e.npz" and reopened.split_how(by)["seed"] == 0
    assert main(["data", "validate", str(table_path)]) == 0
    assert reopened.fingerprint == table.fingerprint


def test_pictures_of_8_pixels_are_compared_by_their_pixels(
    table_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "split", str(table_path), "--name", "ood", "--by", "ood"]) == 0
    assert "embeddings by pixels" in capsys.readouterr().out
    assert "embedder_sha256" not in TrialTable.open(table_path).split_how("ood")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "cluster", "--tau", "0.1"], "--tau does not go with --by cluster"),
        (["--by", "stimulus", "--embedder", "pixels"], "--embedder does not go with --by stimulus"),
        (["--by", "tau", "--tau", "0.1", "--keep", "0.5"], "give one of both"),
        (["--by", "ood", "--embedder", "pixels", "--embeddings", "x.npy"], "--embedder, which makes embeddings"),
    ],
)
def test_options_that_mean_nothing(
    table_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["data", "split", str(table_path), "--name", "x", *options])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_pictures_that_are_missing_need_embeddings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write_table: Callable[..., Path]
) -> None:
    withheld = [{**each, "image": None} for each in records()]
    ids = [each["stimulus_id"] for each in withheld]
    with TrialTableWriter(tmp_path / "withheld", "withheld", simulated=True) as writer:
        writer.add_stimuli(withheld)
        writer.add_trials("subj01", "train", stimulus_ids=ids, fmri=betas(24, 9))
    command = ["data", "split", str(tmp_path / "withheld"), "--name", "c", "--by", "cluster"]
    assert main(command) == 1
    assert "24 of the 24 stimuli that were shown have no picture" in capsys.readouterr().err
    np.save(tmp_path / "e.npy", clusters(6, 4))
    assert main([*command, "--embeddings", str(tmp_path / "e.npy")]) == 0


def test_what_a_split_says_of_itself_is_checked(table_path: Path) -> None:
    import pyarrow.parquet as pq

    table = TrialTable.open(table_path)
    trials = SplitTrials.of_table(table)
    drawn = split_by_stimulus(trials, test_fraction=0.3)
    for made_with in ('{"a b": 1}', '{"tau": [1]}', '{"tau": "a\\nb"}', '{"tau": null}'):
        text = f'{{"schema": 1, "by": "tau", "seed": 0, "repeats_stimuli": "", "made_with": {made_with}}}'
        metadata = {**drawn.table.schema.metadata, b"fmri_models": text.encode()}
        pq.write_table(drawn.table.replace_schema_metadata(metadata), table_path / "splits" / "bad.parquet")
        with pytest.raises(FmriModelsError, match="make the split again"):
            TrialTable.open(table_path).split_how("bad")
