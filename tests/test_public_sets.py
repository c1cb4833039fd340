"""Public sets in the layouts that they are published in, small: what is read, whom it shows, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from dicom_labels import image_slices, random_affine, save
from phantoms import make_case, tiny_plan
from PIL import Image as Picture
from pydicom.uid import generate_uid
from sites import save as save_nifti

from dafne_dante.benchmark.benchmark import run_benchmark
from dafne_dante.benchmark.folders import folder_request, named_folders, read_folder, read_folders
from dafne_dante.benchmark.protocol import Effort
from dafne_dante.benchmark.public_sets import PUBLIC_SETS, read_public_set
from dafne_dante.benchmark.requests import Wish, make_request
from dafne_dante.config import Settings
from dafne_dante.errors import AnnotationError, SettingsError, UnknownLabelError, UnreadableImageError

SHAPE = (7, 6, 5)
AFFINE = np.diag([-1.0, -1.5, 3.0, 1.0])


def write(path, volume, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_nifti(path, volume, affine)


def volumes(seed, values):
    """An image and a label map with every value of `values`."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(values), SHAPE)
    return random.normal(100, 20, SHAPE).astype(np.float32), np.array(values, dtype=np.uint8)[drawn]


def read(name, folder, most=60):
    return read_public_set(name, folder, domain="set", most=most)


@pytest.fixture
def amos(tmp_path):
    for number, part in ((1, "Tr"), (500, "Va"), (507, "Tr"), (600, "Va")):
        image, labels = volumes(number, range(16))
        write(tmp_path / f"images{part}" / f"amos_{number:04d}.nii.gz", image)
        write(tmp_path / f"labels{part}" / f"amos_{number:04d}.nii.gz", labels)
    write(tmp_path / "imagesTs" / "amos_0002.nii.gz", volumes(2, [0])[0])
    return tmp_path


def test_amos_is_divided_by_modality(amos):
    ct, mri = read("amos22-ct", amos), read("amos22-mri", amos)
    assert ct.subjects == ("amos 0001", "amos 0500") and mri.subjects == ("amos 0507", "amos 0600")
    assert ct.labels[5] == "liver" and len(ct.labels) == 15
    image, labels = volumes(507, range(16))
    assert np.array_equal(mri.cases[0].image[0], image[::-1, ::-1]), "both axes of the file run against RAS"
    assert np.array_equal(mri.cases[0].segmentation, labels[::-1, ::-1])
    assert mri.cases[0].annotated.all() and [case.case_id for case in mri.cases] == ["set-0", "set-1"]
    assert read("amos22-ct", amos, most=1).subjects == ("amos 0001",)


def test_a_value_beyond_the_published_ones_is_refused(amos):
    write(amos / "labelsTr" / "amos_0001.nii.gz", volumes(1, [0, 16])[1])
    with pytest.raises(UnknownLabelError, match=r"amos_0001.*up to 15, found 16"):
        read("amos22-ct", amos)


@pytest.mark.parametrize("root", ["", "training"])
def test_wmh_is_divided_by_scanner_and_other_pathology_is_background(tmp_path, root):
    for place in ("Utrecht/0", "Singapore/50", "Amsterdam/GE3T/100"):
        folder = tmp_path / root / place
        flair, labels = volumes(len(place), [0, 1, 2])
        write(folder / "pre" / "FLAIR.nii.gz", flair)
        write(folder / "pre" / "T1.nii.gz", 2 * flair)
        write(folder / "orig" / "FLAIR.nii.gz", 0 * flair)
        write(folder / "wmh.nii.gz", labels)
    everyone = read("wmh2017", tmp_path)
    assert sorted(everyone.subjects) == ["wmh GE3T 100", "wmh Singapore 50", "wmh Utrecht 0"]
    for name, subject in (("utrecht", "Utrecht 0"), ("singapore", "Singapore 50"), ("amsterdam", "GE3T 100")):
        domain = read(f"wmh2017-{name}", tmp_path)
        assert domain.subjects == (f"wmh {subject}",)
    case = read("wmh2017-utrecht", tmp_path).cases[0]
    flair, labels = volumes(len("Utrecht/0"), [0, 1, 2])
    assert np.allclose(case.image[1], 2 * case.image[0]) and np.array_equal(case.image[0], flair[::-1, ::-1])
    assert np.array_equal(case.segmentation, (labels == 1)[::-1, ::-1])
    assert case.labels == ("lesion",)


