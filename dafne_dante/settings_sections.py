"""What can be set: the settings, by default and by section of the file.

Invariants: frozen; the API key and the proxy are never part of a representation; no two sections share a name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["OWN_SECTIONS", "SECTIONS", "AnnotationSettings", "NightlySettings", "Settings", "WorkerSettings"]


@dataclass(frozen=True)
class AnnotationSettings:
    """How a site's labelled studies are found, read and kept.

    Attributes:
        folders: watched for new studies.
        store: the folder of the sealed case store; None for the platform's own place.
        labels: label of a model to further names that this site has for it; the section `[labels]` of the file, from
            a site's name to the model's label, says the same the other way round.
        ignore: names of structures that are left out without a word.
        empty_slices: what a slice without any mask means: "background", "unknown", or "auto" for what is usual in
            the kind of source (datasets, DICOM segmentations and structure sets are labelled throughout; what Dafne
            writes is not).
        missing_labels: what a label means that a study has no name for: "refuse" the study, or it is "absent" there.
        keep_cases, keep_days, keep_gib: the store drops its oldest cases beyond these.
        keep_prepared_gib: disk, beside that, for kept cases in the form that training needs; 0 for none.
    """

    folders: tuple[Path, ...] = ()
    store: Path | None = None
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    empty_slices: str = "auto"
    missing_labels: str = "refuse"
    keep_cases: int = 1000
    keep_days: float = 3650.0
    keep_gib: float = 50.0
    keep_prepared_gib: float = 20.0


@dataclass(frozen=True)
class NightlySettings:
    """When `dafne-dante nightly` may work.

    Attributes:
        start, stop: local time as HH:MM; a window that ends before it begins goes over midnight, and one of no length
            is the whole day.
        max_minutes: of one run, over all models.
        only_on_power: not on a battery.
        only_when_idle: not while somebody works at the machine.
        every_night: false leaves the nights alone; `nightly --now` works all the same.
    """

    start: str = "20:00"
    stop: str = "06:00"
    max_minutes: float = 240.0
    only_on_power: bool = True
    only_when_idle: bool = True
    every_night: bool = True


@dataclass(frozen=True)
class WorkerSettings:
    """What a job in the background may take.

    Attributes:
        threads: of the processor; 0 for half of the cores.
        memory_gib: 0 for three quarters of the memory.
        after_save_s: without another save before a job for corrections begins.
        after_slices: annotated since the model's last job, before corrections make one.
        job_minutes: that training may take where auto chooses, after a save and by the button; 0 for no limit. A night
            has its own (max_minutes), which its models share.
        automatic_method: of adaptation, of jobs that nobody asked for just now: auto, lora or gradual-unfreezing.
        automatic_send: whether such a job sends its update to the server; false keeps it at the site.
        after_save: whether what is saved in a viewer asks for a job; it is kept in any case.
    """

    threads: int = 0
    memory_gib: float = 0.0
    after_save_s: float = 120.0
    after_slices: int = 2
    job_minutes: float = 0.0
    automatic_method: str = "auto"
    automatic_send: bool = True
    after_save: bool = True


@dataclass(frozen=True)
class Settings:
    """What a site or an operator has set.

    Attributes:
        folder: the configuration folder.
        server: base URL of the federation server, ending with "/"; empty when there is none.
        api_key: the key for that server; empty when there is none; "keyring" in a file for the one that the operating
            system's keyring has under the server's address. Never shown.
        timeout_s: seconds to wait for a connection or for the next bytes of an answer.
        ca_bundle: PEM file of the certificates to trust instead of the usual ones, for a network whose proxy opens TLS;
            None for REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE where set, else the usual ones.
        proxy: http://[user:password@]host:port of the proxy; "" for what the environment and the system say, "none"
            for no proxy. Never shown.
        retries: how often a call is repeated after a failure that may pass.
        retry_s: seconds that a call and its repetitions may take before it is given up.
        chunk_mib: an upload goes in parts of at most this length.
        operator_key: base64 of the public key by which global models must be signed; "" to pin the first one seen.
        seal_key: base64 of the operator's public seal key; with it, updates leave sealed to it, or not at all.
        allow_full_model: whether an update for a type that takes no deltas may leave as a full model.
        clip_norm: the longest (L2) that an update may be that leaves; 0 for as long as it is. See `delta.noise`.
        noise_multiplier: of the clip norm, the standard deviation of noise in an update that leaves; 0 for none.
        cache_models, cache_gib: downloaded global models that are kept; the least recently used go first.
        max_norm_ratio: an update longer than this share of its base's length is refused by the operator.
        dice_margin: how far the Dice of a label may fall on the operator's cases before a merge backs off.
        merge_rule: of the numbers of five sites or more an operator takes the trimmed mean ("trimmed") or the "median".
        run_model_code: SHA-256 (64 hexadecimal digits) of the model files whose own code may be run, in a child process
            without network and files; none unless the site says so.
        annotations: how labelled studies are found, read and kept.
        nightly: when jobs run by themselves.
        worker: what a job may take of the machine.
        key_fault: why the key is not here that should be in the keyring, and what to do, in words; "" when it is, or
            none should be. No setting: it is found when settings are read.
    """

    folder: Path
    server: str = ""
    api_key: str = field(default="", repr=False)
    timeout_s: float = 60.0
    ca_bundle: Path | None = None
    proxy: str = field(default="", repr=False)
    retries: int = 3
    retry_s: float = 600.0
    chunk_mib: int = 50
    operator_key: str = ""
    seal_key: str = ""
    allow_full_model: bool = False
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    cache_models: int = 10
    cache_gib: float = 5.0
    max_norm_ratio: float = 1.0
    dice_margin: float = 0.02
    merge_rule: str = "trimmed"
    run_model_code: tuple[str, ...] = ()
    annotations: AnnotationSettings = field(default_factory=AnnotationSettings)
    nightly: NightlySettings = field(default_factory=NightlySettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    key_fault: str = ""


OWN_SECTIONS: Mapping[str, type[Any]] = {
    "annotations": AnnotationSettings, "nightly": NightlySettings, "worker": WorkerSettings
}  # fmt: skip
"""Sections that are an attribute of their own."""
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "federation": (
        *("server", "api_key", "timeout_s", "ca_bundle", "proxy", "retries", "retry_s"),
        *("chunk_mib", "operator_key", "seal_key", "allow_full_model", "clip_norm", "noise_multiplier"),
        *("cache_models", "cache_gib"),
    ),
    "operator": ("max_norm_ratio", "dice_margin", "merge_rule"),
    "trust": ("run_model_code",),
    **{section: tuple(item.name for item in fields(kind)) for section, kind in OWN_SECTIONS.items()},
}
"""Sections of the file, each with its settings; no two share a name."""
