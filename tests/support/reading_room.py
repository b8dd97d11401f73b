"""People of a reading room on a box that has not started yet, and their way in."""

from pathlib import Path

from bedside_core.access import Role
from bedside_edge.config import load_config
from bedside_edge.services.access import CONSOLE
from bedside_edge.state_folder import offline_access
from support.chromium import Page

PASSWORD = "seventeen quiet herons"  # noqa: S105  of accounts in throw-away folders
READER = ("wang", "Wang^Xiaodong=王^晓东")
SECOND = ("keller", "Keller^Miriam")
ADMINISTRATOR = ("admin.mueller", "Mueller^Jana")


def hire(folder: Path, settings: str = "") -> None:
    """Give the box of `RunningBox(folder, settings)` two radiologists and an administrator."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "bedside.toml"
    config.write_text(settings)
    with offline_access(load_config(config)[0], folder / "state") as access:
        for (login, name), role in (
            (READER, Role.RADIOLOGIST),
            (SECOND, Role.RADIOLOGIST),
            (ADMINISTRATOR, Role.ADMINISTRATOR),
        ):
            link = access.add_account(login, name, [role], CONSOLE)
            access.set_password_by_link(link.secret, PASSWORD)


def log_in(page: Page, url: str, login: str = READER[0], next_page: str = "/") -> None:
    """Log in as a person does."""
    page.goto(url + next_page)
    page.type("#login", login)
    page.type("#password", PASSWORD)
    page.press("Enter", leads_away=True)
