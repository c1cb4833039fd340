"""Made-up outcomes of benchmark cells, with every figure that a test wants to choose."""

from dafne_dante.benchmark.outcome import CurvePoint, Outcome
from dafne_dante.benchmark.protocol import Cell

STEP_SECONDS = 2.0


def made_outcome(curve, *, dice=0.5, sent_bytes=1_000, before=0.8, after=0.7):
    """An outcome whose selection Dice goes as in `curve`; an epoch takes two seconds, and one of the processor."""
    points = tuple(
        CurvePoint(epoch, STEP_SECONDS * epoch, STEP_SECONDS / 2 * epoch, value) for epoch, value in enumerate(curve, 1)
    )
    return Outcome(
        dice={"mean": dice, "a": dice},
        zero_shot=0.1,
        curve=points,
        best_epoch=len(curve),
        learning_rate=1e-3,
        trainable_parameters=10,
        sent_bytes=sent_bytes,
        peak_bytes=1 << 20,
        source_before=before,
        source_after=after,
    )


def made_cell(method, *, seed=0, target="one", shots=None, pretraining="rich"):
    """A cell; that of scratch has no pretraining."""
    return Cell(target, shots, None if method == "scratch" else pretraining, method, seed)
