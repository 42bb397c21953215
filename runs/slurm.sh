#!/bin/bash
# A pretraining run on any number of nodes that queues itself again until it is finished:
#
#     sbatch --nodes 4 --gpus-per-node 8 --time 12:00:00 runs/slurm.sh mum_vitl16 --data data --out /scratch/run
#
# All arguments are those of `python -m pretrain`. Partition, account and the like go to sbatch. Five minutes before
# its time is over the run is sent SIGUSR1: it saves, says so in status.json and ends; by that file, and not by
# torchrun's exit code, which says nothing, the job is queued again. SIGTERM (scancel, preemption) is saved too,
# but whether the job comes back is then for SLURM to say. Run it from the repository, or where mumkit is installed.
#
#SBATCH --job-name=pretrain
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=USR1@300

set -uo pipefail

out=""
previous=""
for argument in "$@"; do
    case "$previous" in --out) out="$argument" ;; esac
    case "$argument" in --out=*) out="${argument#--out=}" ;; esac
    previous="$argument"
done
if [ -z "$out" ]; then
    echo "usage: sbatch [...] $0 RECIPE --data DIR... --out RUN [options of python -m pretrain]" >&2
    exit 2
fi

python="${PYTHON:-python}"
restarts="${MAX_RESTARTS:-3}"     # of crashed ranks, within one job
requeues="${MAX_REQUEUES:-100}"   # of the job after a crash that torchrun could not mend
grace="${GRACE_SECONDS:-240}"     # that a signalled run has to save, before torchrun ends it

# A value of status.json. It is absent until the run has begun.
status() {
    "$python" -c 'import json, sys; print(json.load(open(sys.argv[1])).get(sys.argv[2], ""))' \
        "$out/status.json" "$1" 2>/dev/null
}
written() { stat -c %y "$out/status.json" 2>/dev/null; }

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))

# Every rank reads its data with --workers processes; threads of their own would only be in the way.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# A fresh store for each start of the ranks: in a shared one the addresses of dead ranks still stand.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="$grace"
# What torchrun hands on to the ranks (its TORCHELASTIC_SIGNALS_TO_HANDLE).
signals="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"

before=$(written)
# --signal reaches the step and not this script; the trap is for schedulers that send it here.
trap 'scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
srun --kill-on-bad-exit=1 "$python" -m torch.distributed.run \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${RANKS_PER_NODE:-gpu}" \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint "$head_node:$port" \
    --max-restarts "$restarts" --signals-to-handle "$signals" \
    -m pretrain "$@" &
step=$!
code=0
while kill -0 "$step" 2>/dev/null; do
    wait "$step"
    code=$?
done

if [ "$(written)" = "$before" ]; then
    echo "the run did not begin (code $code)" >&2
    exit 1
fi
state=$(status state)
echo "$(date -Is) the ranks have ended (code $code); $out/status.json: $state $(status reason)"
case "$state,$(status signal),$(status again)" in
    finished,*)
        exit 0 ;;
    stopped,SIGUSR1,*)
        echo "out of time: queued again"
        scontrol requeue "$SLURM_JOB_ID" ;;
    stopped,*)
        echo "stopped as asked; the same command goes on" >&2
        exit 3 ;;
    failed,*,False)
        echo "failed, and would fail again: not queued again" >&2
        exit 1 ;;
    running,* | failed,*)
        if [ "${SLURM_RESTART_COUNT:-0}" -ge "$requeues" ]; then
            echo "crashed, and was queued again $requeues times already" >&2
            exit 1
        fi
        echo "crashed: queued again"
        scontrol requeue "$SLURM_JOB_ID" ;;
esac
