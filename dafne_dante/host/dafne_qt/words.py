"""Every English sentence that a person sees inside Dafne, in one place, ready for translation.

Terms: a name in braces is filled in with `str.format`.
"""

from collections.abc import Sequence
from types import MappingProxyType

__all__ = [
    "ACTIVITY",
    "ACTIVITY_EMPTY",
    "ACTIVITY_TITLE",
    "A_MODEL",
    "BACK_TO_GLOBAL",
    "CANCEL_KEEP",
    "CANCEL_KEEP_NOTHING",
    "CANCEL_NOTHING",
    "CASE",
    "CASES",
    "CASES_OF",
    "CHOSE_GLOBAL",
    "CHOSE_IMPROVED",
    "COLUMNS",
    "COMPARE",
    "COMPARE_CASE",
    "COMPARE_NO_CASE",
    "COMPARE_ONE",
    "COMPARE_OTHER",
    "COMPARE_SHOW",
    "COMPARE_TITLE",
    "COMPARING",
    "CONTRASTS",
    "EPOCH",
    "GLOBAL_INSTEAD",
    "GLOBAL_MODEL",
    "GLOBAL_USED",
    "GROUP_LIMITS",
    "GROUP_PRIVACY",
    "GROUP_SERVER",
    "GROUP_TRIGGERS",
    "HOW",
    "IMPROVE",
    "IMPROVED_LOADED",
    "IMPROVED_MODEL",
    "IMPROVED_USED",
    "IMPROVE_TITLE",
    "KEEPING",
    "LEARNS_FROM",
    "LEAVING",
    "LEAVING_GO_ON",
    "LEAVING_STOP",
    "LEAVING_TITLE",
    "LEFT",
    "LEFT_CONTRASTS",
    "LEFT_MISSING",
    "LEFT_UNKNOWN",
    "LOG",
    "LOOKING",
    "METHODS",
    "MINUTES",
    "MORE_SLICES",
    "MORE_STUDIES",
    "NEWER_USED",
    "NOTHING_KEPT",
    "NOTHING_LEAVES",
    "NOTHING_TO_KEEP",
    "NOTHING_WAITS",
    "NOTICE",
    "NOT_ATTACHED",
    "NOT_KEPT",
    "NOT_MEASURED",
    "NOT_OURS_TO_LEARN",
    "NOT_SENT",
    "NOT_SHOWN",
    "NOT_STOPPED",
    "NOT_WRAPPED",
    "NO_MODEL",
    "NO_SERVER",
    "OTHER_KIND",
    "OTHER_KIND_LOG",
    "OUTBOX",
    "OUTBOX_ONE",
    "OUTCOMES",
    "OWN_FAULT",
    "PAGE_JOBS",
    "PAGE_SENDING",
    "PAUSE",
    "PERHAPS",
    "READY",
    "REPORT",
    "SEND",
    "SENDING_NOW",
    "SENDS",
    "SENDS_ABOUT",
    "SENDS_LIKE_LAST",
    "SENT_COLUMNS",
    "SENT_TITLE",
    "SETTINGS",
    "SETTINGS_AFTER",
    "SETTINGS_BUTTON",
    "SETTINGS_CASES",
    "SETTINGS_CLIP",
    "SETTINGS_DAYS",
    "SETTINGS_DISK",
    "SETTINGS_FAULTS",
    "SETTINGS_FULL",
    "SETTINGS_IDLE",
    "SETTINGS_JOB",
    "SETTINGS_KEY",
    "SETTINGS_KEY_KEPT",
    "SETTINGS_KEY_NEEDED",
    "SETTINGS_MEMORY",
    "SETTINGS_MENDED",
    "SETTINGS_METHOD",
    "SETTINGS_NEXT",
    "SETTINGS_NIGHT",
    "SETTINGS_NIGHTS",
    "SETTINGS_NOISE",
    "SETTINGS_POWER",
    "SETTINGS_REPLACED",
    "SETTINGS_RUN",
    "SETTINGS_SAVE",
    "SETTINGS_SEND",
    "SETTINGS_SERVER",
    "SETTINGS_SLICES",
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
    "STUDIES_LEFT",
    "TAKES",
    "TAKES_ABOUT",
    "TAKES_AS_LAST",
    "TAKES_UNKNOWN",
    "TRAINING",
    "TRIGGERS",
    "UNKNOWN_LEFT",
    "UNKNOWN_NAMES",
    "UNKNOWN_NONE",
    "UNKNOWN_USE",
    "USE",
    "VERSIONS",
    "WAITING_COLUMNS",
    "WAITING_TITLE",
    "WAITS",
    "WITHOUT_PLUGIN",
    "counted",
    "listed",
]

