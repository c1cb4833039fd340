"""NIfTI files, good and bad: one volume comes out, or one line that names the file and nothing else of the disk."""

import gzip
import hashlib
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from oriented import AFFINE, SHAPE, image_array, label_array, oblique, write

from dafne_dante.annotations.nifti.volume import read_volume, write_segmentation
from dafne_dante.errors import GeometryMismatchError, StorageError, UnreadableImageError

VOXEL_BYTES = 4 * int(np.prod(SHAPE))


def nifti_bytes(array=None, affine=AFFINE, kind=nib.Nifti1Image, **fields):
    """The bytes of an uncompressed file, some of its header's fields replaced afterwards."""
    image = kind(image_array() if array is None else array, affine)
    content = bytearray(image.to_bytes())
    header = image.header.structarr.dtype
    for name, value in fields.items():
        dtype, offset = header.fields[name][:2]
        content[offset : offset + dtype.itemsize] = np.array(value, dtype.base).tobytes().ljust(dtype.itemsize, b"\0")
    return bytes(content)


def scaled(slope, inter):
    return nifti_bytes(label_array().astype(np.int16), scl_slope=slope, scl_inter=inter)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
def test_voxels_and_affine_come_back_as_they_are(tmp_path, name, kind, dtype):
    array = image_array().astype(dtype)
    path = tmp_path / name
    image = kind(array, oblique(AFFINE), kind.header_class(endianness=">" if dtype.startswith(">") else "<"))
    image.set_data_dtype(array.dtype)
    nib.save(image, path)
    volume, affine = read_volume(path)
    np.testing.assert_array_equal(volume, array)
    assert volume.dtype == array.dtype.newbyteorder("=")
    assert volume.dtype.isnative
    np.testing.assert_allclose(affine, oblique(AFFINE), atol=1e-5)
    assert affine.dtype == np.float64


