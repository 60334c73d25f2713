"""Files that name other files, or say what can't be: none is followed, and none is taken for data. And two calls at
once."""

import base64
import fcntl
import io
import os
import re
import shutil
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.data import TrialTable
from fmri_models.data.brain_images.events import read_events
from fmri_models.data.brain_images.masks import Mask
from fmri_models.data.brain_images.opening import open_image, opened_hdf5
from fmri_models.data.brain_images.series import VolumeSeries
from fmri_models.data.brain_images.single_trials import TrialModel, check_times
from fmri_models.data.published.bdata import BData
from fmri_models.data.published.dataset import KnownVoxels, VoxelGrid
from fmri_models.data.published.extraction import _voxels_sha256, work_folder
from fmri_models.data.published.npz_arrays import NpzArrays
from fmri_models.data.published.nsd import mindeye2, release
from fmri_models.data.published.nsd.experiment import stimulus_id
from fmri_models.data.published.webdataset_tars import samples_of
from fmri_models.errors import FmriModelsError
from tests.data.sources import SOURCES
from tests.fabricated import god, nifti, nsd

h5py = pytest.importorskip("h5py")
nibabel = pytest.importorskip("nibabel")
pytest.importorskip("nilearn")


def _lead_out(path: Path, name: str, how: str, other: Path) -> None:
    """Puts what is elsewhere in an array's place."""
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        del file[name]
        if how == "raw":
            other.write_bytes(values.tobytes())
            file.create_dataset(name, values.shape, values.dtype, external=[(str(other), 0, h5py.h5f.UNLIMITED)])
            return
        with h5py.File(other, "w") as outside:
            outside["x"] = values
        if how == "link":
            file[name] = h5py.ExternalLink(str(other), "x")
        else:
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[...] = h5py.VirtualSource(str(other), "x", values.shape)
            file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("how", ["link", "virtual", "raw"])
def test_hdf5_that_leads_to_another_file(how: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    SOURCES["nifti-glmsingle-hdf5"].write(source)
    path = next(source.rglob("TYPED*.hdf5"))
    _lead_out(path, "betasmd", how, tmp_path / "outside")
    assert SOURCES["nifti-glmsingle-hdf5"].prepare(source, out) == 1
    said = capsys.readouterr().err
    assert "betasmd" in said and "in another file" in said and said.count("error:") == 1
    assert not out.exists()


def test_links_within_a_file_are_followed_and_loops_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file["group/values"] = np.arange(3)
        file["soft"] = h5py.SoftLink("/group/values")
        file["group/up"] = file
        file["loop"] = h5py.SoftLink("/loop")
    with opened_hdf5(path) as file:
        assert file["soft"][:].tolist() == file["group/up/group/values"][:].tolist() == [0, 1, 2]
    with pytest.raises(FmriModelsError, match="damaged"), opened_hdf5(path) as file:
        file["loop"][:]


def test_a_file_that_was_changed_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.arange(3)
    with opened_hdf5(path):
        pass
    _lead_out(path, "values", "link", tmp_path / "outside")
    with pytest.raises(FmriModelsError, match="external link values"), opened_hdf5(path):
        pass


@pytest.mark.parametrize("kind", ["group", "type", "strings", "references", "compound", "lists"])
def test_something_else_where_numbers_are_expected(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    SOURCES["nifti-glmsingle-hdf5"].write(source)
    with h5py.File(next(source.rglob("TYPED*.hdf5")), "r+") as file:
        shape = file["betasmd"].shape
        del file["betasmd"]
        if kind == "group":
            file.create_group("betasmd")
        elif kind == "type":
            file["betasmd"] = np.dtype("f4")
        elif kind == "strings":
            file.create_dataset("betasmd", data=np.full(shape, "x", object), dtype=h5py.string_dtype())
        else:
            types = {
                "references": h5py.ref_dtype,
                "compound": [("a", "f4"), ("b", "f4")],
                "lists": h5py.vlen_dtype("f4"),
            }
            file.create_dataset("betasmd", shape, types[kind])
    assert SOURCES["nifti-glmsingle-hdf5"].prepare(source, out) == 1
    said = capsys.readouterr().err
    assert "unexpected" not in said and "TYPED_FITHRF" in said and re.search(r"layout|damaged", said), said


def test_an_array_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = SOURCES["bold5000-first"]
    source.write(tmp_path / "in")
    with h5py.File(next((tmp_path / "in").rglob("CSI1_ROIs_TR34.h5")), "r+") as file:
        del file["LHLOC"]
        file["LHLOC"] = h5py.Empty("f4")
    assert source.prepare(tmp_path / "in", tmp_path / "out") == 1
    assert "no matrix LHLOC" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "shape"), [("metadata/key", (10**8,)), ("metadata/value", (15, 10**10))])
