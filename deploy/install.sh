#!/bin/sh
# Install InfluencerAI with the pinned versions: sh deploy/install.sh FOLDER [EXTRAS [OPTION OF PIP]]
#
# FOLDER becomes a virtual environment. The images and `make setup` both run this. Where packages come from is pip's
# own affair: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL. PYTHON names the interpreter.
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
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$source/constraints.txt" \
    $option "$source[$extras]"
