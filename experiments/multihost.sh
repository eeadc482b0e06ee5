#!/bin/sh
# Several hosts as processes of this machine, to try a run before it goes to real ones:
#
#   experiments/multihost.sh 2 experiments/shapes_unet.py --batch 8 --workdir runs/two
#
# Each process has $DEVICES CPU devices (4 unless said); the first listens on 127.0.0.1:$PORT (5700
# unless said). SIGTERM or Ctrl-C: all save the same step and end with code 143. One that dies takes
# the others with it, within $ENCDEC_HEARTBEAT seconds. Given again, the command goes on.
set -u
if [ $# -lt 2 ]; then
  echo "usage: experiments/multihost.sh HOSTS SCRIPT.py [FLAG …]" >&2
  exit 2
fi
hosts=$1
shift
export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=${DEVICES:-4}"

processes=
index=0
while [ "$index" -lt "$hosts" ]; do
  ENCDEC_HOSTS="127.0.0.1:${PORT:-5700},$hosts,$index" python "$@" &
  processes="$processes $!"
  index=$((index + 1))
done
trap 'kill -TERM $processes 2>/dev/null' INT TERM

worst=0
for process in $processes; do
  wait "$process"
  code=$?
  while kill -0 "$process" 2>/dev/null; do # a signal ended the wait, not the process
    wait "$process"
    code=$?
  done
  [ "$code" -gt "$worst" ] && worst=$code
done
exit "$worst"
