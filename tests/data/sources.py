"""Each data set script with a small fabricated source, one for each published form, for tests that go over all."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fmri_models.cli.main import main
from tests.fabricated import (
    bmd,
    bold5000,
    digits69,
    eeg,
    god,
    haxby2001,
    miyawaki2008,
    nifti,
    nsd,
    surfaces,
    tgbh,
    things_fmri,
    vim2,
    wen2018,
)


@dataclass(frozen=True)
class Source:
    """A form of a data set.

    Args:
        script: Name of its script.
        write: Writes the files into a folder.
        options: That the fabricated files need.
        below: Folder in the source that is given.
    """

    script: str
    write: Callable[[Path], object]
    options: tuple[str, ...] = ()
    below: str = "."

    def words(self, source: Path, out: Path, *more: str) -> list[str]:
        """The command's words."""
        given = [option.replace("{source}", str(source)) for option in self.options]
        options = [word for option in given for word in ("--option", option)]
        return ["prepare", self.script, "--source", str(source / self.below), "--out", str(out), *options, *more]

    def prepare(self, source: Path, out: Path, *more: str) -> int:
        """Runs the command; returns its exit code."""
        return main(self.words(source, out, *more))


def _fmriprep(folder: Path) -> None:
    nifti.write_fmriprep(folder)
    nifti.write_pictures(folder / "stimuli")


def _volume_betas(folder: Path) -> None:
    func = folder / "sub-01" / "func"
    rows = [[nifti.stimulus(trial)] for trial in range(6)]
    nifti.write_events(func / "sub-01_task-see_run-1_events.tsv", rows, "stim_file")
    values = np.stack([nifti.beta(trial) for trial in range(6)], -1)
    nifti.save(func / "sub-01_task-see_run-1_space-T1w_betas.nii.gz", values)
    nifti.save(folder / "mask.nii.gz", nifti.chosen(), dtype=np.uint8)


def _glmsingle(form: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = nifti.write_glmsingle(folder, form)
        path.with_name("events.tsv").write_text("stimulus_id\n" + "".join(f"s{trial % 5}\n" for trial in range(10)))
        nifti.save(folder / "mask.nii.gz", nifti.chosen(), dtype=np.uint8)

    return write


_PARTIAL = ("incomplete=yes", "checksums=no")
_MASK = "mask={source}/mask.nii.gz"
SOURCES = {
    "nsd-release": Source("nsd", lambda folder: nsd.write_release(folder / "nsd", sessions=1), _PARTIAL, "nsd"),
    "nsd-release-hdf5": Source(
        "nsd", lambda folder: nsd.write_release(folder / "nsd", sessions=1, as_hdf5=True), _PARTIAL, "nsd"
    ),
    "nsd-mindeye2": Source("nsd", lambda folder: nsd.write_mindeye2(folder / "nsd"), _PARTIAL, "nsd"),
    "nsd-mindeye": Source("nsd", lambda folder: nsd.write_mindeye(folder / "nsd"), _PARTIAL, "nsd"),
    "god-published": Source("god", lambda folder: god.write_published(folder / "god"), _PARTIAL),
    "god-mindvis": Source("god", lambda folder: god.write_mindvis(folder / "god"), _PARTIAL),
    "bold5000-arrays": Source("bold5000", lambda folder: bold5000.write_arrays(folder / "b"), _PARTIAL),
    "bold5000-volumes": Source("bold5000", lambda folder: bold5000.write_volumes(folder / "b"), _PARTIAL),
    "bold5000-first": Source("bold5000", lambda folder: bold5000.write_first_release(folder / "b"), _PARTIAL),
    "things_fmri": Source("things_fmri", lambda folder: things_fmri.write_things(folder / "t"), _PARTIAL, "t"),
    "miyawaki-nilearn": Source("miyawaki2008", lambda folder: miyawaki2008.write_nilearn(folder / "m"), _PARTIAL),
    "miyawaki-npz": Source(
        "miyawaki2008", lambda folder: miyawaki2008.write_npz(folder / "miyawaki_figures_2_5.npz"), _PARTIAL
    ),
    "haxby-openfmri": Source("haxby2001", lambda folder: haxby2001.write_openfmri(folder / "haxby2001"), _PARTIAL),
    "haxby-nilearn": Source("haxby2001", lambda folder: haxby2001.write_nilearn(folder / "haxby2001"), _PARTIAL),
    "nifti-fmriprep": Source("nifti", _fmriprep, ("stimuli={source}/stimuli",)),
    "nifti-betas": Source("nifti", _volume_betas, (_MASK,)),
    "nifti-glmsingle-hdf5": Source("nifti", _glmsingle("hdf5"), (_MASK,)),
    "nifti-glmsingle-mat": Source("nifti", _glmsingle("mat"), (_MASK,)),
    "surfaces-dtseries": Source("surfaces", surfaces.write_dtseries),
    "surfaces-dscalar": Source("surfaces", surfaces.write_dscalar),
    "surfaces-gifti": Source("surfaces", surfaces.write_gifti, ("tr=2",)),
    "wen2018-mindvideo": Source("wen2018", lambda folder: wen2018.mindvideo(folder / "w"), _PARTIAL, "w"),
    "wen2018-neuroclips": Source("wen2018", lambda folder: wen2018.neuroclips(folder / "w"), _PARTIAL, "w"),
    "vim2": Source("vim2", lambda folder: vim2.write(folder / "v"), _PARTIAL, "v"),
    "bmd": Source("bmd", lambda folder: bmd.write(folder / "b"), _PARTIAL, "b"),
    "eeg_voa": Source("eeg_voa", lambda folder: eeg.write_voa(folder / "e"), _PARTIAL, "e"),
    "things_eeg": Source("things_eeg", lambda folder: eeg.write_things(folder / "e"), _PARTIAL, "e"),
    "tgbh": Source("tgbh", lambda folder: tgbh.write(folder / "t"), _PARTIAL, "t"),
    "digits69": Source("digits69", lambda folder: digits69.write_digits(folder / "digit69_28x28.mat")),
}
