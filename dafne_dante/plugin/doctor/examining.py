"""Everything that `dafne-dante doctor` looks at, in the order in which it must work."""

from pathlib import Path

from dafne_dante.config import Settings
from dafne_dante.plugin.doctor.finding import Finding
from dafne_dante.plugin.doctor.machine_checks import check_dafne, check_device, check_disk, check_python
from dafne_dante.plugin.doctor.server_checks import check_server
from dafne_dante.plugin.doctor.work_checks import (
    check_jobs,
    check_local_models,
    check_outbox,
    check_scheduler,
    check_settings,
    check_signing_key,
)
from dafne_dante.plugin.schedule.setting_up import Shell

__all__ = ["examine"]


def examine(settings: Settings, *, dafne_python: Path | None = None, shell: Shell | None = None) -> list[Finding]:
    """All findings; nothing is changed and nothing is sent but the key, to its own server."""
    return [
        check_settings(settings),
        check_python(),
        check_device(),
        check_disk(settings),
        check_dafne(dafne_python),
        *check_server(settings),
        check_signing_key(settings),
        check_scheduler(settings, shell),
        check_jobs(settings),
        check_outbox(settings),
        check_local_models(settings),
    ]
