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
    "CANCEL_KEEP_NOTHING",
    "CANCEL_NOTHING",
    "CASE",
    "CASES",
    "COLUMNS",
    "COMPARE",
    "COMPARE_CASE",
    "COMPARE_NO_CASE",
    "COMPARE_ONE",
    "COMPARE_OTHER",
    "COMPARE_SHOW",
    "COMPARE_TITLE",
    "COMPARING",
    "EPOCH",
    "GLOBAL_MODEL",
    "GLOBAL_USED",
    "GROUP_LIMITS",
    "GROUP_PRIVACY",
    "GROUP_SERVER",
    "GROUP_TRIGGERS",
    "HOW",
    "IMPROVE",
    "IMPROVED_MODEL",
    "IMPROVED_USED",
    "IMPROVE_TITLE",
    "KEEPING",
    "LEARNS_FROM",
    "LEFT",
    "METHODS",
    "MINUTES",
    "NOTHING_KEPT",
    "NOTHING_LEAVES",
    "NOTHING_TO_KEEP",
    "NO_MODEL",
    "NO_SERVER",
    "OUTBOX",
    "OUTBOX_ONE",
    "OWN_FAULT",
    "PAUSE",
    "READY",
    "REPORT",
    "SEND",
    "SENDS",
    "SENDS_ABOUT",
    "SENDS_LIKE_LAST",
    "SETTINGS",
    "SETTINGS_AFTER",
    "SETTINGS_BUTTON",
    "SETTINGS_CLIP",
    "SETTINGS_FULL",
    "SETTINGS_IDLE",
    "SETTINGS_KEY",
    "SETTINGS_KEY_KEPT",
    "SETTINGS_MEMORY",
    "SETTINGS_METHOD",
    "SETTINGS_NEXT",
    "SETTINGS_NIGHT",
    "SETTINGS_NOISE",
    "SETTINGS_POWER",
    "SETTINGS_SEND",
    "SETTINGS_SERVER",
    "SETTINGS_THREADS",
    "SETTINGS_TITLE",
    "SETTINGS_UNTIL",
    "SLICES",
    "START",
    "STATES",
    "STATUS_IMPROVED",
    "STATUS_NOTHING",
    "STATUS_PAUSED",
    "STATUS_SENT",
    "STUDIES",
    "TAKES",
    "TAKES_ABOUT",
    "TAKES_AS_LAST",
    "TAKES_UNKNOWN",
    "TRAINING",
    "TRIGGERS",
    "USE",
    "VERSIONS",
    "WAITS",
    "WITHOUT_PLUGIN",
    "counted",
]

