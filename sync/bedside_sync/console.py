"""What the programs of hub and field share: how a command line ends."""

import sys

import click

from bedside_core.errors import BedsideError


def run(cli: click.Group, name: str) -> None:
    """Run a command line; every deliberate error ends in its exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as usage:
        usage.show()
        sys.exit(usage.exit_code)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except BedsideError as error:
        click.echo(f"{name}: {error} [{error.code}]", err=True)
        sys.exit(error.exit_code)
