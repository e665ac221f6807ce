#!/usr/bin/env bash
# Trains `mini` on a borrowed GPU: detached, so that the terminal may go; polled, stopped and resumed at any time.
#
#   scripts/train_on_gpu.sh start [WORK] [CONFIGS]   start, or go on, in the background (WORK: /tmp/yozora-gpu)
#   scripts/train_on_gpu.sh status [WORK]            the last lines of the log, and whether it still runs
#   scripts/train_on_gpu.sh stop [WORK]              stop after a checkpoint
#   scripts/train_on_gpu.sh collect DIR [WORK]       checkpoint if running, then pack the weights into DIR in pieces of 15 MiB
#   scripts/train_on_gpu.sh unpack DIR               put the pieces together again, into ./collected
#
# Data is rendered on that machine. Python packages that it lacks may lie as wheels in ./.whl; nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-python3}
stages="autoencoder text latents transformer bundle"

run() { # run WORK CONFIGS: every stage in turn; a stage that is done is passed over in seconds
  work=$1 configs=$2
  if compgen -G ".whl/*.whl" >/dev/null && [ ! -e "$work/site" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" .whl/*.whl
  fi
  export PYTHONPATH="$root:$work/site" PYTHONUNBUFFERED=1
  ln -sfn "$work/runs" "$work/cwd/runs"
  cp -r "$configs" "$work/cwd/configs"
  cd "$work/cwd"
  for stage in $stages; do
    echo "== $stage $(date +%T)"
    "$python" -m yozora train "$stage" "configs/$stage.toml"
  done
  echo "== done $(date +%T)"
}

running() { [ -e "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null; }

command=${1:-help}
case $command in
  start)
    work=${2:-/tmp/yozora-gpu} configs=${3:-configs/mini-gpu}
    if running "$work"; then echo "already running"; exit 0; fi
    mkdir -p "$work/runs" "$work/cwd"
    rm -rf "$work/cwd/configs"
    setsid "$0" run "$work" "$configs" >>"$work/log" 2>&1 </dev/null &
    echo $! >"$work/pid"
    echo "started; log: $work/log"
    ;;
  run) run "$2" "$3" ;;
  status)
    work=${2:-/tmp/yozora-gpu}
    tail -n 25 "$work/log"
    if running "$work"; then echo "running"; else echo "not running"; fi
    ;;
  stop)
    work=${2:-/tmp/yozora-gpu}
    if running "$work"; then
      kill -INT -- "-$(cat "$work/pid")" || true
      for _ in $(seq 60); do running "$work" || break; sleep 1; done
    fi
    echo "stopped"
    ;;
  collect)
    out=$2 work=${3:-/tmp/yozora-gpu}
    mkdir -p "$out"
    (cd "$work/runs" && tar c --exclude='checkpoint*' --exclude='*.safetensors.tmp' \
      $(ls -d */bundle */*/export */*/samples 2>/dev/null)) | split -b 15m - "$out/weights.tar."
    cp "$work/log" "$out/log.txt"
    ls -l "$out"
    ;;
  unpack) mkdir -p collected && cat "$2"/weights.tar.* | tar x -C collected && find collected -type f ;;
  *) sed -n '2,12p' "$0" | cut -c3- ;;
esac
