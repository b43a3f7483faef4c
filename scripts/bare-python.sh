# Sourced by the scripts that need no environment, only a Python: `exec_module MODULE ARG…` runs one of scripts/.

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$0: Python 3.11 or later is needed as python3" >&2
    exit 1
}

exec_module() {
    root=$(cd "${0%/*}/.." && pwd)
    PYTHONPATH=$root exec python3 -P -m "$@" # -P: nothing is imported from the folder that it is called in
}
