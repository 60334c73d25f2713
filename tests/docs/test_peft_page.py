"""The page on adapters runs, block by block, on a pipeline and a table where the demo would have saved them."""

from tests.small_demo import blocks_of, run_blocks, save_small_demo


def test_the_page_on_adapters_runs(tmp_path, monkeypatch, repository):
    save_small_demo(tmp_path, monkeypatch)
    blocks = blocks_of(repository / "docs" / "peft.md")
    made = next(number for number, block in enumerate(blocks) if "made =" in block)
    # What the demo draws with is not what its image generator's class draws with.
    blocks.insert(made, 'pipe.drawing_settings = {"num_inference_steps": 6, "strength": 0.8}\n')
    names = run_blocks(blocks)
    assert names["made"].drawing_settings == names["pipe"].drawing_settings
    assert names["made"].drawing_settings.num_inference_steps == 6
    saved = (tmp_path / "outputs" / "adapters").iterdir()
    assert sorted(path.name for path in saved if path.is_dir()) == ["subj01", "subj02"]
    assert not (tmp_path / "outputs" / "new_subject" / "config.json").exists()
