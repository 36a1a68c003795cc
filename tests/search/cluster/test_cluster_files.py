"""The files of ``search/cluster``, as far as they can be checked without the clusters they are for."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from search.__main__ import _parser
from search.study import load_study
from tests import ROOT

BASH = "/bin/bash"
FOLDER = ROOT / "search" / "cluster"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


def check_command(text: str) -> None:
    """The ``python -m search`` in a text is one that this program understands, and its study file is there."""
    words = shlex.split(text[text.index("-m search") :])[2:]
    options = _parser("python -m search")[0].parse_args(words)
    assert options.address == "auto"
    assert load_study(ROOT / options.study, [change for change in options.set if "s3://" not in change]).resources.cpu == 2


def test_the_launcher_s_file_is_what_ray_s_own_schema_asks_for() -> None:
    config = read("launcher.yaml")
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == prepared["available_node_types"]["worker"]["min_workers"]
    with pytest.raises(Exception, match="Additional properties"):
        validate_config({**prepared, "workers": 3})
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    comment = "".join(line.lstrip("#") for line in (FOLDER / "launcher.yaml").read_text().splitlines() if line[:1] == "#")
    check_command(comment[: comment.index("'", comment.index("-m search"))])


def test_the_ray_job_has_what_its_definition_requires() -> None:
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    head, [workers] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"]
    assert workers["groupName"]
    containers = [group["template"]["spec"]["containers"] for group in (head, workers)]
    for [container] in containers:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {type(value) for value in container["resources"]["limits"].values()} == {str}
    assert all(type(value) is str for value in head["rayStartParams"].values())
    assert len({container["image"] for [container] in containers}) == 1
    check_command(job["spec"]["entrypoint"])


STUBS = {
    "scontrol": 'printf "%s\\n" node7 node8 node9',
    "hostname": "echo 10.1.2.7 fd00::7",
    "ray": 'echo "ray $* token=${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >> $LOG; [ "$1" = start ] && exec sleep 60 || true',
    "python": 'sleep 1; echo "python $*" >> $LOG; exit 7',
    "srun": 'echo "srun $*" >> $LOG; while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
}


def test_the_slurm_script_starts_a_head_the_other_nodes_and_the_search(tmp_path: Path) -> None:
    script = FOLDER / "slurm.sh"
    subprocess.run([BASH, "-n", str(script)], check=True)  # noqa: S603 - our own command
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node[7-9]", "SLURM_JOB_ID": "40321", "SLURM_CPUS_PER_TASK": "16",
    }  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own command
        [BASH, str(script), "study.yaml", "--set", "keep=front"],
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, "the search's own exit status"
    lines = log.read_text().splitlines()
    starts = [line for line in lines if line.startswith("ray start")]
    head = next(line for line in starts if "--head" in line)
    assert "--node-ip-address=10.1.2.7 --port=20321 " in head
    assert "--include-dashboard=false" in head
    [other] = [line for line in starts if "--head" not in line]
    assert "--address=10.1.2.7:20321 " in other
    assert all("--num-cpus=16 --num-gpus=0 " in line and line.endswith("--block token=64 token") for line in starts)
    assert any(line.startswith("srun --nodes=2 --ntasks=2 --exclude=node7 ") for line in lines)
    assert lines[-1] == "python -m search run study.yaml --set keep=front --address 10.1.2.7:20321"
    assert "RAY_AUTH_TOKEN=" not in log.read_text()


def test_the_slurm_script_says_what_is_missing() -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        [BASH, str(FOLDER / "slurm.sh")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "give a study file" in done.stderr
