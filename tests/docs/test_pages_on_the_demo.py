"""The pages on retrieval and data run on a pipeline and a table where the demo would have saved them."""

from tests.small_demo import blocks_of, run_blocks, save_small_demo


def test_the_page_on_retrieval_runs(tmp_path, monkeypatch, repository):
    save_small_demo(tmp_path, monkeypatch)
    names = run_blocks(blocks_of(repository / "docs" / "retrieval.md"))
    assert names["similarities"].shape == names["indices"].shape == (len(names["trials"]), 5)


def test_the_loader_of_the_page_on_data_runs(tmp_path, monkeypatch, repository):
    save_small_demo(tmp_path, monkeypatch)
    names = run_blocks(blocks_of(repository / "docs" / "data.md")[-1:])
    batch = next(iter(names["loader"]))
    assert set(batch) == {"fmri", "subject_ids", "stimulus_ids", "stimulus", "image_embeds"}
    assert len(batch["image_embeds"]) == len(batch["fmri"])
