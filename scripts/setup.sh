#!/bin/sh
# Makes .venv: `setup.sh run` installs what running Runwell needs, `setup.sh dev` also the tools that
# check it. It ends at once when that was done for this pyproject.toml in this folder.
set -eu
cd "$(dirname "$0")/.."

level="${1:-dev}"
stamp=.venv/.runwell-setup
state="$(cksum <pyproject.toml) $PWD"

is_done() {
    [ -x .venv/bin/python ] && [ -f "$stamp" ] || return 1
    .venv/bin/python -c 'import sys' 2>/dev/null || return 1
    [ "$(cat "$stamp")" = "dev $state" ] || [ "$(cat "$stamp")" = "$level $state" ]
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for python in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$python"; then
            echo "$python"
            return
        fi
    done
    return 1
}

say_what_to_install() {
    {
        echo "Runwell needs Python 3.11 or newer, and there is none here${1:+ ($1)}."
        if [ "$(uname)" = Darwin ]; then
            echo "  Install it: brew install python     or from https://www.python.org/downloads/"
        elif command -v apt-get >/dev/null; then
            echo "  Install it: sudo apt-get install python3 python3-venv"
        elif command -v dnf >/dev/null; then
            echo "  Install it: sudo dnf install python3.12"
        else
            echo "  Install it with your system's package manager, or from https://www.python.org/downloads/"
        fi
        echo "  If it is somewhere else, name it: make setup PYTHON=/path/to/python3.12"
    } >&2
    exit 1
}

make_venv_with_python() {
    python="$(find_python)" ||
        say_what_to_install "$(python3 --version 2>/dev/null || echo 'no python3 on the PATH')"
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        echo "This Python can't make virtual environments: its ensurepip is a package of its own." >&2
        echo "  Install it: sudo apt-get install python$version-venv" >&2
        exit 1
    fi
    "$python" -m venv --clear .venv
}

# One that works is kept, so that a change of pyproject.toml installs only what is new.
venv_works() {
    [ -x .venv/bin/python ] && is_new_enough .venv/bin/python || return 1
    # The scripts of an environment that was moved start the old one.
    [ "$(.venv/bin/python -c 'import sys; print(sys.prefix)')" = "$PWD/.venv" ] &&
        grep -qsF "$PWD/.venv" .venv/bin/activate
}

if is_done; then
    exit 0
fi
echo "Setting up .venv ($level) ..." >&2

groups="--group dev"
[ "$level" = dev ] || groups=""
if command -v uv >/dev/null 2>&1 && uv pip install --help 2>/dev/null | grep -q -e --group; then
    venv_works || uv venv --quiet --clear --python "${PYTHON:->=3.11}" .venv
    # shellcheck disable=SC2086
    uv pip install --quiet --python .venv/bin/python --editable '.[cli,server]' $groups
else
    venv_works && .venv/bin/python -m pip --version >/dev/null 2>&1 || make_venv_with_python
    pip=".venv/bin/python -m pip -qq --disable-pip-version-check"
    # Dependency groups need a pip of 2025.
    $pip install --upgrade 'pip>=25.1'
    # shellcheck disable=SC2086
    $pip install --editable '.[cli,server]' $groups
fi
echo "$level $state" >"$stamp"
