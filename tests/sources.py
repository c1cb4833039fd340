"""One volume with its masks, written in the forms that are not DICOM; each writer gives the files worth spoiling.

`volume` is (I, J, K), `masks` label to (I, J, K) bool, `affine` (4, 4) in RAS+.
"""

import json

import nibabel
import numpy as np


def save_nifti(path, volume, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)


def write_plain(folder, volume, masks, affine, case="case"):
    """An image without compression, and one file a label beside it."""
    save_nifti(folder / f"{case}.nii", volume.astype(np.int16), affine)
    for label, mask in masks.items():
        save_nifti(folder / f"{case}_mask_{label}.nii.gz", mask.astype(np.uint8), affine)
    return [f"{case}.nii", f"{case}_mask_{next(iter(masks))}.nii.gz"]


def write_bids(folder, volume, masks, affine):
    """A raw dataset with one subject, and its labels in a derivative."""
    save_nifti(folder / "sub-1" / "anat" / "sub-1_T1w.nii.gz", volume.astype(np.int16), affine)
    derivative = folder / "derivatives" / "manual"
    segmentation = sum(value * mask.astype(np.uint8) for value, mask in enumerate(masks.values(), start=1))
    save_nifti(derivative / "sub-1" / "anat" / "sub-1_dseg.nii.gz", segmentation.astype(np.uint8), affine)
    lines = ["index\tname", *(f"{value}\t{label}" for value, label in enumerate(masks, start=1))]
    (derivative / "sub-1" / "anat" / "sub-1_dseg.tsv").write_text("\n".join(lines) + "\n")
    described = {"Name": "test", "BIDSVersion": "1.9.0"}
    (folder / "dataset_description.json").write_text(json.dumps(described))
    described |= {"DatasetType": "derivative", "GeneratedBy": [{"Name": "hand"}]}
    (derivative / "dataset_description.json").write_text(json.dumps(described))
    inside = "derivatives/manual"
    names = ("sub-1/anat/sub-1_dseg.nii.gz", "sub-1/anat/sub-1_dseg.tsv", "dataset_description.json")
    return [f"{inside}/{name}" for name in names]


def write_bundle_file(folder, volume, masks, affine, case="bundle"):
    """The arrays of a Dafne bundle, as numpy packs them."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    drawn = {f"mask_{label}": mask.astype(np.uint8) for label, mask in masks.items()}
    np.savez_compressed(
        folder / f"{case}.npz", data=volume.astype(np.float32), resolution=spacing, affine=affine, **drawn
    )
    return [f"{case}.npz"]
