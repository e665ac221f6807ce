#!/usr/bin/env bash
# Trains `mini` on a borrowed GPU: detached, so that the terminal may go; polled, stopped and resumed at any time.
#
#   scripts/train_on_gpu.sh start [WORK] [CONFIGS]   start, or go on, in the background (WORK: /tmp/yozora-gpu)
#   scripts/train_on_gpu.sh status [WORK]            the last lines of the log, and whether it still runs
#   scripts/train_on_gpu.sh stop [WORK]              stop; the stage that runs writes a checkpoint and its weights so far
#   scripts/train_on_gpu.sh collect DIR [WORK]       stop, then pack all weights into DIR in pieces of 15 MiB
#   scripts/train_on_gpu.sh unpack DIR               put the pieces together again, into ./collected
#
# Data is rendered on that machine. Python packages that it lacks may lie as wheels in ./.whl; nothing is downloaded.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
python=${PYTHON:-python3}
runs="autoencoder text latents pictures transformer bundle" # not every model begins with pictures

running() { [ -e "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null; }

run() { # every configuration in turn; one that is done is passed over in seconds
  if compgen -G "$root/.whl/*.whl" >/dev/null && [ ! -e "$work/site" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$root"/.whl/*.whl
  fi
  export PYTHONPATH="$root:$work/site" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
  cd "$work" # the configurations write to ./runs
  for name in $runs; do
    [ -e "configs/$name.toml" ] || continue
    echo "== $name $(date +%T)"
    "$python" -m yozora train "${name/pictures/transformer}" "configs/$name.toml" &
    echo $! >"$work/stage"
    wait $!
  done
  echo "== done $(date +%T)"
}

stop() {
  running "$work" || return 0
  kill -TERM "$(cat "$work/stage")" 2>/dev/null || true # the stage ends after a checkpoint, and `run` with it
  for _ in $(seq 120); do
    running "$work" || return 0
    sleep 0.5
  done
  echo "it has not stopped within a minute" >&2
  return 1
}

command=${1:-help}
case $command in
  collect | unpack) dir=$(realpath -m "${2:?which folder?}") work=$(realpath -m "${3:-/tmp/yozora-gpu}") ;;
  *) work=$(realpath -m "${2:-/tmp/yozora-gpu}") ;;
esac
case $command in
  start)
    configs=$(realpath "${3:-$root/configs/mini-gpu}")
    if running "$work"; then
      echo "already running"
      exit 0
    fi
    mkdir -p "$work"
    rm -rf "$work/configs"
    cp -r "$configs" "$work/configs"
    setsid "$root/scripts/train_on_gpu.sh" run "$work" >>"$work/log" 2>&1 </dev/null &
    echo $! >"$work/pid"
    echo "started; log: $work/log"
    ;;
  run) run ;;
  status)
    tail -n 25 "$work/log"
    if running "$work"; then echo "running"; else echo "not running"; fi
    ;;
  stop) stop && echo "stopped" ;;
  collect)
    stop
    mkdir -p "$dir"
    rm -f "$dir"/weights.tar.*
    cp "$work/log" "$dir/log.txt"
    cd "$work/runs"
    mapfile -t parts < <(ls -d */bundle */*/export */*/samples 2>/dev/null)
    if [ ${#parts[@]} = 0 ]; then
      echo "no stage has written weights yet; start goes on" >&2
      exit 1
    fi
    tar c --exclude='*.mp4' "${parts[@]}" | split -b 15m - "$dir/weights.tar."
    ls -l "$dir"
    ;;
  unpack) mkdir -p collected && cat "$dir"/weights.tar.* | tar x -C collected && find collected -type f ;;
  *) sed -n '2,10p' "$0" | cut -c3- ;;
esac
