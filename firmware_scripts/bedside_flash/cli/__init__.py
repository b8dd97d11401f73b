"""`bedside-flash`: what a vendor and a technician in the field type.

Works without a network. Only what `--help` of each command names is written.
"""

from importlib import metadata

import click

from bedside_flash.cli import field as field_cli
from bedside_flash.cli import keys as keys_cli
from bedside_flash.cli import os_image as os_cli
from bedside_flash.cli import profile as profile_cli
from bedside_flash.cli import release as release_cli
from bedside_flash.cli import sbom as sbom_cli
from bedside_flash.cli import sign as sign_cli
from bedside_flash.cli import verify as verify_cli
from bedside_sync.console import run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("bedside"), prog_name="bedside-flash")
def cli() -> None:
    """Write, sign, check and flash what a box runs: profiles, models, policies, software.

    \b
    A profile:   init, lint; keys new, build, sign, verify
    In the field: install, status, rollback
    """


cli.add_command(field_cli.install)
cli.add_command(field_cli.status)
cli.add_command(field_cli.rollback)
cli.add_command(os_cli.os_image)
cli.add_command(profile_cli.init)
cli.add_command(profile_cli.lint)
cli.add_command(release_cli.release)
cli.add_command(sbom_cli.sbom)
cli.add_command(keys_cli.keys)
cli.add_command(sign_cli.build)
cli.add_command(sign_cli.sign)
cli.add_command(verify_cli.verify)


def main() -> None:
    """Run the command line; every deliberate error ends in its exit code."""
    run(cli, "bedside-flash")
