"""Whoever started the process and watches over it: systemd, or nobody."""

from typing import Protocol


class ServiceManager(Protocol):
    """Is told how the service is."""

    @property
    def watchdog_s(self) -> float:
        """Within how many seconds `alive` must be said again; 0 when nobody waits for it."""
        ...

    def ready(self, status: str) -> None:
        """Say that the service serves now."""
        ...

    def alive(self) -> None:
        """Say that a self-check has just passed; never said for any other reason."""
        ...

    def stopping(self) -> None:
        """Say that the service ends in order."""
        ...
