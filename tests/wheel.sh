#!/usr/bin/env bash
# wheel.sh BIN: the vllm-circus installed in BIN works away from its source tree, with everything that it brings along.
set -euo pipefail

bin=$(realpath "$1")
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
export HOME=$home VLLM_CIRCUS_HOME=$home PATH=$bin:/usr/bin:/bin PYTHONPATH=

vllm-circus --version
vllm-circus --help > help.txt
vllm-circus example > models.yaml
vllm-circus check models.yaml > check.txt
vllm-circus service show > units.txt
vllm-circus service show --user > user-units.txt
vllm-circus-simulator --help > simulator.txt
for file in help.txt models.yaml check.txt units.txt user-units.txt simulator.txt; do
    [ -s "$file" ] || { echo "$file is empty" >&2; exit 1; }
done
where=$(python -c 'import vllm_circus, vllm_circus_plugins; print(vllm_circus.__file__, vllm_circus_plugins.__file__)')
[[ $where == *site-packages*site-packages* ]] || { echo "not the installed package: $where" >&2; exit 1; }
echo "the wheel works: $(wc -l < help.txt) lines of help, $(wc -l < models.yaml) of sample, $(wc -l < units.txt) of units"
