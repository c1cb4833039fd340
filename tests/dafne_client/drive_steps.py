"""What several sessions of the drive do: segment, correct the masks, open the dialog of the button."""

__all__ = ["MODEL", "correct", "dialog_after", "is_idle", "segment"]

MODEL = "Phantom"


def segment(session, name):
    """Choose a model and let Dafne segment with it; the structures that it found."""
    window = session.window
    session.choose(name)
    window.toolbox_window.do_autosegment.emit(0, window.medical_volume.volume.shape[2] - 1)
    session.wait(lambda: bool(window.roiManager and any(window.roiManager.get_roi_names())), 120)
    session.wait(is_idle, 60)
    session.pause(0.5)
    return sorted(window.roiManager.get_roi_names())


def correct(session, shift=0):
    """Draw the true structures on the middle slices through Dafne's own store of masks; how many voxels are drawn."""
    import numpy as np

    rois, slices = session.window.roiManager, session.window.medical_volume.volume.shape[2]
    reference = np.roll(_reference(session), shift, axis=0)
    for value, label in enumerate(("ball", "box"), start=1):
        for place in range(4, slices - 4):
            rois.set_mask(label, place, (reference[:, :, place] == value).astype(np.uint8))
    drawn = [(label, place) for label in rois.get_roi_names() for place in range(slices) if rois.contains(label, place)]
    return int(sum((rois.get_mask(*pair) > 0).sum() for pair in drawn))


def is_idle():
    """Whether Dafne's pool of threads has nothing to do."""
    from dafne.utils.ThreadHelpers import threadpool

    return threadpool.activeThreadCount() == 0


def dialog_after(session, deed):
    """The dialog that a deed opens, once it is there."""
    session.attached.dialog = None
    deed()
    session.wait(lambda: session.attached.dialog is not None, 40)
    session.pause(0.3)
    return session.attached.dialog


def _reference(session):
    """The structures in the axes in which Dafne shows the study."""
    import nibabel
    from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

    image = nibabel.load(session.folder / "reference.nii.gz")
    turn = ornt_transform(io_orientation(image.affine), io_orientation(session.window.medical_volume.affine))
    return apply_orientation(image.get_fdata(), turn).astype(int)
