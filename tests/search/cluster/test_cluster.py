"""A study on a cluster of several hosts, of which some die, are cut off, or join late.

``CLUSTER_ROUNDS=20 python -m pytest tests/search/cluster/test_cluster.py`` kills, cuts off and brings back that often, over
one study.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
from optuna.trial import TrialState

from search.session import prepare
from search.study import Study, load_study
from tests.hosts import Host, Hosts, hosts, until
from tests.s3_server import S3, make_bucket, s3_server
from tests.search_helpers import Raw, one_line, optuna_rows, raw_study, rows, write
from trainables.records import names as n
from trainables.storage.places import open_storage
from trainables.storage.store import Store
from trainables.tree import Tree, walk

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("CLUSTER_ROUNDS", "1"))
STEPS = 6


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with hosts(tmp_path_factory.mktemp("hosts")) as found:
        yield found


@pytest.fixture(scope="module")
def s3(machines: Hosts) -> Iterator[S3]:
    """A store that every host can reach."""
    with s3_server(machines.own_address) as server:
        machines.environment |= server.environment
        yield server


@pytest.fixture(scope="module")
def cluster(machines: Hosts, s3: S3) -> Hosts:
    """A cluster with nothing but its head."""
    machines.add_head()
    return machines


@pytest.fixture(scope="module")
def nodes(cluster: Hosts) -> list[Host]:
    """Two hosts with a node of one core each."""
    found = [cluster.add() for _ in range(2)]
    for host in found:
        host.start_node()
    return found


def study_of(tmp: Path, **changes: object) -> Raw:
    """Chains of short steps, from a dense network that takes some seconds."""
    sweep = [{"importance": ["magnitude", "random"], "schedule": "linear", "sparsity": 0.9, "steps": STEPS,
              "fine_tune_epochs": 4, "seed": list(range(1 + ROUNDS))}]  # fmt: skip
    dense = {"epochs": 100, "learning_rate": 0.1, "batch_size": 32, "threads": 1}
    return raw_study(tmp, **{"sweep": sweep, "dense": dense, **changes})


def refused(cluster: Hosts, *runs: Popen[str]) -> list[str]:
    """The one line with which each of some runs on the head is refused."""
    until("refusals", lambda: all(run.poll() is not None for run in runs))
    assert {run.returncode for run in runs} == {2}, [cluster.head.output(run) for run in runs]
    return [one_line(cluster.head.output(run)) for run in runs]


def test_what_a_cluster_can_t_do_is_told_in_one_line(cluster: Hosts, nodes: list[Host], tmp_path: Path) -> None:
    file, address = write(tmp_path, study_of(tmp_path)), cluster.ray_address
    run = ("run", str(file), "--address", address)
    elsewhere = f"{cluster.head.address}:1"
    wrong, large, nobody = refused(
        cluster,
        cluster.head.search(*run, RAY_AUTH_TOKEN="0" * 64),
        cluster.head.search(*run, "--set", "resources.cpu=2"),
        cluster.head.search("run", str(file), "--address", elsewhere),
    )
    assert wrong.startswith(f"error: --address: the cluster at {address} refuses the token; ")
    assert large.startswith("error: resources: a trial takes 2 cpu and 0 gpu, and the cluster's largest node, ")
    assert nobody.startswith(f"error: --address: no Ray cluster can be reached at {elsewhere} (")
    assert not (tmp_path / "results").exists()


def test_a_node_that_sees_other_files_or_runs_other_code_is_named(
    cluster: Hosts, nodes: list[Host], tmp_path: Path
) -> None:
    if not cluster.isolated:
        pytest.skip("needs a host with mounts of its own")
    (tmp_path / "results").mkdir()
    run = ("run", str(write(tmp_path, study_of(tmp_path))), "--address", cluster.ray_address)
    host = cluster.add()
    host.start_node(before=f"mount -t tmpfs none {tmp_path}/results")
    [line] = refused(cluster, cluster.head.search(*run))
    assert line.startswith(f"error: --address: node {host.address} doesn't see the same files in {tmp_path}/results/tiny ")
    host.kill()
    package = Path(n.__file__).parents[1]
    other = f"{tmp_path}/other"
    changed = f"cp -r {package} {other} && echo >> {other}/records/names.py && mount --bind {other} {package}"
    host.start_node(before=changed)
    [line] = refused(cluster, cluster.head.search(*run))
    assert line.startswith(f"error: --address: node {host.address} runs another version of this program ")
    assert not any((tmp_path / "results" / "tiny").glob("*/step.json"))
    host.kill()


LOOK = """
import sys, time, ray
from search.cluster.node_checks import on_each
from search.cluster.nodes import alive
from search.study import ResourceSettings
from trainables.records.names import InputError

def look_slowly():
    time.sleep(10)
    return ray.util.get_node_ip_address()

ray.init(sys.argv[1], log_to_driver=False)
before = [node for node in alive() if node.cpu]
found = on_each(before, ResourceSettings(), look_slowly)
assert all(node.host == host for node, host in found.items())
print("found", *sorted(found.values()))
gone = [node for node in before if node not in found]
try:
    on_each(gone, ResourceSettings(), look_slowly)
except InputError as error:
    print(error)
