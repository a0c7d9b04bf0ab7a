#!/usr/bin/env bash
# One process per node with all its GPUs. Ten minutes before the time limit SLURM sends SIGTERM; the run saves and ends
# with status 75. Submit the same line again to go on.
#   sbatch --nodes 4 launch/slurm.sh configs/pretrain_1_5b.py /shared/runs/1.5b --config.data.directory=/shared/data/mix
#SBATCH --job-name=ualm
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --signal=TERM@600
set -euo pipefail
config=$1 workdir=$2
shift 2
srun --cpu-bind=none --kill-on-bad-exit=1 ualm train --distributed --config "$config" --workdir "$workdir" "$@"
