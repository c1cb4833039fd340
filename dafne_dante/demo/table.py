"""The demonstration's outcome as a table for a person."""

from dafne_dante.demo.federation import DemoOutcome

__all__ = ["demo_table"]

_SCANNERS = {"A": "T1 (the model's own)", "B": "other contrast, bias", "C": "noise, thick slices"}
_METHODS = {"A": "-", "B": "LoRA", "C": "gradual unfreezing"}


def demo_table(outcome: DemoOutcome) -> str:
    """Dice on test subjects of old global, local improved and new global model, and the bytes that were sent."""
    head = f"{'hospital':10}{'scanner':24}{'method':20}{'old global':>11}{'improved':>10}{'new global':>12}{'sent':>22}"
    lines = ["Mean Dice on test subjects", "", head, "-" * len(head)]
    for name, one in outcome.hospitals.items():
        size = outcome.delta_bytes.get(name)
        share = "-" if size is None else f"{size:,} B ({size / outcome.model_bytes:.1%})"
        improved = "-" if one.improved is None else f"{one.improved:.3f}"
        lines.append(
            f"{name:10}{_SCANNERS[name]:24}{_METHODS[name]:20}{one.global_before:>11.3f}{improved:>10}"
            f"{one.global_after:>12.3f}{share:>22}"
        )
    lines += ["", f"A full model is {outcome.model_bytes:,} bytes. {outcome.seconds:.0f} seconds in all."]
    return "\n".join(lines)
