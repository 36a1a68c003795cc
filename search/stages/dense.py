"""The dense networks, trained before all trials: one a seed, several at a time, and how far they are is shown.

Those whose weights are gone (results travel without them) are trained again before the trials that begin there.
"""

from __future__ import annotations

from collections.abc import Sequence

import ray
from rich.console import Console

from search.cluster.nodes import alive, dense_cores
from search.records.ledger import Ledger
from search.records.recovery import fill_latencies, fill_own, timed
from search.sampling.space import Sweep
from search.session import Session
from search.stages import waiting
from search.stages.ready import Driver
from search.stages.tasks import dense_task
from search.stages.wrap_up import measure_latencies
from search.tune.trial import LOST_IN_A_ROW
from trainables.records import names as n
from trainables.records.jsonl import Row
from trainables.records.limits import uncounted
from trainables.records.objectives import Quality


def dense_networks(driver: Driver) -> None:
    """Train those that aren't in the store, and put all on record, measured on every objective."""
    session, ledger = driver.session, driver.ledger
    if seeds := missing_seeds(session):
        driver.ray.start()
        train_dense(session, seeds, driver.console)
    fill_own(session, ledger)
    record_dense(session, ledger, driver.console)
    if any(one.of_host for one in session.study.goals):  # one may be named only since
        measure_latencies(session, ledger, driver.console)


def missing_seeds(session: Session) -> list[int]:
    """The seeds whose dense network isn't in the store."""
    tree = session.tree
    return [seed for seed in session.seeds if tree.known(tree.problem.root(seed).id) is None]


def lost_seeds(session: Session) -> list[int]:
    """The seeds whose dense network is on record without its weights, though there are steps ahead that need them."""
    tree, space, seeds = session.tree, session.space, set(session.seeds)
    if isinstance(space, Sweep):
        there = set(tree.store.ids())
        ahead = (one for one in space.schedules if not there.issuperset(node.id for node in tree.chain(one)))
        seeds = {schedule.seed for schedule in ahead}
    return [seed for seed in sorted(seeds) if tree.store.weights(tree.record_of(tree.problem.root(seed))) is None]


def train_dense(session: Session, seeds: Sequence[int], console: Console) -> None:
    """Train the dense networks of these seeds; with a checkpoint, measure it. Ray has been started."""
    tree, resources, measure = session.tree, session.study.resources, session.tree.measure
    told = measure.told
    before = {seed: tree.known(tree.problem.root(seed).id) for seed in seeds}
    shared, counter = ray.put(tree.problem), waiting.counter()
    cores = dense_cores(alive(), resources, tree.problem.dense.threads)
    task = ray.remote(dense_task).options(num_cpus=cores, num_gpus=resources.gpu, max_retries=LOST_IN_A_ROW)
    epochs = sum(tree.epochs_of(tree.problem.root(seed)) for seed in seeds)
    with waiting.shown(console, described(len(seeds), epochs), epochs) as show:
        tasks = [task.remote(shared, tree.store, seed, session.terms, counter) for seed in seeds]
        waiting.wait_for(tasks, counter, show, "dense: the dense network can't be trained")
    for seed, record in before.items():
        now = tree.record_of(tree.problem.root(seed))
        if record is not None and record["checksums"] != now["checksums"]:
            console.print(
                f"[yellow]Seed {seed}: trained again, the dense network came out different on this machine[/yellow] "
                f"({told(record[measure.column])}, now {told(now[measure.column])}); its points so far began "
                "from other weights."
            )


def described(networks: int, epochs: int) -> str:
    """What is done with so many dense networks, which train so many epochs; those of a checkpoint train none."""
    return (
        f"{'Training' if epochs else 'Measuring'} {'the dense network' if networks == 1 else f'{networks} dense networks'}"
    )


def record_dense(session: Session, ledger: Ledger, console: Console) -> None:
    """Put the dense networks on record; of one that is there, an objective may have been named only since."""
    for seed in session.seeds:
        if seed in ledger.dense:
            if not ledger.measured(ledger.dense[seed]):
                timed(ledger.dense[seed], session)
                fill_latencies(session, ledger)
            if ledger.has(None, ledger.dense[seed][n.STEP_ID], session.tree.forms):
                continue
        for point in session.tree.dense_points(seed):
            ledger.add_dense(timed(point, session))
        console.print(f"Dense network, seed {seed}: {_told(ledger.dense[seed], ledger.measure)}")
        if told := uncounted(session.study.limits, ledger.dense[seed], ledger.measure, session.study.drop):
            console.print(f"[yellow]Limits:[/yellow] {told}.")
        for row in ledger.dense_forms:
            if row[n.SEED] == seed:
                value = ledger.measure.told(row[ledger.measure.column])
                console.print(f"[dim]… stored as {row[n.FORM]}: {value}, {row[n.COMPRESSION]:.2f}× smaller[/dim]")


def _told(dense: Row, measure: Quality) -> str:
    return f"{measure.told(dense[measure.column])} {measure.label}, {dense[n.PARAMS]:,} parameters"
