#!/bin/bash
# A pretraining run on all GPUs of this machine (or RANKS processes) that goes on after crashes until it is finished:
#
#     runs/single_node.sh mum_vitl16_224 --data data --out run
#
# All arguments are those of `python -m pretrain`. torchrun starts crashed ranks anew; where that is not enough, this
# script gives the same command again, as long as the run gets further. What it does is decided by the run's
# status.json, not by torchrun's exit code, which says nothing. SIGTERM, SIGUSR1 and Ctrl-C let the run save and end;
# the same command goes on with it, on any number of ranks that divides its lanes. Exit code 0: finished; 3: stopped by
# a signal; 1: neither.

set -uo pipefail

out=""
previous=""
for argument in "$@"; do
    case "$previous" in --out) out="$argument" ;; esac
    case "$argument" in --out=*) out="${argument#--out=}" ;; esac
    previous="$argument"
done
if [ -z "$out" ]; then
    echo "usage: $0 RECIPE --data DIR... --out RUN [options of python -m pretrain]" >&2
    exit 2
fi

python="${PYTHON:-python}"
ranks="${RANKS:-gpu}"             # processes; gpu: as many as there are GPUs
restarts="${MAX_RESTARTS:-3}"     # of crashed ranks, before the whole command is given again
attempts="${MAX_ATTEMPTS:-5}"     # of the whole command in a row that bring no step

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${GRACE_SECONDS:-240}"
signals="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"

# A value of status.json. It is absent until the run has begun.
status() {
    "$python" -c 'import json, sys; print(json.load(open(sys.argv[1])).get(sys.argv[2], ""))' \
        "$out/status.json" "$1" 2>/dev/null
}
written() { stat -c %y "$out/status.json" 2>/dev/null; }

torchrun=""
for name in TERM USR1 INT; do
    # shellcheck disable=SC2064
    trap "[ -n \"\$torchrun\" ] && kill -$name \"\$torchrun\" 2>/dev/null" "$name"
done

idle=0
while true; do
    before=$(status step)
    file=$(written)
    # In a session of its own, so that Ctrl-C comes once, by the trap.
    setsid "$python" -m torch.distributed.run --standalone --nproc-per-node "$ranks" \
        --max-restarts "$restarts" --signals-to-handle "$signals" -m pretrain "$@" &
    torchrun=$!
    code=0
    while kill -0 "$torchrun" 2>/dev/null; do
        wait "$torchrun"
        code=$?
    done
    torchrun=""

    if [ "$(written)" = "$file" ]; then
        echo "the run did not begin (code $code)" >&2
        exit 1
    fi
    state=$(status state)
    case "$state,$(status again)" in
        finished,*)
            exit 0 ;;
        stopped,*)
            echo "stopped by $(status reason): the same command goes on" >&2
            exit 3 ;;
        failed,False)
            echo "failed, and would fail again: $(status reason)" >&2
            exit 1 ;;
    esac
    if [ "$(status step)" = "$before" ]; then
        idle=$((idle + 1))
    else
        idle=0
    fi
    if [ "$idle" -ge "$attempts" ]; then
        echo "crashed $attempts times in a row at step $(status step): $(status reason)" >&2
        exit 1
    fi
    echo "$(date -Is) crashed at step $(status step) (code $code): given again" >&2
    sleep "${PAUSE_SECONDS:-10}"
done
