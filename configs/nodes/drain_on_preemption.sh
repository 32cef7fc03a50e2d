#!/usr/bin/env bash
# Tell Ray that AWS takes this spot node back, about two minutes before it does: Ray then starts
# nothing new on it and moves its objects away. Ends without a word on a node that is no spot node.
set -uo pipefail
metadata=${RAYPIPE_METADATA:-http://169.254.169.254}/latest
every_s=${RAYPIPE_POLL_S:-5}

ask() { # PATH: the answer of the instance metadata service; fails where there is none
  local token
  token=$(curl -fsS -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token") \
    && curl -fsS -m 2 -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/$1"
}

[ "$(ask instance-life-cycle 2> /dev/null)" = spot ] || exit 0
until ask spot/instance-action > /dev/null 2>&1; do sleep "$every_s"; done
export RAY_AUTH_MODE=token
exec ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION \
  --reason-message "the spot market takes the node back" --deadline-remaining-seconds 110
