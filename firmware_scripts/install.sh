#!/usr/bin/env bash
# Install Bedside on a fresh Debian machine (12 or newer) from a release folder made by
# `bedside-flash release`. Run it again for a newer release; what is there already is left alone.
# docs/installation.md says what it does, step by step.
set -euo pipefail
umask 022

usage() {
  cat <<'TEXT'
usage: install.sh [options]
  --dry-run               say every step, change nothing
  --root DIR              install below DIR instead of /; no user, no unit is touched
  --hub                   install the hub's unit instead of the box's
  --wheelhouse DIR        take the libraries from files in DIR, not from the network
  --libraries DIR         use the libraries in this site-packages folder as they are
  --recovery-recipient R  age1...: seal the keys of a new box to the TPM, with R as way back
  --no-start              install only
  --uninstall             remove program and units; settings and state stay
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root='' dry='' hub='' wheelhouse='' libraries='' recipient='' start=yes uninstall=''
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry=yes ;;
    --root) root=${2:?--root needs a folder}; shift ;;
    --hub) hub=yes ;;
    --wheelhouse) wheelhouse=${2:?--wheelhouse needs a folder}; shift ;;
    --libraries) libraries=${2:?--libraries needs a folder}; shift ;;
    --recovery-recipient) recipient=${2:?--recovery-recipient needs age1...}; shift ;;
    --no-start) start='' ;;
    --uninstall) uninstall=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "install.sh: no such option: $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
unit=bedside; [ -z "$hub" ] || unit=bedside-hub
[ -z "$root" ] || root=$(mkdir -p "$root" && cd "$root" && pwd)
opt=$root/opt/bedside etc=$root/etc/bedside

