#!/usr/bin/env bash
# The first process of Triton's container: tritonserver as Modelium needs it, with its requests finished when it is told to stop.
#
# What enters is the environment; arguments go to tritonserver as they are:
#   MODEL_REPOSITORY=/models/repository              what Modelium writes and Triton reads
#   TRITON_ADDRESS=0.0.0.0                           of the HTTP and the gRPC port
#   TRITON_METRICS_ADDRESS=0.0.0.0
#   TRITON_HTTP_PORT=8000 TRITON_GRPC_PORT=8001 TRITON_METRICS_PORT=8002
#   TRITON_EXIT_TIMEOUT=20                           seconds that requests in flight get at the end
#   TRITON_SECRET= or TRITON_SECRET_FILE=            without it whoever reaches the ports may load models, which is to run code; the
#                                                    same goes to Modelium (triton.headers)
#   RAY_ADDRESS=                                     HOST:PORT of a Ray cluster whose drivers the models of the ray runtime are
set -euo pipefail

repository="${MODEL_REPOSITORY:-/models/repository}"
# The same as the embedded server's (modelium/triton/launch.py says why each); a test holds the two together.
# shellcheck disable=SC2054 # the commas are Triton's
flags=(
    "--model-repository=$repository"
    --model-control-mode=explicit
    --disable-auto-complete-config
    --strict-readiness=false
    "--exit-timeout-secs=${TRITON_EXIT_TIMEOUT:-20}"
    --model-load-thread-count=4
    --http-thread-count=16
    "--http-address=${TRITON_ADDRESS:-0.0.0.0}"
    "--http-port=${TRITON_HTTP_PORT:-8000}"
    "--grpc-address=${TRITON_ADDRESS:-0.0.0.0}"
    "--grpc-port=${TRITON_GRPC_PORT:-8001}"
    "--metrics-address=${TRITON_METRICS_ADDRESS:-0.0.0.0}"
    "--metrics-port=${TRITON_METRICS_PORT:-8002}"
    --reuse-grpc-port=false
    --reuse-http-port=false
    --grpc-http2-min-recv-ping-interval-without-data=10000
    --allow-metrics=true
    --log-format=ISO8601
    --backend-config=python,shm-default-byte-size=1048576
    --backend-config=python,shm-growth-byte-size=1048576
    --backend-config=python,stub-timeout-seconds=120
)

# Only the container's own processes, and the machine's administrator, see a command line of this container's.
secret="${TRITON_SECRET:-}"
[ -z "${TRITON_SECRET_FILE:-}" ] || secret="$(<"$TRITON_SECRET_FILE")"
if [ -n "$secret" ]; then
    apis=model-repository,shared-memory,trace,logging,statistics
    flags+=("--http-restricted-api=$apis:modelium=$secret" "--grpc-restricted-protocol=$apis:modelium=$secret")
fi
unset secret TRITON_SECRET # models need not inherit it

say() { echo "serve.sh: $*" >&2; }

# A driver of Ray needs a raylet on its own node. It offers nothing: the models' work is for the cluster's nodes. Beside Triton,
# not in front of it: a cluster that is not there yet, or goes away, is no reason for the other models not to be served.
stay_in_ray() {
    trap 'kill $(jobs -p) 2>/dev/null; wait; exit' TERM
    while true; do
        # Of shared memory it would else take three tenths of the machine's, for what only passes through.
        ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0 --memory=0 --object-store-memory=268435456 \
            --disable-usage-stats --block &
        wait $! || true
        say "not in the Ray cluster at $RAY_ADDRESS; trying again in 5 s"
        sleep 5 &
        wait $! || true
    done
}

stopping=
triton=
# shellcheck disable=SC2317 # the trap calls it
stop() {
    stopping=1
    [ -z "$triton" ] || kill -TERM "$triton" 2>/dev/null || true
}
trap stop TERM INT

if [ ! -d "$repository" ]; then
    say "$repository is not there yet; waiting for Modelium to make it"
    until [ -d "$repository" ]; do
        [ -z "$stopping" ] || exit 0
        sleep 0.2
    done
fi

tritonserver "${flags[@]}" "$@" &
triton=$!
[ -z "$stopping" ] || stop # the signal came between the two lines
ray=
if [ -n "${RAY_ADDRESS:-}" ]; then
    stay_in_ray &
    ray=$!
fi

# A signal ends `wait` before it ends the server, which first finishes what is in flight: wait for the process itself.
code=0
wait "$triton" || code=$?
while kill -0 "$triton" 2>/dev/null; do
    code=0
    wait "$triton" || code=$?
done
if [ -n "$ray" ]; then # last: models that end may still have something to tell it
    kill -TERM "$ray" 2>/dev/null || true
    wait "$ray" || true
fi
exit "$code"