IMPROVE = "Improve model with Dante..."
ACTIVITY = "Dante activity..."
IMPROVE_TITLE = "Improve {model_type}"
LEARNS_FROM = "Learns from"
CASES = "{studies} kept here, {slices} with something drawn: {labels}"
READY = "Ready."
NOTHING_KEPT = "Nothing to learn from yet: draw, and save the masks of one study."
NO_SERVER = "No federation server is set: Tools, Dante settings... Dafne learns in its own way until then."
NO_MODEL = "No model is chosen: choose one for the slice that is shown."
HOW = "How"
METHODS = MappingProxyType(
    {"auto": "Whatever fits best (auto)", "lora": "LoRA: few numbers move", "gradual-unfreezing": "Gradual unfreezing"}
)
SEND = "Send the improvement to the federation"
SENDS = (
    "What leaves the house, to {server}: one signed file{size} with changes of weights, names of labels, numbers of "
    "studies and Dice. No images."
)
SENDS_LIKE_LAST = " of about {size}, like the last one,"
SENDS_ABOUT = " of about {size}, by the model's size,"
NOTHING_LEAVES = "Nothing leaves the house: the improved model is used here only."
START = "Improve"
ACTIVITY_TITLE = "Dante activity"
ACTIVITY_EMPTY = "Nothing was improved yet."
COLUMNS = ("Model", "Asked for by", "State", "How far, or how it ended")
STATES = MappingProxyType(
    {"queued": "waits", "running": "runs", "done": "done", "failed": "failed", "cancelled": "cancelled"}
)
TRIGGERS = MappingProxyType({"saved": "a correction", "nightly": "the night", "button": "the button"})
TRAINING = "training {training} of {trainings}"
EPOCH = "epoch {epoch} of {epochs}"
LEFT = "{minutes} min left"
WAITS = "begins when nothing was saved for a while"
CANCEL_KEEP = "Stop, keep the best so far"
CANCEL_KEEP_NOTHING = "Stop, keep the best so far (nothing yet)"
NOTHING_TO_KEEP = "Nothing to keep yet: the first training has not finished an epoch."
CANCEL_NOTHING = "Stop, keep nothing"
REPORT = "Open report"
BACK_TO_GLOBAL = "Back to the global model"
GLOBAL_USED = "{model_type}: the global model is used."
IMPROVED_USED = "{model_type}: improved here, Dice {before:.2f} -> {after:.2f}, is used."
KEEPING = "Keeping the annotations..."
WITHOUT_PLUGIN = "Dafne runs without the plugin: {why}"
STUDIES = ("{count} study", "{count} studies")
SLICES = ("{count} slice", "{count} slices")
TAKES = "Time"
TAKES_AS_LAST = "about {minutes}, as the last time"
TAKES_ABOUT = "about {minutes}, by a training step that was measured here"
MINUTES = ("{count} minute", "{count} minutes")
TAKES_UNKNOWN = "some minutes; the Activity window tells when the first epoch is over. You can go on working."
PAUSE = "Pause: improve only what somebody asks for"
SETTINGS = "Dante settings..."
SETTINGS_BUTTON = "Settings..."
SETTINGS_TITLE = "Dante settings"
SETTINGS_SERVER = "Federation server"
SETTINGS_KEY = "Your key"
SETTINGS_KEY_KEPT = "stays as it is"
SETTINGS_AFTER = "After a save, begin after"
SETTINGS_METHOD = "Automatic jobs use"
SETTINGS_SEND = "Automatic jobs send their update"
SETTINGS_FULL = "A full model may leave where a server takes no deltas"
SETTINGS_CLIP = "Longest update that may leave (0: any)"
SETTINGS_NOISE = "Noise, of that length (0: none)"
SETTINGS_THREADS = "Threads of a job (0: half of the cores)"
SETTINGS_MEMORY = "Memory of a job (0: three quarters)"
SETTINGS_NIGHT = "At night, from"
SETTINGS_UNTIL = "until"
SETTINGS_POWER = "Not on a battery"
SETTINGS_IDLE = "Not while somebody works here"
SETTINGS_NEXT = "Settings are in force for the next job."
GROUP_SERVER = "Federation"
GROUP_TRIGGERS = "When"
GROUP_PRIVACY = "What may leave"
GROUP_LIMITS = "Limits"
VERSIONS = "Model in use"
GLOBAL_MODEL = "global model"
IMPROVED_MODEL = "improved {number}: Dice {before:.2f} -> {after:.2f}, {when}"
USE = "Use"
COMPARE = "Compare..."
COMPARE_TITLE = "Compare two models of {model_type}"
COMPARE_CASE = "On the case"
COMPARE_ONE = "One model"
COMPARE_OTHER = "The other"
COMPARE_SHOW = "Show side by side"
COMPARE_NO_CASE = "No case is kept here yet: draw, and save the masks of one study."
CASE = "saved {when}, {slices}"
OUTBOX = "{count} updates wait to be sent: {why}"
OUTBOX_ONE = "1 update waits to be sent: {why}"
STATUS_IMPROVED = "{model_type}: improved {when}, Dice {before:.2f} -> {after:.2f}{sent}"
STATUS_SENT = ", {size} sent"
STATUS_NOTHING = "Dante: nothing was improved yet"
STATUS_PAUSED = "Dante is paused. "
OWN_FAULT = "a fault of the plugin's own, {kind}; please report it"
COMPARING = "Comparing..."


def counted(forms: tuple[str, str], count: int) -> str:
    """A number with its word, in the form for one or for several."""
    return forms[count != 1].format(count=count)