def test_all_times_of_a_patient_are_one_subject(tmp_path):
    for part, patient, stem in (("train", "P1/T1", "P1_T1"), ("train", "P1/T2", "P1_T2"), ("test", "P54", "P54")):
        flair, labels = volumes(len(patient), [0, 1])
        for factor, contrast in enumerate(("FLAIR", "T1", "T2"), start=1):
            write(tmp_path / part / patient / f"{stem}_{contrast}.nii.gz", factor * flair)
        write(tmp_path / part / patient / f"{stem}_MASK.nii.gz", labels)
    write(tmp_path / "train" / "P2" / "P2_MASK.nii.gz", labels)
    domain = read("mslesseg", tmp_path)
    assert sorted(domain.subjects) == ["mslesseg P1", "mslesseg P1", "mslesseg P54"], "and P2 has no images"
    assert len(domain.of({"mslesseg P1"})) == 2
    for case in domain.cases:
        assert np.allclose(case.image[1:], np.stack([2 * case.image[0], 3 * case.image[0]]))


VALUES = (0, 63, 126, 189, 252)


def write_chaos(folder, seed, *, order=None):
    """One study: images and masks by names in `order` of Z, a series UID for each file, as anonymised."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, SHAPE).astype(np.uint8)
    affine = random_affine(seed)
    order = list(order if order is not None else range(SHAPE[2]))
    volumes = {}
    for contrast, (images, masks) in {
        "t1-in": ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground"),
        "t1-out": ("T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground"),
        "t2": ("T2SPIR/DICOM_anon", "T2SPIR/Ground"),
    }.items():
        volumes[contrast] = random.integers(1, 2000, SHAPE).astype(np.uint16)
        slices = image_slices(volumes[contrast], affine)
        for place in (images, masks):
            (folder / place).mkdir(parents=True, exist_ok=True)
        for number, k in enumerate(order):
            slices[k].SeriesInstanceUID = generate_uid()
            save(slices[k], folder / images / f"IMG-0004-{number:05d}.dcm")
            pixels = np.array(VALUES, dtype=np.uint8)[labels[..., k].T]
            Picture.fromarray(pixels).save(folder / masks / f"IMG-0004-{number:05d}.png")
    return volumes, labels, affine


@pytest.mark.parametrize("root", ["", "MR", "Train_Sets/MR"])
@pytest.mark.parametrize("backwards", [False, True])
def test_chaos_lays_each_mask_on_its_image(tmp_path, root, backwards):
    order = reversed(range(SHAPE[2])) if backwards else None
    volumes, labels, affine = write_chaos(tmp_path / root / "13", 3, order=order)
    write_chaos(tmp_path / root / "2", 4)
    for contrast, volume in volumes.items():
        domain = read(f"chaos-{contrast}", tmp_path)
        assert domain.subjects == ("chaos 2", "chaos 13") and domain.labels[0] == "liver"
        case = domain.cases[1]
        inverse = np.linalg.inv(affine)
        for index in np.ndindex(*case.segmentation.shape):
            source = tuple(np.rint((inverse @ case.affine @ [*index, 1])[:3]).astype(int))
            assert case.image[(0, *index)] == volume[source]
            assert case.segmentation[index] == labels[source]


def test_values_between_the_ranges_are_background(tmp_path):
    write_chaos(tmp_path / "1", 5)
    first = min((tmp_path / "1" / "T2SPIR" / "Ground").glob("*.png"))
    for value, label in ((54, 0), (55, 1), (70, 1), (71, 0), (110, 2), (200, 3), (239, 0), (255, 4)):
        Picture.fromarray(np.full(SHAPE[1::-1], value, dtype=np.uint8)).save(first)
        case = read("chaos-t2", tmp_path).cases[0]
        assert any((case.segmentation[..., k] == label).all() for k in range(SHAPE[2]))


def spoil_missing(folder):
    next(folder.glob("T2SPIR/Ground/*.png")).unlink()


def spoil_png(folder):
    next(folder.glob("T2SPIR/Ground/*.png")).write_bytes(b"no picture")


def spoil_size(folder):
    Picture.fromarray(np.zeros((3, 3), dtype=np.uint8)).save(next(folder.glob("T2SPIR/Ground/*.png")))


def spoil_dicom(folder):
    next(folder.glob("T2SPIR/DICOM_anon/*.dcm")).write_bytes(b"no dicom")


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (spoil_missing, AnnotationError, "a mask for each of 5 images, found 4"),
        (spoil_png, UnreadableImageError, "expected a mask as PNG"),
        (spoil_size, AnnotationError, r"expected \(7, 6\) pixels"),
        (spoil_dicom, AnnotationError, "5 images that are one volume"),
    ],
)
def test_a_damaged_study_of_chaos_is_refused(tmp_path, spoil, error, words):
    write_chaos(tmp_path / "1", 6)
    spoil(tmp_path / "1")
    with pytest.raises(error, match=words):
        read("chaos-t2", tmp_path)


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_another_folder_is_no_set(tmp_path, name):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(AnnotationError, match=f"expected {name} as it is published"):
        read(name, tmp_path)


def test_a_set_is_named_before_its_folder(amos, tmp_path):
    request = folder_request("mri", f"amos22-mri:{amos}")
    assert (request.public, request.path) == ("amos22-mri", amos)
    domain = read_folder(request, Settings(folder=tmp_path / "configuration"))
    assert (domain.name, domain.subjects) == ("mri", ("amos 0507", "amos 0600"))
    assert folder_request("own", "C:\\data").public == ""
    assert make_case(1).labels != domain.labels


def write_lesions(folder, people, *, wmh):
    """A set of FLAIR and T1 (WMH), or of FLAIR, T1 and T2 (MSLesSeg), of people with a bright ball; T1 is inverted."""
    for person in people:
        case = make_case(person, shape=(24, 24, 24))
        flair, labels = case.image[0], (case.segmentation == 1).astype(np.uint8)
        place = folder / "Utrecht" / str(person) / "pre" if wmh else folder / "train" / f"P{person}"
        stem = "" if wmh else f"P{person}_"
        for contrast, image in {"FLAIR": flair, "T1": 400 - flair, "T2": 0 * flair}.items():
            write(place / f"{stem}{contrast}.nii.gz", image, case.affine)
        write(place.parent / "wmh.nii.gz" if wmh else place / f"{stem}MASK.nii.gz", labels, case.affine)
    return folder


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    """WMH's Utrecht and MSLesSeg, four people each."""
    folder = tmp_path_factory.mktemp("lesions")
    write_lesions(folder / "WMH", range(4), wmh=True)
    write_lesions(folder / "MS", range(10, 14), wmh=False)
    return folder


