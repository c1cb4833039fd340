"""Moments as the windows show them: local time, the hour alone where it is today's."""

from datetime import datetime, timezone

__all__ = ["local_moment", "moment_of_utc"]


def local_moment(seconds: float) -> str:
    """Seconds since 1970 in local time: the hour today, else with the day."""
    moment, now = datetime.fromtimestamp(seconds).astimezone(), datetime.now().astimezone()
    return moment.strftime("%H:%M" if moment.date() == now.date() else "%Y-%m-%d %H:%M")


def moment_of_utc(text: str) -> str:
    """The same of a text such as 2026-11-23T01:05:07Z; any other text as it is."""
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return text
    return local_moment(moment.timestamp())