IMPROVE = "Improve model with Dante..."
ACTIVITY = "Dante activity..."
IMPROVE_TITLE = "Improve {model_type}"
LEARNS_FROM = "Learns from"
CASES = "{studies} kept here, {slices} with something drawn: {labels}"
CASES_OF = "{used} of {studies} kept here, {slices} with something drawn: {labels}"
READY = "Ready."
LOOKING = "Looking what there is to learn from..."
STUDIES_LEFT = ("{count} study is left out", "{count} studies are left out")
CONTRASTS = ("{count} contrast", "{count} contrasts")
LEFT_MISSING = "{studies}: nothing on it is called {labels}{foreign}."
LEFT_UNKNOWN = ", and the model does not know {names}"
PERHAPS = " (perhaps {label})"
LEFT_CONTRASTS = "{studies}: {contrasts}, the model takes another number."
MORE_STUDIES = (
    "{count} more study is needed: draw {labels}, and save its masks.",
    "{count} more studies are needed: draw {labels} on each, and save their masks.",
)
MORE_SLICES = (
    " Or draw on {count} more slice of the study that is there.",
    " Or draw on {count} more slices of the study that is there.",
)
OTHER_KIND = "This kind of model cannot be improved with Dante; it learns in Dafne's own way."
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
GLOBAL_USED = "{model_type}: the global model is used ({status})."
IMPROVED_USED = "{model_type}: improved here, Dice {before:.2f} -> {after:.2f}, is used{status}."
NEWER_USED = (
    "{model_type}: a newer global model (version {version}) is there and is used; what was improved here is still to "
    "be compared with it"
)
GLOBAL_INSTEAD = "{model_type}: the global model is used: {why}"
IMPROVED_LOADED = "{model_type}: the model that was improved here is used"
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
SETTINGS_KEY_NEEDED = "the key for this server"
SETTINGS_FAULTS = "The settings cannot be used as they are:"
SETTINGS_MENDED = "The settings can be used: start Dafne again."
SETTINGS_REPLACED = MappingProxyType(
    {"site": "set by the hospital's settings", "environment": "set by the environment"}
)
SETTINGS_SAVE = "Improve after a save"
SETTINGS_SLICES = "Only after so many new slices"
SETTINGS_NIGHTS = "Improve at night"
SETTINGS_JOB = "Longest automatic job (0: any)"
SETTINGS_RUN = "Longest night's run"
SETTINGS_CASES = "Studies kept here, at most"
SETTINGS_DAYS = "Kept for, at most"
SETTINGS_DISK = "Disk for them, at most"
UNKNOWN_NAMES = "Names that the model does not know"
UNKNOWN_LEFT = "leave out"
UNKNOWN_NONE = "{name}: no structure of the model is called alike"
UNKNOWN_USE = "Use these names"
SETTINGS_AFTER = "After a save, begin after"
SETTINGS_METHOD = "Automatic jobs use"
SETTINGS_SEND = "Automatic jobs send their update"
SETTINGS_FULL = "Full models may leave where no deltas are taken"
SETTINGS_CLIP = "Longest update (0: any)"
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
LEAVING_TITLE = "Dante is still improving"
LEAVING = "Dafne is being closed while this is improved: {models}."
LEAVING_GO_ON = "Go on in the background ({seconds})"
LEAVING_STOP = "Stop, keep the best so far, if any"
NOT_KEPT = "the annotations were not kept: {why}"
NOT_ATTACHED = "the plugin's button and windows are not there: {why}"
NOT_MEASURED = "{model_type}: how long an improvement takes is not known: {why}"
NOT_SENT = "what waits in the outbox goes on waiting: {why}"
NOT_WRAPPED = "the global models are used as they are: {why}"
NOT_OURS_TO_LEARN = "Dafne learns in its own way: {why}"
NOT_STOPPED = "the job goes on: {why}"
NOT_SHOWN = "something could not be shown: {why}"
OTHER_KIND_LOG = "{model_type}: this kind of model learns in Dafne's own way"
LOG = "dafne-dante: {told}"
GROUP_LIMITS = "Limits"
VERSIONS = "Model in use"
GLOBAL_MODEL = "global model"
IMPROVED_MODEL = "improved {number}: Dice {before:.2f} -> {after:.2f}, {when}"
USE = "Use"
CHOSE_IMPROVED = "somebody went to the improved model {number}"
CHOSE_GLOBAL = "somebody went back to the global model"
A_MODEL = "model"
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
WAITING_TITLE = "Waits to be sent"
WAITING_COLUMNS = ("Model", "Since", "Size", "Why it waits")
SENT_TITLE = "Has left this machine (times are local, SHA-256 is of the bytes that left)"
SENT_COLUMNS = ("When", "To", "Model", "Size", "What came of it", "SHA-256")
NOTHING_WAITS = "Nothing waits to be sent."
SENDING_NOW = "it is being sent"
OUTCOMES = MappingProxyType(
    {
        "": "not known yet",
        "arrived": "arrived",
        "not-arrived": "did not arrive",
        "unknown": "the answer was lost",
        "refused": "refused",
    }
)
PAGE_JOBS = "Jobs and models"
PAGE_SENDING = "Sending"
NOTICE = "{model_type}: {state}. {told}"
STATUS_IMPROVED = "{model_type}: improved {when}, Dice {before:.2f} -> {after:.2f}{sent}"
STATUS_SENT = ", {size} sent"
STATUS_NOTHING = "Dante: nothing was improved yet"
STATUS_PAUSED = "Dante is paused. "
OWN_FAULT = "a fault of the plugin's own, {kind}; please report it"
COMPARING = "Comparing..."


def counted(forms: tuple[str, str], count: int, **more: str) -> str:
    """A number with its word, in the form for one or for several, and what else stands in the form."""
    return forms[count != 1].format(count=count, **more)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names with commas between them; beyond `most` only how they begin."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