def test_scale_and_offset_of_the_header_are_applied(tmp_path):
    path = tmp_path / "ct.nii"
    path.write_bytes(scaled(0.5, -1024))
    volume, _ = read_volume(path)
    np.testing.assert_allclose(volume, label_array() * 0.5 - 1024)
    path.write_bytes(scaled(0, 7))  # 0 means "not scaled" (NIfTI-1, scl_slope)
    assert read_volume(path)[0].dtype == np.int16


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1), (4, 5), (4, 5, 1)])
def test_one_volume_is_one_volume_however_many_axes_it_has(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume, _ = read_volume(write(tmp_path / "a.nii.gz", array))
    np.testing.assert_array_equal(volume, array.reshape((*shape, 1)[:3]))


def test_the_name_does_not_decide_whether_a_file_is_compressed(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(nifti_bytes())
    (tmp_path / "b.nii").write_bytes(gzip.compress(nifti_bytes()))
    for name in ("a.nii.gz", "b.nii"):
        np.testing.assert_array_equal(read_volume(tmp_path / name)[0], image_array())


def test_the_affine_is_the_sform_else_the_qform_else_the_voxel_sizes(tmp_path):
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(image_array(), None)
    image.set_sform(AFFINE, code=1)
    image.set_qform(oblique(AFFINE), code=1)
    nib.save(image, path)
    np.testing.assert_allclose(read_volume(path)[1], AFFINE, atol=1e-5)
    image.set_sform(None, code=0)
    nib.save(image, path)
    np.testing.assert_allclose(read_volume(path)[1], oblique(AFFINE), atol=1e-5)
    image.set_qform(None, code=0)
    nib.save(image, path)
    np.testing.assert_allclose(read_volume(path)[1], nib.load(path).affine)


def test_small_faults_of_old_programs_are_put_right_in_silence(tmp_path, capfd, caplog):
    content = bytearray(nifti_bytes(qform_code=1, sform_code=0))
    struct.pack_into("<f", content, 76, 0.0)  # qfac, which must be 1 or -1
    (tmp_path / "old.nii").write_bytes(content)
    (tmp_path / "offset.nii").write_bytes(nifti_bytes(vox_offset=0))
    (tmp_path / "odd.nii").write_bytes(with_gap(5))
    for name in ("old.nii", "offset.nii", "odd.nii"):
        np.testing.assert_array_equal(read_volume(tmp_path / name)[0], image_array())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def with_gap(length):
    """Voxels `length` bytes later than usual, as header extensions put them."""
    content = nifti_bytes(vox_offset=352 + length)
    return content[:352] + bytes(length) + content[352:]


def test_extensions_are_skipped(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(with_gap(4096)))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz")[0], image_array())


def poisoned(value):
    array = image_array()
    array[1, 2, 3] = value
    return array


RGB = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_FILES = {
    "empty": (b"", "empty"),
    "garbage": (b"not an image at all " * 100, "something else"),
    "garbage in gzip": (gzip.compress(b"not an image at all " * 100), "something else"),
    "empty gzip": (gzip.compress(b""), "empty"),
    "header only": (nifti_bytes()[:348], "shorter file"),
    "half a header": (nifti_bytes()[:200], "something else"),
    "one byte short": (nifti_bytes()[:-1], "shorter file"),
    "one byte short in gzip": (gzip.compress(nifti_bytes()[:-1]), "found 2771"),
    "wrong magic": (nifti_bytes(magic=b"abc"), "something else"),
    "a pair's header": (nifti_bytes(magic=b"ni1"), "pair"),
    "huge axes": (nifti_bytes(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "at most 268435456 voxels"),
    "huge axes in gzip": (gzip.compress(nifti_bytes(dim=[3, 32767, 32767, 9, 1, 1, 1, 1])), "at most 268435456 voxels"),
    "axes beyond the file": (nifti_bytes(dim=[3, 512, 512, 512, 1, 1, 1, 1]), "shorter file"),
    "axes beyond any gzip": (gzip.compress(nifti_bytes(dim=[3, 640, 640, 640, 1, 1, 1, 1])), "shorter file"),
    "no axes": (nifti_bytes(dim=[0, 1, 1, 1, 1, 1, 1, 1]), "three axes"),
    "an axis of nothing": (nifti_bytes(dim=[3, 7, 0, 11, 1, 1, 1, 1]), "three axes"),
    "a negative axis": (nifti_bytes(dim=[3, 7, -9, 11, 1, 1, 1, 1]), "three axes"),
    "nine axes": (nifti_bytes(dim=[9, 7, 9, 11, 1, 1, 1, 1]), "expected"),
    "4D": (nifti_bytes(np.zeros((3, 4, 5, 6), np.uint8)), "expected one volume, found 4D with 6"),
    "5D": (nifti_bytes(np.zeros((3, 4, 5, 1, 3), np.uint8)), "expected one volume, found 5D with 3"),
    "complex": (nifti_bytes(np.zeros(SHAPE, np.complex64)), "complex"),
    "colour": (nifti_bytes(RGB), "colour"),
    "unknown dtype": (nifti_bytes(datatype=999), "sound NIfTI header"),
    "voxels in the header": (nifti_bytes(vox_offset=100), "sound NIfTI header"),
    "voxels far away": (nifti_bytes(vox_offset=1e12), "offset"),
    "voxels nowhere": (nifti_bytes(vox_offset=np.nan), "expected"),
    "not a number": (nifti_bytes(poisoned(np.nan)), "NaN"),
    "infinity": (nifti_bytes(poisoned(np.inf)), "NaN or infinity"),
    "infinite offset": (scaled(1.0, np.inf), "sound NIfTI header"),
    "micrometres": (nifti_bytes(xyzt_units=3), "millimetres"),
    "no third axis": (nifti_bytes(srow_z=[0, 0, 0, 0]), "voxels of"),
    "affine not a number": (nifti_bytes(srow_x=[np.nan, 0, 0, 0]), "finite"),
    "a bomb behind the voxels": (gzip.compress(nifti_bytes() + bytes(20 << 20)), "to end behind its voxels"),
    "a flipped bit in gzip": (None, "damaged"),
}


def flipped():
    content = bytearray(gzip.compress(nifti_bytes(), mtime=0))
    content[-6] ^= 1  # in the checksum
    return bytes(content)


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_refused_by_name(tmp_path, content, words):
    path = tmp_path / "study.nii.gz"
    path.write_bytes(flipped() if content is None else content)
    with pytest.raises(UnreadableImageError, match=words) as caught:
        read_volume(path)
    assert "study.nii.gz" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_compressed_file_that_is_cut_anywhere_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 9999, SHAPE).astype(np.int16)
    whole = gzip.compress(nifti_bytes(noise), mtime=0)
    path = tmp_path / "cut.nii.gz"
    for length in (1, 2, 9, 10, 11, 100, 300, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableImageError, match=r"cut\.nii\.gz") as caught:
            read_volume(path)
        assert str(tmp_path) not in str(caught.value)
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_volume(path)[0], noise)


@pytest.mark.parametrize("name", ["absent.nii", "folder.nii"])
def test_what_is_no_file_is_refused(tmp_path, name):
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(UnreadableImageError, match=name) as caught:
        read_volume(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_limits_are_the_callers(tmp_path):
    path = write(tmp_path / "a.nii", image_array())
    with pytest.raises(UnreadableImageError, match="at most 1000 bytes"):
        read_volume(path, max_bytes=1000)
    with pytest.raises(UnreadableImageError, match=f"at most 100 voxels, found {np.prod(SHAPE)}"):
        read_volume(path, max_voxels=100)


def test_a_lying_header_costs_no_memory(tmp_path):
    """1 GiB claimed by 2 KiB of zeros, which is more than gzip could ever unpack."""
    path = tmp_path / "liar.nii.gz"
    path.write_bytes(gzip.compress(nifti_bytes(dim=[3, 512, 512, 1000, 1, 1, 1, 1])))
    tracemalloc.start()
    with pytest.raises(UnreadableImageError, match="shorter file"):
        read_volume(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 8 << 20


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
def test_a_segmentation_lies_where_it_was_drawn_for_nibabel_and_for_us(tmp_path, name):
    path = tmp_path / name
    write_segmentation(path, label_array(), oblique(AFFINE))
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), label_array())
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.get_sform(), oblique(AFFINE), atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), oblique(AFFINE), atol=1e-4)
    assert image.header["qform_code"] == image.header["sform_code"] == 2
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(read_volume(path)[0], label_array())


def test_a_segmentation_has_the_same_bytes_each_time_and_names_nothing(tmp_path):
    digests = set()
    for name in ("first.nii.gz", "second.nii.gz"):
        write_segmentation(tmp_path / name, label_array(), AFFINE)
        content = (tmp_path / name).read_bytes()
        assert b".part" not in content
        assert content[4:8] == bytes(4), "the time in a gzip header (RFC 1952)"
        assert b"nii" not in content[:40]
        digests.add(hashlib.sha256(content).hexdigest())
    assert len(digests) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.nii.gz", "second.nii.gz"]


def test_a_segmentation_that_cannot_be_written_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "taken.nii.gz").mkdir()
    cases = [
        (tmp_path / "taken.nii.gz", label_array(), StorageError),
        (tmp_path / "nowhere" / "out.nii.gz", label_array(), StorageError),
        (tmp_path / "out.png", label_array(), StorageError),
        (tmp_path / "out.nii.gz", label_array().astype(np.int16), GeometryMismatchError),
        (tmp_path / "out.nii.gz", label_array()[0], GeometryMismatchError),
    ]
    for path, array, error in cases:
        with pytest.raises(error) as caught:
            write_segmentation(path, array, AFFINE)
        assert str(tmp_path) not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.nii.gz"]
