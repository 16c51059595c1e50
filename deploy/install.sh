#!/bin/sh
# Install InfluencerAI with the pinned versions: sh deploy/install.sh FOLDER [EXTRAS [OPTION OF PIP]]
#
# FOLDER becomes a virtual environment. The images and `make setup` both run this. Where packages come from is pip's
# own affair: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL. PYTHON names the interpreter. INSTALLER=uv installs with uv, in a
# quarter of the time, from where pip's settings say; where uv does not succeed, pip installs.
set -eu
folder=${1:?name the folder of the virtual environment}
extras=${2:-all}
option=${3:-}
python=${PYTHON:-python3}
source=$(cd "$(dirname "$0")/.." && pwd)

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "InfluencerAI needs Python 3.11 or newer, and '$python' is missing or older." >&2
    echo "Name another one: PYTHON=python3.12 sh deploy/install.sh $folder" >&2
    exit 1
}
"$python" -m venv "$folder"

# The value of one of pip's settings; a variable comes before a line of pip's configuration files.
setting() {
    "$folder/bin/python" -m pip config list | sed -n "s/^[^ =]*\.$1='\(.*\)'\$/\1/p" | head -n 1
}

install_with_uv() {
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$source/constraints.txt" uv
    UV_DEFAULT_INDEX=$(setting index-url) UV_INDEX=$(setting extra-index-url) UV_FIND_LINKS=$(setting find-links | tr ' ' ,)
    SSL_CERT_FILE=$(setting cert)
    export UV_DEFAULT_INDEX UV_INDEX UV_FIND_LINKS SSL_CERT_FILE
    for name in UV_DEFAULT_INDEX UV_INDEX UV_FIND_LINKS SSL_CERT_FILE; do
        eval "[ -n \"\$$name\" ]" || unset "$name"
    done
    "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --index-strategy unsafe-best-match \
        --constraint "$source/constraints.txt" $option "$source[$extras]"
}

if [ "${INSTALLER:-pip}" = uv ] && (install_with_uv); then
    exit 0
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$source/constraints.txt" \
    $option "$source[$extras]"
