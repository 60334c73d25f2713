"""The direction of imports, and how little an import costs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "accelerate",
    "datasets",
    "diffusers",
    "evaluate",
    "gradio",
    "open_clip",
    "pandas",
    "pyarrow",
    "scipy",
    "skimage",
    "sklearn",
    "timm",
    "torch",
    "transformers",
}


def test_imports_run_one_way(repository: Path) -> None:
    # In a process of its own, because the linter switches off every logger that exists when it starts.
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--config", str(repository / "pyproject.toml"), "--no-cache"]
    finished = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "0 broken" in finished.stdout


@pytest.mark.parametrize(
    "statement",
    [
        "import fmri_models",
        "import fmri_models.data, fmri_models.registry",
        "from fmri_models.cli.main import main; main(['--help'])",
        "from fmri_models.cli.main import main; main(['prepare', '--help'])",
    ],
)
def test_light(statement: str) -> None:
    program = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps([name for name in sys.modules if '.' not in name]), file=sys.stderr))
{statement}
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert finished.returncode == 0, finished.stderr
    assert HEAVY.isdisjoint(json.loads(finished.stderr.splitlines()[-1]))


@pytest.mark.slow
def test_batches_are_read_without_the_libraries_of_networks() -> None:
    # Generators and models take 280 MB of memory; a process that reads batches alone has none of them.
    program = """
import json, sys
import fmri_models.data.batches, fmri_models.training.online_targets
print(json.dumps([name for name in sys.modules if '.' not in name]))
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"accelerate", "datasets", "diffusers", "pandas", "peft", "scipy", "torchvision"}.isdisjoint(
        json.loads(finished.stdout)
    )


def test_every_public_name_can_be_imported() -> None:
    import fmri_models

    assert [name for name in fmri_models.__all__ if not hasattr(fmri_models, name)] == []
    assert set(fmri_models.__all__) <= set(dir(fmri_models))