"""


def test_a_node_that_dies_while_it_is_looked_at_is_left_out(cluster: Hosts, nodes: list[Host]) -> None:
    if not cluster.isolated:
        pytest.skip("needs hosts with addresses of their own")
    victim = cluster.add()
    victim.start_node()
    looking = cluster.head.start(sys.executable, "-c", LOOK, cluster.ray_address)
    until("all to be looked at", lambda: looking.poll() is not None or all(h.runs("look_slowly") for h in [*nodes, victim]))
    victim.kill()
    until("the end", lambda: looking.poll() is not None)
    told = [line for line in cluster.head.output(looking).splitlines() if line.startswith(("found", "--address"))]
    assert told == [
        f"found {nodes[0].address} {nodes[1].address}",
        f"--address: every node that a trial fits on died meanwhile ({victim.address}); start them again",
    ], cluster.head.output(looking)


def test_a_study_outlives_its_nodes(
    cluster: Hosts, nodes: list[Host], s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts that share no file, only a store, die, are cut off, and join late."""
    home, head = tmp_path / "driver", cluster.head
    home.mkdir()
    monkeypatch.chdir(home)
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    make_bucket(s3.endpoint, "studies")
    file = write(home, study_of(home, storage="s3://studies/results"))
    study = load_study(file)
    alone = " && ".join(f"mount -t tmpfs none {folder}" for folder in (tmp_path, cluster.temporary))

    def start(host: Host) -> None:
        host.start_node(before=alone if cluster.isolated else "")

    def told() -> str:
        """What the driver has written, which still runs."""
        assert driver.poll() is None, f"the driver ended early: {head.output(driver)}"
        return head.output(driver)

    def work_on(host: Host) -> None:
        until("a trial on a host", lambda: told() is not None and host.runs("Trainable"))

    def trains(host: Host) -> bool:
        return told() is not None and host.runs("dense_task")

    for host in nodes:  # those before saw each other's files
        host.kill()
        start(host)
    driver = head.search("run", str(file), "--address", cluster.ray_address, cwd=home)
    with held_back(study) as let_go:
        victim = until("the dense training", lambda: next(filter(trains, nodes), None))
        survivor = next(host for host in nodes if host is not victim)
        victim.kill()
        late = cluster.add()
        start(late)
        work_on(late)
        draw = random.Random(0)
        for _ in range(ROUNDS):
            for event in (cut_off, kill) if cluster.isolated else (kill,):
                host = draw.choice([survivor, late])
                work_on(host)
                lost = told().count(LOST)
                event(host, lambda lost=lost: told().count(LOST) > lost)
                start(host)
            let_go(2)
    until("the end of the study", lambda: driver.poll() is not None, 600 + 60 * ROUNDS)
    assert driver.returncode == 0, head.output(driver)
    _nothing_lost(study, tmp_path)
    points = {row[n.STEP_ID] for row in rows(study.folder / n.POINTS_FILE)}
    assert set(Store(f"{study.place}/{n.STEPS_FOLDER}").ids()) == points
    assert not (study.folder / n.STEPS_FOLDER).exists()
    stored = open_storage(study.place)
    for name in (n.ASKED_FILE, n.POINTS_FILE, n.TRIALS_FILE, n.OPTUNA_FILE):
        assert stored.read(name) == (study.folder / name).read_bytes()


@contextmanager
def held_back(study: Study) -> Iterator[Callable[[int], None]]:
    """Keep each schedule from its last step, as another trial that computes it would, until so many are let go."""
    tree = prepare(study).tree
    last = [tree.chain(schedule)[-1].id for schedule in study.schedules()]
    with ExitStack() as everything:
        claims = [everything.enter_context(ExitStack()) for _ in last]
        for claim, step in zip(claims, last, strict=True):
            claim.enter_context(tree.store.claim(step))

        def let_go(count: int) -> None:
            for _ in range(count):
                claims.pop(0).close()

        yield let_go


LOST = "lost its worker and runs again"


def kill(host: Host, noticed: Callable[[], bool]) -> None:
    """SIGKILL for all that runs there."""
    host.kill()
    until("the driver to notice", noticed)


def cut_off(host: Host, noticed: Callable[[], bool]) -> None:
    """Out of the network until it is given up, and back: its raylet learns that it counts as dead, and ends."""
    host.cut_off()
    until("the driver to notice", noticed)
    host.bring_back()
    until("the end of what ran there", lambda: not host.runs("raylet/raylet"))
    host.kill()


def _nothing_lost(study: Study, tmp: Path) -> None:
    points = [row for row in rows(study.folder / n.POINTS_FILE) if row[n.TRIAL] is not None]
    count = len(study.schedules())
    assert Counter((row[n.TRIAL], row[n.STEP]) for row in points) == Counter(
        (trial, step) for trial in range(count) for step in range(1, STEPS + 1)
    )
    assert {row[n.STATE] for row in rows(study.folder / n.TRIALS_FILE)} == {n.COMPLETE}
    table = optuna_rows(study.folder)
    assert TrialState.RUNNING not in {row.state for row in table}
    told = Counter(row.user_attrs[n.STEP_ID] for row in table if row.state == TrialState.COMPLETE)
    assert told == Counter(row[n.STEP_ID] for row in points)
    # The undisturbed study, without Ray: the same steps, with the same measurements, and so the same front.
    undisturbed = Tree(prepare(study).tree.problem, Store(tmp / "undisturbed"))
    expected = {row[n.STEP_ID]: row for schedule in study.schedules() for row in walk(schedule, undisturbed)}
    assert {row[n.STEP_ID]: row[n.ACCURACY] for row in points} == {i: row[n.ACCURACY] for i, row in expected.items()}
