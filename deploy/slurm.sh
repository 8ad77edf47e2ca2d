#!/bin/bash
# A job on the nodes of a Slurm allocation, with a Ray of its own: from the project's folder, environment activated,
#
#     sbatch --nodes=2 --gpus-per-node=1 deploy/slurm.sh train --data DIR --out DIR --workers 2 --gpus_per_worker 1
#
# What follows the script is a command of `promoter`. DIR is on a disk that all nodes see, or in a bucket. On one node
# this script is needed only for the requeue: `srun promoter train ...` takes the CPUs, memory and GPUs of its job.
# Not `ray symmetric-run`: it ends with `ray stop`, which would end the Ray of your other jobs on a shared node, and
# refuses a node on which anybody runs Ray.
#SBATCH --job-name=promoter
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300

set -euo pipefail

nodelist=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodelist%%$'\n'*}
port=$((20000 + SLURM_JOB_ID % 10000))  # below those that the kernel gives to connections
export RAY_ADDRESS=$head:$port
# A token for this job alone. It is in the environment of its processes, which their owner and root can read.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0

run_node() {  # on each node: Ray, until the step ends
    folder=/tmp/promoter-$SLURM_JOB_ID-$SLURM_NODEID  # on its own disk; the sockets in it want a short path
    rm -rf "$folder"  # left by a try that was killed
    mkdir -m 700 "$folder" || exit 1  # Ray opens its own folder, in this one, to everybody
    trap 'kill "$ray"; wait "$ray"; rm -rf "$folder"; exit' TERM INT
    local flags=(--block "--num-cpus=$SLURM_CPUS_PER_TASK" "--temp-dir=$folder/ray"
        --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)
    local mib=${SLURM_MEM_PER_NODE:-$((${SLURM_MEM_PER_CPU:-0} * SLURM_CPUS_PER_TASK))}
    if ((mib)); then  # else the job has all of the node's, as --mem=0 says
        flags+=("--object-store-memory=$((mib * 1048576 * 3 / 10))" "--memory=$((mib * 1048576 * 6 / 10))")
    fi
    if ((SLURM_NODEID == 0)); then
        flags+=(--head "--port=${RAY_ADDRESS##*:}" --include-dashboard=false)
    else
        flags+=("--address=$RAY_ADDRESS")
        until (exec 3<> "/dev/tcp/${RAY_ADDRESS/://}") 2> /dev/null; do sleep 1; done
    fi
    while true; do
        env -u RAY_ADDRESS ray start "${flags[@]}" > /dev/null &
        ray=$!
        wait "$ray" || true
        echo "Ray ended on node $SLURM_NODEID: starting it again" >&2
        sleep 1
    done
}
export -f run_node

# --export: sites may set NONE. --cpus-per-task: srun does not take it from sbatch.
srun --export=ALL --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    bash -c run_node &
nodes=$!
trap 'kill "$nodes" 2> /dev/null && wait "$nodes" || true' EXIT

count_nodes() {
    python -c 'import ray
ray.init(log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))' 2> /dev/null || true
}
until [[ $(count_nodes) == "$SLURM_JOB_NUM_NODES" ]]; do
    if ! kill -0 "$nodes" || ((SECONDS > 600)); then
        echo "error: Ray did not start on all nodes" >&2
        exit 1
    fi
    sleep 1
done

promoter "$@" &
job=$!
# Five minutes before the time limit: stop the job, and queue it again. It resumes from what is in --out.
trap 'kill "$job"; wait "$job" || true; scontrol requeue "$SLURM_JOB_ID"; exit 0' USR1
wait "$job"