def test_metadata_of_any_size_are_not_read(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    god.write_published(tmp_path)
    path = next(tmp_path.rglob("Subject1.h5"))
    with h5py.File(path, "r+") as file:
        kind = file[name].dtype
        del file[name]
        file.create_dataset(name, shape, kind, chunks=True)
    tracemalloc.start()
    with pytest.raises(FmriModelsError, match="metadata are of the shape"):
        BData(path, "give another")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_gifti_that_names_another_file(tmp_path: Path) -> None:
    path, secret = tmp_path / "left.func.gii", tmp_path / "secret"
    secret.write_bytes(np.arange(4, dtype="<f4").tobytes())
    values = nibabel.gifti.GiftiDataArray(np.zeros(4, np.float32), encoding="B64BIN")
    text = nibabel.gifti.GiftiImage(darrays=[values]).to_xml().decode()
    text = text.replace('Encoding="Base64Binary"', 'Encoding="ExternalFileBinary"')
    text = text.replace('ExternalFileName=""', f'ExternalFileName="{secret}"')
    text = text.replace(base64.b64encode(bytes(16)).decode(), "")
    path.write_text(text)
    assert np.asarray(nibabel.load(path).darrays[0].data).tolist() == [0, 1, 2, 3]
    with pytest.raises(FmriModelsError, match="left.func.gii"):
        open_image(path, "GIFTI file")


def test_another_call_at_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    SOURCES["nifti-betas"].write(source)
    work_folder(out).mkdir()
    held = os.open(work_folder(out), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert SOURCES["nifti-betas"].prepare(source, out) == 1
    assert "Another call is preparing" in capsys.readouterr().err
    assert not out.exists() and not list(work_folder(out).iterdir())
    os.close(held)
    work_folder(out).rmdir()
    work_folder(out).symlink_to(source)
    assert SOURCES["nifti-betas"].prepare(source, out) == 1
    assert "is a link" in capsys.readouterr().err and (source / "mask.nii.gz").is_file()
    work_folder(out).unlink()
    work_folder(out).mkdir()
    # What a killed call of something else has left is no hindrance.
    (work_folder(out) / "left").mkdir()
    shutil.copy(source / "mask.nii.gz", work_folder(out) / "left")
    assert SOURCES["nifti-betas"].prepare(source, out) == 0
    assert TrialTable.open(out) and not work_folder(out).exists()


def _own_betas(folder: Path) -> Path:
    folder.mkdir()
    SOURCES["nifti-betas"].write(folder)
    return folder


@pytest.mark.parametrize("affine", [np.diag([0.0, 0, 0, 1]), np.diag([np.nan, 1, 1, 1])])
def test_an_affine_that_places_no_voxel(affine: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = _own_betas(tmp_path / "in")
    for path in (source / "mask.nii.gz", next(source.rglob("*_betas.nii.gz"))):
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        header = nibabel.Nifti1Header()
        header["sform_code"] = 1
        header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
        nibabel.save(nibabel.Nifti1Image(values, None, header), path)
    assert SOURCES["nifti-betas"].prepare(source, tmp_path / "out") == 1
    assert "places no voxel" in capsys.readouterr().err


def test_a_mask_that_says_no_place_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = _own_betas(tmp_path / "in")
    for path in (source / "mask.nii.gz", next(source.rglob("*_betas.nii.gz"))):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None), path)
    assert SOURCES["nifti-betas"].prepare(source, tmp_path / "out") == 0
    assert "left and right could be exchanged" in capsys.readouterr().err


def test_a_subject_s_folder_that_leads_to_all_that_is_around_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = _own_betas(tmp_path / "in")
    (source / "sub-09").symlink_to("/")
    assert SOURCES["nifti-betas"].prepare(source, tmp_path / "out") == 1
    assert "link to a folder that it lies in" in capsys.readouterr().err


def test_durations_in_milliseconds_and_two_repetition_times(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    nifti.write_fmriprep(source)
    more = ["--option", "betas=lag"]
    command = ["prepare", "nifti", "--source", str(source), "--out", str(out), *more]
    for path in source.rglob("*space-T1w_desc-preproc_bold.json"):
        path.write_text(path.read_text().replace(f"{nifti.SECONDS}", f"{nifti.SECONDS * 1.25}", 1))
    assert main(command) == 0
    assert "between two volumes, and its sidecar" in capsys.readouterr().err
    path = sorted(source.rglob("*_events.tsv"))[0]
    path.write_text(path.read_text().replace(f"\t{nifti.DURATION}\t", f"\t{nifti.DURATION * 1000}\t"))
    assert main([*command, "--overwrite"]) == 1
    assert "check the unit, which is seconds" in capsys.readouterr().err


def test_settings_that_name_files_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = _own_betas(tmp_path / "in")
    settings, labels = tmp_path / "mine.yaml", tmp_path / "elsewhere.txt"
    shutil.copy(source / "mask.nii.gz", source / "atlas.nii.gz")
    labels.write_text("one\n")
    head = "title: T\nreads: nifti\nlicense: CC0\norigin: o\ncitation: c\noptions:\n"
    own = '  mask: "{source}/mask.nii.gz"\n  atlas: "{source}/atlas.nii.gz"\n'
    command = ["prepare", str(settings), "--source", str(source), "--overwrite", "--out", str(tmp_path / "out")]
    settings.write_text(f"{head}{own}")
    assert main(command) == 0 and "do not lie in" not in capsys.readouterr().err
    settings.write_text(f"{head}{own}  atlas_labels: {labels}\n")
    assert main(command) == 0
    assert f"atlas_labels={labels}" in capsys.readouterr().err


def test_two_events_at_once(tmp_path: Path) -> None:
    run = tmp_path / "events.tsv"
    run.write_text("onset\tduration\tstim_file\n0\t1\ta.png\n4\t1\tb.png\n4\t1\tb.png\n")
    with pytest.raises(FmriModelsError, match="rows 2 and 3 .* have the same onset, 4 s"):
        check_times(read_events(run), np.arange(20.0), 1.0, TrialModel(), "run 1")


@pytest.mark.parametrize("count", [0, 10**12])
def test_a_header_of_no_volume_or_of_a_trillion(count: int, tmp_path: Path) -> None:
    path = tmp_path / "bold.nii"
    nibabel.save(nibabel.Nifti2Image(np.zeros((5, 4, 3, 2), np.float32), nifti.AFFINE), path)
    data = bytearray(path.read_bytes())
    data[48:56] = count.to_bytes(8, "little")
    path.write_bytes(bytes(data))
    mask = Mask(path, nifti.AFFINE, np.ones((5, 4, 3), bool))
    with pytest.raises(FmriModelsError, match=f"it has {count} volumes"):
        VolumeSeries(path, mask)


@pytest.mark.parametrize(("place", "value"), [(0, np.nan), (5, -3), (2, 1.5), (0, 80_000)])
def test_behaviour_of_nsd_that_can_not_be(place: int, value: float, tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    row = nsd.behaviour()[:1].astype(float)
    row[0, place] = value
    nsd._write_behaviour(path, row)
    with pytest.raises(FmriModelsError, match=r"whole numbers|picture 80000"):
        [stimulus_id(int(index)) for index in mindeye2._behaviour(path)[:, 0]]


def test_headers_of_nsd_that_go_to_the_other_side_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = nifti.save(tmp_path / "betas_session01.nii.gz", np.ones((2, 2, 2, 1)), np.diag([-1.8, 1.8, 1.8, 1]))
    release._say_other_directions(path, np.diag([1.8, 1.8, 1.8, 1]), "subj01")
    assert "go to LAS, and those of nsdgeneral to RAS" in capsys.readouterr().err
    release._say_other_directions(path, np.diag([-1.8, 1.8, 1.8, 1]), "subj01")
    assert not capsys.readouterr().err


def test_rows_of_an_archive_have_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    for shape in ((10**9, 0), (1, 2**31)):
        with zipfile.ZipFile(path, "w") as archive:
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
            archive.writestr("x.npy", head.getvalue() + bytes(1000))
        with pytest.raises(FmriModelsError, match="bytes"):
            next(NpzArrays(path, "get it again").rows("x"))


def test_other_voxels_of_the_same_number_are_another_extraction() -> None:
    first = KnownVoxels(3, roi=["a", "b", ""], regions={"r": np.array([True, False, False])})
    others = [
        KnownVoxels(3, roi=["a", "", "b"], regions=first.regions),
        KnownVoxels(3, roi=first.roi, regions={"r": np.array([False, True, False])}),
        KnownVoxels(3, roi=first.roi, regions=first.regions, coordinates=np.zeros((3, 3))),
        KnownVoxels(3, first.roi, regions=first.regions, grid=VoxelGrid((2, 2, 1), np.eye(4), np.array([0, 1, 3]))),
    ]
    assert len({_voxels_sha256(each) for each in (first, *others)}) == 5
    assert _voxels_sha256(first) == _voxels_sha256(replace(first, ncsnr=np.ones(3)))


def test_a_tar_of_sparse_files(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    member = tarfile.TarInfo("sample0.coco73k.npy")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    # One piece of 512 bytes at the end of a terabyte.
    header[386:410] = b"%011o\0%011o\0" % (8**10, 512)
    header[483:495] = b"%011o\0" % (8**10 + 512)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(512) + bytes(10240))
    with tarfile.open(path) as archive:
        assert next(iter(archive)).size > 2**29
    with pytest.raises(FmriModelsError, match="sparse"):
        list(samples_of(path, "get it again"))
