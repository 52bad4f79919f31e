#!/usr/bin/env bash
# wheel.sh BIN: the vllm-circus installed in BIN works away from its source tree, with everything that it brings along.
set -euo pipefail

bin=$(realpath "$1")
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
cd "$home"
export HOME=$home VLLM_CIRCUS_HOME=$home PATH=$bin:/usr/bin:/bin PYTHONPATH=

# The sample that needs neither GPU nor engine, on a port that is free here.
python - > models.yaml << 'END'
import socket
from importlib.resources import files

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
print(files("vllm_circus.conf").joinpath("demo.yaml").read_text().replace("port: 8000", f"port: {port}"))
END

vllm-circus --version
vllm-circus --help > help.txt
vllm-circus example > example.yaml
vllm-circus check models.yaml > check.txt
vllm-circus render models.yaml > render.txt
vllm-circus service show > units.txt
vllm-circus service show --user > user-units.txt
vllm-circus-simulator --help > simulator.txt
for file in help.txt example.yaml check.txt render.txt units.txt user-units.txt simulator.txt; do
    [ -s "$file" ] || { echo "$file is empty" >&2; exit 1; }
done
# Everything can be imported: what is missing from the wheel is found here, and not by whoever opens the menu.
python - << 'END'
from importlib import import_module
from pkgutil import walk_packages

import vllm_circus
import vllm_circus_plugins

for package in (vllm_circus, vllm_circus_plugins):
    for module in walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
END
where=$(python -c 'import vllm_circus, vllm_circus_plugins; print(vllm_circus.__file__, vllm_circus_plugins.__file__)')
[[ $where == *site-packages*site-packages* ]] || { echo "not the installed package: $where" >&2; exit 1; }
echo "the wheel works: $(wc -l < help.txt) lines of help, $(wc -l < example.yaml) of sample, $(wc -l < units.txt) of units"
