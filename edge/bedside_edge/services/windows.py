"""What the hardware profile says of settings: the window for the hub (UTC), room for a slot."""

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bedside_core.errors import InvalidProfileError
from bedside_core.hardware.profile import Profile, Window
from bedside_edge.config import Config, Sync

_DAY: Final = 24 * 60
_FIELDS: Final = ("window_start_minute", "window_minutes")


def under_profile(config: Config, profile: Profile, now: int) -> Config:
    """Return the settings as they hold on this hardware.

    The stricter of both says how large a package for a slot may be; the profile's first window is
    when to visit the hub where the settings keep their default one.

    Args:
        config: the settings; a window of their own goes before the profile's.
        profile: in force.
        now: milliseconds since 1970; the zone's offset of this moment holds until the next start.

    Raises:
        InvalidProfileError: the time zone is none this machine knows.
    """
    room = min(config.update.slot_mib, profile.storage.slot_mib)
    config = config.model_copy(
        update={"update": config.update.model_copy(update={"slot_mib": room})}
    )
    own = any(getattr(config.sync, name) != getattr(Sync(), name) for name in _FIELDS)
    if own or not profile.windows:
        return config
    start, minutes = in_utc(profile.windows[0], now)
    changed = config.sync.model_copy(update=dict(zip(_FIELDS, (start, minutes), strict=True)))
    return config.model_copy(update={"sync": changed})


def in_utc(window: Window, now: int) -> tuple[int, int]:
    """Return (minute of the day in UTC, length in minutes); start and end alike last a day."""
    try:
        zone = ZoneInfo(window.tz)
    except (ZoneInfoNotFoundError, ValueError) as cause:
        raise InvalidProfileError(f"this machine knows no time zone {window.tz}") from cause
    offset = datetime.fromtimestamp(now / 1000, UTC).astimezone(zone).utcoffset()
    shift = int(offset.total_seconds()) // 60 if offset is not None else 0
    start, end = _minute(window.start), _minute(window.end)
    return (start - shift) % _DAY, (end - start) % _DAY or _DAY


def _minute(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)
