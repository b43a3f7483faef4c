# Sourced by scripts/run, test and lint: makes the project's own virtual environment and puts it first on PATH.
# The caller sets `extras` to the extras of pyproject.toml that it needs, e.g. predictor,web.
#
# Nothing is installed when pyproject.toml, constraints.txt and the extras are those of the last time.

called_from=$PWD
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

fail() {
    echo "$0: $*" >&2
    exit 1
}

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11, 3.12 or 3.13 is needed and none of them is on the PATH"
}

installed() { # whether the environment holds at least the extras asked for, from the present files
    for stamp in .venv/installed-*"$extras"*; do
        [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return 0
    done
    return 1
}

wanted=$(cat pyproject.toml constraints.txt scripts/environment.sh | cksum)
if ! installed; then
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        echo "making a virtual environment in .venv"
        "$python" -m venv .venv || {
            rm -rf .venv
            fail "$python cannot make a virtual environment; on Debian: apt-get install python3-venv"
        }
    fi
    echo "installing shangcai[$extras] (once; torch alone takes minutes)"
    rm -f .venv/installed-*
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$extras]" ||
        fail "pip could not install what is needed; its lines above say why"
    echo "$wanted" >".venv/installed-$extras"
fi
PATH="$root/.venv/bin:$PATH"
export PATH
