"""Every classification network of torchvision, and one of each of timm's families, cut by every method.

    python -m benchmarks.zoo [--networks NAME ...] [--jobs 2] [--most-parameters 60e6]

Each network is looked at in a process of its own (``benchmarks.zoo_row``), with bounds on memory and time: one that is bad
is a row with a fault. Those that have a row in ``benchmarks/tables/zoo.csv`` are passed over, so the same command goes on
where it was stopped; ``zoo.md`` is the same table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd
import torchvision

from benchmarks.zoo_row import NOT_LOOKED_AT, TARGETS
from trainables.networks.factory import TIMM, TORCHVISION
from trainables.records.files import write_atomically

TABLE = Path(__file__).parent / "tables" / "zoo.csv"
MOST_MEMORY, MOST_SECONDS = 10 * 10**9, 3600
"""What a network may take, in bytes and in seconds of a core."""
COLUMNS = (
    "network", "side", "parameters", "families", "protected_channels", "protected_weights", "protected_macs", "cuts",
    "importances_refused", "pruners_refused", "asked", "achieved_local", "achieved_global", "oracle", "core_seconds",
    "refused", "fault",
)  # fmt: skip
TIMM_NETWORKS = (
    "resnet10t", "resnetv2_50", "resnext26ts", "seresnet18", "skresnet18", "wide_resnet50_2", "convnext_atto",
    "convnextv2_atto", "efficientnet_b0", "mobilenetv2_035", "tf_mobilenetv3_small_075", "mobilenetv4_conv_small_035",
    "mnasnet_small", "lcnet_035", "fbnetc_100", "regnetx_002", "regnety_002", "regnetz_005", "densenet121", "vgg11_bn",
    "repvgg_a0", "mobileone_s0", "ghostnet_050", "hrnet_w18_small", "dla46_c", "res2net50_14w_8s", "resnest14d",
    "cspresnet50", "darknet17", "dpn48b", "xception41", "inception_v4", "eca_nfnet_l0", "rexnet_100", "mixnet_s",
    "ese_vovnet19b_slim", "selecsls42", "hgnetv2_b0", "inception_next_atto", "starnet_s050", "mixer_s32_224",
    "resmlp_12_224", "gmlp_ti16_224", "poolformer_s12", "vit_tiny_patch16_224", "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "beit_base_patch16_224", "cait_xxs24_224",
    "xcit_nano_12_p16_224", "pit_ti_224", "levit_128s", "maxvit_pico_rw_256", "coatnet_nano_rw_224", "efficientformer_l1",
    "mobilevit_xxs", "edgenext_xx_small", "fastvit_t8", "tiny_vit_5m_224", "efficientvit_b0", "repvit_m0_9", "pvt_v2_b0",
)  # fmt: skip
"""One of each family, the smallest."""


def main() -> None:
    """Look at the networks that have no row yet, and write both tables after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="*", default=[], help="such as torchvision:resnet18; all without it")
    parser.add_argument("--most-parameters", type=float, default=60e6)
    parser.add_argument("--jobs", type=int, default=1, help="networks looked at together, with a thread each")
    given = parser.parse_args()
    done = looked_at(rows(), given.most_parameters)
    left = [name for name in given.networks or names() if name not in done]
    with ThreadPoolExecutor(given.jobs) as pool:
        _gather([pool.submit(row_of, name, given.most_parameters) for name in left])
    write_markdown()


def names() -> list[str]:
    """All of torchvision's, and those of timm's families if it is installed."""
    found = [TORCHVISION + name for name in torchvision.models.list_models(module=torchvision.models)]
    return found + [TIMM + name for name in TIMM_NETWORKS if importlib.util.find_spec("timm") is not None]


def rows() -> pd.DataFrame:
    """The table as it stands, as text."""
    return pd.read_csv(TABLE, dtype=str).fillna("") if TABLE.exists() else pd.DataFrame(columns=list(COLUMNS))


def looked_at(table: pd.DataFrame, most_parameters: float) -> set[str]:
    """The networks whose rows stay: not those that were only named, if they aren't too large any more."""
    named = table["fault"].str.startswith(NOT_LOOKED_AT)
    return set(table.loc[~named | (pd.to_numeric(table["parameters"]) > most_parameters), "network"])


def _gather(pending: Sequence[Future[dict[str, Any]]]) -> None:
    began = time.monotonic()
    for count, future in enumerate(as_completed(pending), 1):
        row = future.result()
        _write(row)
        write_markdown()
        left = (time.monotonic() - began) / count * (len(pending) - count) / 60
        told = row.get("fault") or row.get("refused") or f"oracle {row.get('oracle')}"
        print(f"{count} of {len(pending)}, about {left:.0f} min left: {row['network']}: {told}", flush=True)


def row_of(name: str, most_parameters: float) -> dict[str, Any]:
    """The row that a process of its own makes; one that took too much, or died, has a fault."""
    command = [sys.executable, "-m", "benchmarks.zoo_row", name, str(most_parameters)]
    try:
        ended = subprocess.run(  # noqa: S603 - our own module
            command, capture_output=True, check=False, timeout=3 * MOST_SECONDS, preexec_fn=_bound, env=_one_thread()
        )  # fmt: skip
        row: dict[str, Any] = json.loads(ended.stdout)
    except subprocess.TimeoutExpired:
        row = {"network": name, "fault": f"more than {3 * MOST_SECONDS} s"}
    except ValueError:
        last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["nothing said"]
        took_long = ended.returncode == -signal.SIGXCPU
        why = f"more than {MOST_SECONDS} s of a core" if took_long else f"ended with {ended.returncode}: {last[0][:160]}"
        row = {"network": name, "fault": why}
    return row


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS + 60))


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _write(row: dict[str, Any]) -> None:
    """At the table's end, in place of an older row of the network."""
    others = rows().query("network != @row['network']")
    table = pd.concat([others, pd.DataFrame([row], columns=list(COLUMNS))])
    write_atomically(TABLE, table.to_csv(index=False).encode())


def write_markdown() -> None:
    """The table as Markdown, beside the other, with what its columns are."""
    if (table := rows()).empty:
        return
    about = (
        f"Two steps, to {TARGETS[-1] / 1e6:.0%} of the channels: each importance with local scope, one with global scope "
        "after an update of each pruner's training. Shares are of the whole network, the oracle's difference of the "
        "largest output."
    )
    lines = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    text = "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
    TABLE.with_suffix(".md").write_text(f"# The zoo\n\n{about}\n\n{text}\n")


if __name__ == "__main__":
    main()
