#!/usr/bin/env bash
# The same command on every worker of a TPU pod slice; the package is installed on all of them, and the work folder and
# the dataset lie where all of them see them.
#   launch/tpu_pod.sh my-pod us-east5-a configs/pretrain_1_5b.py /shared/runs/1.5b --config.data.directory=/shared/data/mix
set -euo pipefail
pod=$1 zone=$2 config=$3 workdir=$4
shift 4
command=$(printf '%q ' ualm train --distributed --config "$config" --workdir "$workdir" "$@")
exec gcloud compute tpus tpu-vm ssh "$pod" --zone "$zone" --worker=all --command "$command"
