#!/usr/bin/env bash
# Makes .venv and installs this checkout into it, editable, with all extras. Does nothing when that is done.
# PYTHON=… chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "$*" >&2; }

# The first python that runs and is new enough.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        [ "$candidate" != "${PYTHON:-}" ] || say "PYTHON=$PYTHON is not Python 3.11 or newer; looking for another."
    done
    say "Python 3.11 or newer is needed and was not found. On Debian 12:"
    say "    apt-get install python3 python3-venv"
    exit 1
}

# Debian keeps the part of Python that makes environments in a package of its own.
install_venv_module() {
    local python=$1 package
    case $(command -v "$python") in
        /usr/bin/python3) package=python3-venv ;;
        *) package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])') ;;
    esac
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "This Python cannot make an environment yet. Run this once, as root, and try again:"
        say "    apt-get install $package"
        exit 1
    fi
    say "Installing the Debian package $package, which Python needs to make an environment."
    export DEBIAN_FRONTEND=noninteractive
    local install=(apt-get install -y -qq --no-install-recommends "$package")
    "${install[@]}" >/dev/null 2>&1 </dev/null && return
    apt-get update -qq >&2 && "${install[@]}" >&2 </dev/null || {
        say "That did not work. Install $package and try again."
        exit 1
    }
}

# What the environment was made from, and where: a moved checkout or a new Python needs a new one.
fingerprint() {
    pwd
    cat pyproject.toml constraints.txt share/setup/venv.sh | cksum
}

stamp=.venv/made-from
healthy() { .venv/bin/python -c 'import pip' 2>/dev/null; }
if [ -f "$stamp" ] && [ "$(fingerprint)" = "$(cat "$stamp")" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if ! healthy || { [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$(pwd)" ]; }; then
    python=$(find_python)
    "$python" -c 'import venv; from ensurepip import version' 2>/dev/null || install_venv_module "$python"
    say "Making .venv with $("$python" -V) …"
    "$python" -m venv --clear .venv
fi
say "Installing the project and what it needs into .venv (a minute or so, once) …"
rm -f "$stamp"
.venv/bin/python -m pip install -qq --disable-pip-version-check --no-input \
    -c constraints.txt -e '.[all,test]'
fingerprint >"$stamp"
