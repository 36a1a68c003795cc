#!/usr/bin/env bash
# A study on several nodes of a Slurm cluster; from the clone's folder, on a file system that all nodes share:
#
#   sbatch search/cluster/slurm.sh search/studies/cifar10.yaml --set resources.cpu=2
#
# What follows the study file goes to `python -m search run`. When the time is up, submit the same again: it goes on.
#SBATCH --job-name=pruning-front
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log
# One kind of machine: a step is the same to the last bit only on the same processor.
##SBATCH --constraint=genoa
# GPUs: this, and for example --set resources.gpu=0.25 for four trials on each.
##SBATCH --gpus-per-task=1
set -euo pipefail
: "${1:?give a study file}"
cd "$SLURM_SUBMIT_DIR"
if [ -f .venv/bin/activate ]; then source .venv/bin/activate; fi

# Only processes that know this job's token can use its Ray. It goes through the environment, which other users can't read.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
on_head=(srun --nodes=1 --ntasks=1 --overlap --nodelist="${hosts[0]}" --cpus-per-task="$SLURM_CPUS_PER_TASK")
read -r ip _ < <("${on_head[@]}" hostname --ip-address)
address=$ip:$((20000 + SLURM_JOB_ID % 10000))  # two jobs that share a node don't meet

# Each node's share of this job, not all of its machine.
share=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_PER_TASK:-0}" --disable-usage-stats --block)
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
"${on_head[@]}" ray start --head --node-ip-address="$ip" --port="${address#*:}" --temp-dir="/tmp/ray-$SLURM_JOB_ID" \
    --include-dashboard=false "${share[@]}" &
for attempt in {1..60}; do
    if ray status --address "$address" >/dev/null 2>&1; then break; fi
    if [ "$attempt" = 60 ]; then echo "Ray's head doesn't start on ${hosts[0]}" >&2; exit 1; fi
    sleep 2
done
others=$((${#hosts[@]} - 1))
if [ "$others" -gt 0 ]; then
    srun --nodes="$others" --ntasks="$others" --exclude="${hosts[0]}" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        ray start --address="$address" "${share[@]}" &
fi

# The nodes needn't be waited for: one that comes later gets work.
python -m search run "$@" --address "$address"
