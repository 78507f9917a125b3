#!/usr/bin/env bash
# Reproduce a table or figure of the paper: train what is missing, evaluate, and write the table or picture.
#
#   bash recipes/paper.sh table1 ... table5 | figure1 figure3 ... figure9 | all  [options]
#
# It says first what it will run and for how long. Start it again to resume: what is finished is skipped. `--help` lists
# the options; docs/reproduce.md goes through Table 1. Figure 2 is a drawing of the method.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ " $* " == *" --smoke "* ]]; then
    source "$here/lib/environment.sh"
    ensure_environment cpu
    export DS_ACCELERATOR=cpu
fi
exec python3 "$here/lib/paper.py" "$@"