say() { printf '==> %s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
run() { # the only way anything is changed
  if [ -n "$dry" ]; then printf '    would run:'; printf ' %q' "$@"; printf '\n'; else "$@"; fi
}
put() { # put FILE FOLDER: copied only when it differs
  if cmp -s "$1" "$2/$(basename "$1")"; then return; fi
  run install -D -m 0644 -t "$2" "$1"
}
live() { [ -z "$root" ]; } # the machine itself, not a folder

needs_root() {
  if live && [ -z "$dry" ] && [ "$(id -u)" != 0 ]; then fail 'needs root (or --dry-run, or --root DIR)'; fi
}

remove() {
  needs_root
  say "removing $unit"
  if live; then run systemctl disable --now "$unit.service" || true; fi
  run rm -f "$root/etc/systemd/system/$unit.service"
  if [ -z "$hub" ]; then
    run rm -f "$root/etc/systemd/journald.conf.d/bedside.conf"
  fi
  if [ ! -e "$root/etc/systemd/system/bedside.service" ] \
    && [ ! -e "$root/etc/systemd/system/bedside-hub.service" ] || [ -n "$dry" ]; then
    run rm -f "$root/etc/sysusers.d/bedside.conf" "$root/etc/tmpfiles.d/bedside.conf"
    run rm -rf "$opt"
  fi
  if live; then run systemctl daemon-reload; fi
  say "settings in $etc and the state in $root/var/lib/$unit stay: they hold patients and keys"
}

check_release() {
  say 'checking the release'
  [ -f "$here/SHA256SUMS" ] || fail "no SHA256SUMS beside install.sh: not a release folder"
  (cd "$here" && sha256sum --quiet --strict -c SHA256SUMS) || fail 'the release is damaged'
  wheels=("$here"/bedside-*.whl)
  [ "${#wheels[@]}" = 1 ] && [ -f "${wheels[0]}" ] || fail 'the release holds not one wheel'
  wheel=${wheels[0]}
  version=$(basename "$wheel" | cut -d- -f2)
  digest=$(sha256sum "$wheel" | cut -c1-64)
  release=$opt/releases/$version-${digest:0:12}
}

packages() {
  live || return 0
  local wanted=(python3 python3-venv ca-certificates) missing=() name
  if [ -e /dev/tpmrm0 ]; then wanted+=(tpm2-tools tpm-udev); fi
  for name in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q '^install ok' || missing+=("$name")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    run env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  fi
}

program() {
  if [ -f "$release/.complete" ]; then
    say "$version is installed already"
  else
    say "installing $version into $release"
    local python=${PYTHON:-python3}
    if [ -z "$dry" ]; then
      "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail 'needs Python 3.11'
    fi
    run rm -rf "$release" # what an interrupted run left
    run mkdir -p "$opt/releases"
    run "$python" -m venv "$release"
    local pip=("$release/bin/python" -m pip install --quiet --disable-pip-version-check)
    if [ -n "$libraries" ]; then
      # the check below then compares versions with the lock; what venv brought would hide theirs
      run "$release/bin/python" -m pip uninstall --quiet --yes --disable-pip-version-check setuptools
      run sh -c 'echo "$1" > "$(echo "$2"/lib/python3*/site-packages)"/libraries.pth' sh "$libraries" "$release"
    else
      local from=(); [ -z "$wheelhouse" ] || from=(--no-index --find-links "$wheelhouse")
      run "${pip[@]}" "${from[@]}" --only-binary :all: --require-hashes -r "$here/requirements.txt"
    fi
    run "${pip[@]}" --no-index --no-deps "$wheel"
    run "$release/bin/bedside-flash" sbom app --lock "$here/requirements.txt" -o "$release/bedside.cdx.json"
    run touch "$release/.complete"
    run sync -f "$opt"
  fi
  if [ "$(readlink "$opt/current" 2>/dev/null)" != "releases/$(basename "$release")" ]; then
    say "switching to $version"
    run ln -sfn "releases/$(basename "$release")" "$opt/current.new"
    run mv -T "$opt/current.new" "$opt/current" # a rename: the old or the new, never neither
    run sync -f "$opt"
  fi
}

settings() {
  if [ -n "$hub" ] || [ -e "$etc/bedside.toml" ]; then return; fi
  say "writing $etc/bedside.toml"
  local file; file=$(mktemp)
  {
    echo '# Settings of this box; docs/config.md lists them all. `bedside-edge check-config` reads it.'
    if [ -n "$recipient" ]; then
      printf '\n[keys]\nprotection = "tpm"\nrecovery_recipient = "%s"\n' "$recipient"
      printf '\n[backup]\nrecipient = "%s"\n' "$recipient"
    fi
  } > "$file"
  run install -D -m 0644 "$file" "$etc/bedside.toml"
  rm -f "$file"
}

units() {
  say 'placing the unit, its user, folders and journal limits'
  put "$here/systemd/$unit.service" "$root/etc/systemd/system"
  put "$here/systemd/sysusers.d/bedside.conf" "$root/etc/sysusers.d"
  put "$here/systemd/tmpfiles.d/bedside.conf" "$root/etc/tmpfiles.d"
  put "$here/systemd/journald.conf.d/bedside.conf" "$root/etc/systemd/journald.conf.d"
  live || return 0
  run systemd-sysusers /etc/sysusers.d/bedside.conf
  run systemd-tmpfiles --create /etc/tmpfiles.d/bedside.conf
  run systemctl daemon-reload
}

first_start() {
  local serve="$opt/current/bin/bedside-edge serve --config $etc/bedside.toml --state $root/var/lib/bedside"
  if ! live; then
    run mkdir -p -m 0700 "$root/var/lib/bedside"
    say "start it with: $serve"
    return
  fi
  if [ -z "$start" ]; then say "start it with: systemctl enable --now $unit"; return; fi
  if [ -n "$hub" ]; then
    say 'a hub begins with `bedside-hub init`; then: systemctl enable --now bedside-hub'
    return
  fi
  say 'starting (the self-test of the model takes a few seconds)'
  run systemctl enable --quiet "$unit.service"
  run systemctl restart "$unit.service" # returns when the box says that it serves
  if [ -n "$dry" ]; then return; fi
  local link
  link=$(sed -n 's/.*"setup": "\([^"]*\)".*/\1/p' /run/bedside/ready.json)
  if [ -n "$link" ]; then
    say "the box serves; make its first administrator here, within a day: $link"
  else
    say 'the box serves'
  fi
}

if [ -n "$uninstall" ]; then remove; exit 0; fi
needs_root
check_release
packages
program
settings
units
first_start
