# Sourced by scripts/run, test and lint: makes the project's own virtual environment and puts it first on PATH.
# The caller sets `extras` to the extras of pyproject.toml that it needs, e.g. predictor,web.
#
# Nothing is installed when pyproject.toml, constraints.txt and the extras are those of the last time.
# SHANGCAI_TORCH chooses torch's build on Linux: cpu, cuda, or auto (the default), which keeps the one that is there and
# else takes cpu where there is no NVIDIA driver. SHANGCAI_TORCH_INDEX is another index of CPU builds, such as a mirror.

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
    [ "$torch" = auto ] || [ "$torch" = "$(cat .venv/torch 2>/dev/null)" ] || return 1
    for stamp in .venv/installed-*"$extras"*; do
        [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return 0
    done
    return 1
}

owner_of() {
    set -- $(ls -ld "$1" 2>/dev/null)
    echo "${3-}"
}

make_environment() {
    mkdir -p .venv 2>/dev/null && [ -w .venv ] || {
        owner=$(owner_of .venv)
        [ -z "$owner" ] ||
            fail "$root/.venv is $owner's and cannot be written to; let $owner run this, or take a checkout of your own"
        fail "$root cannot be written to, and .venv is made in it; take a checkout where you may write"
    }
    [ ! -x .venv/bin/python ] || return 0
    python=$(find_python)
    echo "making a virtual environment in .venv"
    "$python" -m venv .venv || {
        rm -rf .venv
        "$python" -c 'import ensurepip' 2>/dev/null ||
            fail "$python cannot make a virtual environment; on Debian: apt-get install python3-venv"
        fail "$python cannot make a virtual environment; its lines above say why"
    }
}

pip_install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@"
}

torch=${SHANGCAI_TORCH:-auto}
case $torch in
auto | cpu | cuda) ;;
*) fail "torch is chosen by auto, cpu or cuda, and not by $torch" ;;
esac
wanted=$(cat pyproject.toml constraints.txt scripts/environment.sh | cksum)
if ! installed; then
    make_environment
    echo "installing shangcai[$extras] (once; torch alone takes minutes)"
    rm -f .venv/installed-* .venv/torch
    arguments=$(.venv/bin/python -m scripts.torch_index "$torch")
    # Without what torch needs, which the index of its CPU builds has in other versions.
    [ -z "$arguments" ] || pip_install --no-deps $arguments torch ||
        echo "torch could not be installed in that way: it comes from pip's own index" >&2
    pip_install --editable ".[$extras]" || fail "pip could not install what is needed; its lines above say why"
    echo "$wanted" >".venv/installed-$extras"
    [ "$torch" = auto ] || echo "$torch" >.venv/torch
fi
[ -x .venv/bin/python ] ||
    fail "$root/.venv has no python that can be run here; remove .venv, or take a checkout of your own"
PATH="$root/.venv/bin:$PATH"
export PATH
