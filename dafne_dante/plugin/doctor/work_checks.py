"""What this site has under way: the scheduler, jobs, the outbox, the models in use, and the signing key."""

import os

from dafne_dante.config import SETTINGS_FILE, Settings
from dafne_dante.delta.signing import SIGNING_KEY_FILE, load_signing_key
from dafne_dante.errors import DanteError, SettingsError
from dafne_dante.federation.outbox import open_outbox, outbox_exists
from dafne_dante.plugin.doctor.finding import Finding, fault, good, warning
from dafne_dante.plugin.jobs import jobs_exist, open_jobs
from dafne_dante.plugin.local.shelf import local_types
from dafne_dante.plugin.local.using import local_model
from dafne_dante.plugin.schedule.setting_up import Shell, SystemShell, is_installed, plan_for_system

__all__ = ["check_jobs", "check_local_models", "check_outbox", "check_scheduler", "check_settings", "check_signing_key"]


def check_settings(settings: Settings) -> Finding:
    """Whether others at this machine can read the API key."""
    path = settings.folder / SETTINGS_FILE
    try:
        mode = path.stat().st_mode if path.exists() else 0
    except OSError as error:
        return fault("settings", f"cannot be looked at: {error.strerror}", "look whether the folder is there")
    if settings.api_key and mode & 0o077 and os.name != "nt":
        return fault("settings", f"others at this machine can read {SETTINGS_FILE}", f"chmod 600 {SETTINGS_FILE}")
    there = f"{SETTINGS_FILE} read without a fault" if mode else "none; the defaults hold"
    return good("settings", there) if mode else warning("settings", there, "dafne-dante init writes a file to edit")


def check_scheduler(settings: Settings, shell: Shell | None = None) -> Finding:
    """Whether the nightly run is set up."""
    try:
        plan = plan_for_system(settings)
        there = is_installed(plan, shell or SystemShell())
    except SettingsError as error:
        return warning("scheduler", str(error), "without it, models improve only when somebody asks for it")
    if there:
        return good("scheduler", f"{plan.scheduler} starts the nightly run from {settings.nightly.start} on")
    return warning("scheduler", f"{plan.scheduler} knows of no nightly run", "dafne-dante schedule install")


def check_jobs(settings: Settings) -> Finding:
    """What waits, runs, and failed last."""
    try:
        jobs = open_jobs(settings).jobs() if jobs_exist(settings) else []
    except DanteError as error:
        return fault("jobs", str(error), "free the disk, or restore the folder jobs from a backup")
    states = _counted([job.state for job in jobs])
    newest = {job.model_type: job for job in sorted(jobs, key=lambda job: job.changed_s)}
    failed = sorted(one.model_type for one in newest.values() if one.state == "failed")
    if failed:
        return warning("jobs", f"{states}; the last one failed for {', '.join(failed)}", "dafne-dante jobs list --all")
    return good("jobs", states or "none yet")


def check_outbox(settings: Settings) -> Finding:
    """What waits to be sent, and what was refused for good."""
    try:
        entries = open_outbox(settings).entries() if outbox_exists(settings) else []
    except DanteError as error:
        return fault("outbox", str(error), "free the disk, or restore the folder outbox from a backup")
    states = _counted([entry.state for entry in entries])
    if any(entry.state not in ("sent", "cancelled") for entry in entries):
        return warning("outbox", states, "dafne-dante outbox list; dafne-dante outbox send tries again now")
    return good("outbox", states or "empty")


def check_local_models(settings: Settings) -> Finding:
    """What Dafne uses of each type that was improved here."""
    used = {model_type: local_model(settings, model_type) for model_type in local_types(settings)}
    told = ", ".join(f"{name}: {one.number or 'global'}" for name, one in used.items())
    damaged = [one.words for one in used.values() if "damaged" in one.words or "found other bytes" in one.words]
    if damaged:
        return warning("improved models", damaged[0], "dafne-dante local list; use another version")
    return good("improved models", told or "none yet")


def check_signing_key(settings: Settings) -> Finding:
    """Whether this site can sign what it sends."""
    try:
        load_signing_key(settings.folder)
    except DanteError as error:
        if not (settings.folder / SIGNING_KEY_FILE).exists():
            return good("signing key", "made with the first improvement")
        return fault("signing key", str(error), "restore it from a backup; with a new one the operator must know it")
    return good("signing key", "there, and readable by its owner only")


def _counted(states: list[str]) -> str:
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