def test_sets_with_other_contrasts_are_compared_on_those_in_common_to_the_end(lesions, tmp_path):
    """The pair of the documentation: pretrained on one, adapted to the other, and results are there."""
    wish = Wish(
        tmp_path / "out", quick=True, methods=("scratch", "lora"), shots=(1,), epochs=1, jobs=1,
        source=f"wmh2017-utrecht:{lesions / 'WMH'}", folders=(f"ms=mslesseg:{lesions / 'MS'}",),
    )  # fmt: skip
    made = make_request(wish, Settings(folder=tmp_path / "configuration"))
    for domain in (made.source, made.targets["ms"]):
        assert all(np.allclose(case.image[1], 400 - case.image[0], atol=1e-3) for case in domain.cases), "FLAIR, T1"
        assert all(len(case.image) == 2 for case in domain.cases)
    assert made.plan.in_channels == 2
    plan = replace(tiny_plan(labels=("lesion",)), in_channels=2)
    made = replace(made, plan=plan, effort=Effort(epochs=1, steps_per_epoch=2, pretraining_epochs=1))
    rows = run_benchmark(made)
    assert sorted(row.method for row in rows) == ["lora", "scratch"]
    assert (tmp_path / "out" / "results.md").is_file()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_contrasts_in_common_are_the_same_whatever_comes_first(lesions, tmp_path, order):
    wanted = named_folders([f"a=wmh2017:{lesions / 'WMH'}", f"b=mslesseg:{lesions / 'MS'}"])
    domains = read_folders([wanted[place] for place in order], Settings(folder=tmp_path))
    assert [domain.name for domain in domains] == [wanted[place].name for place in order]
    assert all(np.allclose(case.image[1], 400 - case.image[0], atol=1e-3) for one in domains for case in one.cases)
    alone = read_folders(wanted[1:], Settings(folder=tmp_path))[0]
    assert len(alone.cases[0].image) == 3, "nothing is left out where nobody lacks it"


def test_domains_that_cannot_have_as_many_contrasts_are_refused_before_anything_is_trained(lesions, amos, tmp_path):
    for source, target in (
        (f"amos22-mri:{amos}", f"mslesseg:{lesions / 'MS'}"),
        (f"mslesseg:{lesions / 'MS'}", f"amos22-mri:{amos}"),
    ):
        wish = Wish(tmp_path / "out", source=source, folders=(f"other={target}",))
        with pytest.raises(SettingsError, match="as many contrasts"):
            make_request(wish, Settings(folder=tmp_path / "configuration"))
    assert not (tmp_path / "out").exists()
