#!/usr/bin/env bash
# One sweep on several nodes of a Slurm cluster. From the checkout, on a file system that all nodes share:
#
#     sbatch docker/slurm.sh --preset paper --seeds 3
#
# Options of sbatch stand before the script's name, those of sweeps.ablation after it. A job that was killed or ran out of
# time goes on from its last checkpoints when it is submitted again.
#
#SBATCH --job-name=whetstone
#SBATCH --output=whetstone-%j.log
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
# Exclusive, because Ray's ports are fixed and its stop ends every Ray process of the user on the node.
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH"

# Without the token anyone on the network could run code as this user. It lives in the environment of this job alone.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # seconds; a shared file system is slow to give out PyTorch

# This script runs on the first node, so that one becomes the head. Every node runs the line below: the head starts the
# cluster, waits for the others, and runs the sweep.
read -r ip _ <<< "$(hostname -I)"
exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$ip:6379" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_PER_TASK" -- \
    python -m sweeps.ablation --address "$ip:6379" "$@"
