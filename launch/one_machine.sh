#!/usr/bin/env bash
# All devices of one machine in one process.
#   launch/one_machine.sh configs/pretrain_1_5b.py runs/1.5b --config.data.directory=data/mix
set -euo pipefail
config=$1 workdir=$2
shift 2
exec ualm train --config "$config" --workdir "$workdir" "$@"
