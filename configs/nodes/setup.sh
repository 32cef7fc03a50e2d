#!/usr/bin/env bash
# Install raypipe on a node of the cluster, by a lock: setup.sh cpu | gpu
set -euo pipefail
lock=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
[ -x ~/uv/bin/uv ] || { python3 -m venv ~/uv && ~/uv/bin/pip install --quiet uv==0.13.9; }
~/uv/bin/uv venv --quiet --allow-existing --python 3.11 ~/venv
index=()
if [ "$lock" = cpu ]; then # CPU builds of PyTorch lie elsewhere; on a GPU node they must not win
  index=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
fi
# The lock names every package, so that nothing is resolved here.
~/uv/bin/uv pip install --quiet --python ~/venv --no-deps "${index[@]}" \
  --requirement "$root/configs/locks/$lock.txt"
~/uv/bin/uv pip install --quiet --python ~/venv --no-deps --editable "$root"
# shellcheck disable=SC2016
grep -q '/venv/bin' ~/.bashrc || echo 'export PATH=$HOME/venv/bin:$PATH' >> ~/.bashrc
