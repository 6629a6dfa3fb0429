#!/bin/sh
# Make or mend .venv: `sh scripts/venv.sh runtime`, `… dev`, `… browser`, `… clients` or `… load`. Quick
# and silent when all is well.
#
# PYTHON may name the interpreter; otherwise the first that really runs and is new enough is taken.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
python=$venv/bin/python
unfinished=$venv/.unfinished # there from before the first write until all is installed
is_supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
show_version='import sys; print("%d.%d" % sys.version_info[:2])'

# What a caller's own Python is set up with must not reach into ours.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# A version manager's shim may be there and still fail, and Debian splits venv off: run it to know.
can_make_venvs() {
    "$1" -I -c "import venv, ensurepip; $is_supported" >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        can_make_venvs "$PYTHON" && echo "$PYTHON" && return
        fail "PYTHON=$PYTHON is no Python 3.11, 3.12 or 3.13 with venv and ensurepip."
    fi
    for candidate in python3 python3.13 python3.12 python3.11; do
        can_make_venvs "$candidate" && echo "$candidate" && return
    done
    fail "No Python 3.11, 3.12 or 3.13 with venv and ensurepip was found." \
        "On Debian and Ubuntu: apt install python3-venv. Another one: make run PYTHON=/path/to/python3"
}

is_sound() {
    [ ! -e "$unfinished" ] && "$python" -I -c "import pip; $is_supported" >/dev/null 2>&1 || return 1
    [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" -I -c "$show_version")" = "$("$python" -I -c "$show_version")" ]
}

ensure_venv() {
    is_sound && return
    base=$(find_python)
    echo "Making $venv with $("$base" --version) …"
    rm -rf "$venv"
    mkdir "$venv"
    : >"$unfinished"
    "$base" -m venv "$venv"
    rm "$unfinished"
}

# install NAME FILE…: what the files pin, once; a stamp remembers what was pinned then.
install() {
    stamp=$venv/.$1
    what=$1
    shift
    pinned=$(cat "$@" | cksum)
    [ "$(cat "$stamp" 2>/dev/null || :)" = "$pinned" ] && return
    echo "Installing the $what packages; this takes a minute …"
    rm -f "$stamp"
    : >"$unfinished"
    for file in "$@"; do
        set -- "$@" -r "$file"
        shift
    done
    # The files name everything. Left to resolve by itself, pip takes a new release of a package that
    # another one asks for with an extra, and then misses its hash.
    "$python" -m pip install -qq --disable-pip-version-check --no-input --no-deps --require-hashes "$@" ||
        fail "pip could not install the $what packages; see above."
    # Starting is three times as quick with bytecode; it is no condition for starting.
    "$python" -m compileall -q accounts consciousness monitoring sovereigncore scripts || :
    rm "$unfinished"
    echo "$pinned" >"$stamp"
}

# Two makes at once take turns, where the system can lock.
exec 9<requirements.txt
! command -v flock >/dev/null 2>&1 || flock 9

case ${1:-} in
runtime | dev | browser | clients | load) ;;
*) fail "usage: sh scripts/venv.sh runtime|dev|browser|clients|load" ;;
esac
ensure_venv
install runtime requirements.txt requirements-engine.txt
[ "$1" = runtime ] || install dev requirements-dev.txt
[ "$1" != browser ] || install browser requirements-browser.txt
[ "$1" != clients ] || install clients requirements-clients.txt
[ "$1" != load ] || install load requirements-load.txt
