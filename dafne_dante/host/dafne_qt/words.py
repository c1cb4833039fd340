"""Every English sentence that a person sees inside Dafne, in one place, ready for translation.

Terms: a name in braces is filled in with `str.format`.
"""

from types import MappingProxyType

__all__ = [
    "ACTIVITY",
    "ACTIVITY_EMPTY",
    "ACTIVITY_TITLE",
    "BACK_TO_GLOBAL",
    "CANCEL_KEEP",
    "CANCEL_NOTHING",
    "CASES",
    "COLUMNS",
    "EPOCH",
    "GLOBAL_USED",
    "HOW",
    "IMPROVE",
    "IMPROVED_USED",
    "IMPROVE_TITLE",
    "KEEPING",
    "LEARNS_FROM",
    "LEFT",
    "METHODS",
    "NOTHING_KEPT",
    "NOTHING_LEAVES",
    "NO_MODEL",
    "READY",
    "REPORT",
    "SEND",
    "SENDS",
    "START",
    "STATES",
    "TRIGGERS",
    "WAITS",
    "WITHOUT_PLUGIN",
]

IMPROVE = "Improve model with Dante..."
ACTIVITY = "Dante activity..."
IMPROVE_TITLE = "Improve {model_type}"
LEARNS_FROM = "Learns from"
CASES = "{cases} studies kept here, {slices} slices with something drawn: {labels}"
READY = "Ready."
NOTHING_KEPT = "Nothing to learn from yet: draw, and save the masks of one study."
NO_MODEL = "No model is chosen: choose one for the slice that is shown."
HOW = "How"
METHODS = MappingProxyType(
    {"auto": "Whatever fits best (auto)", "lora": "LoRA: few numbers move", "gradual-unfreezing": "Gradual unfreezing"}
)
SEND = "Send the improvement to the federation"
SENDS = (
    "What leaves the house: one signed file with changes of weights, names of labels, numbers of studies and Dice. "
    "No images."
)
NOTHING_LEAVES = "Nothing leaves the house: the improved model is used here only."
START = "Improve"
ACTIVITY_TITLE = "Dante activity"
ACTIVITY_EMPTY = "Nothing was improved yet."
COLUMNS = ("Model", "Asked for by", "State", "How far, or how it ended")
STATES = MappingProxyType(
    {"queued": "waits", "running": "runs", "done": "done", "failed": "failed", "cancelled": "cancelled"}
)
TRIGGERS = MappingProxyType({"saved": "a correction", "nightly": "the night", "button": "the button"})
EPOCH = "epoch {epoch} of {epochs}"
LEFT = "{minutes} min left"
WAITS = "begins when nothing was saved for a while"
CANCEL_KEEP = "Stop, keep the best so far"
CANCEL_NOTHING = "Stop, keep nothing"
REPORT = "Open report"
BACK_TO_GLOBAL = "Back to the global model"
GLOBAL_USED = "{model_type}: the global model is used."
IMPROVED_USED = "{model_type}: improved here, Dice {before:.2f} -> {after:.2f}, is used."
KEEPING = "Keeping the annotations..."
WITHOUT_PLUGIN = "Dafne runs without the plugin: {why}"
