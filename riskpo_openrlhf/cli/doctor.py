"""Check what would stop a job on GPUs on this machine: `python3 -m riskpo_openrlhf.cli.doctor`.

Looks at platform, driver, CUDA toolkit, packages, memory and disk. With RAY_ADDRESS set it looks at every node of that
cluster, and compares their packages. It takes no GPU memory. The dry run of `cli.train` checks a command line.

Exit codes: 0 nothing would stop a job; 1 something would; 2 the cluster does not answer.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys

from riskpo_openrlhf.integration import cluster, doctor


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of tables")
    args = parser.parse_args(argv)
    from riskpo_openrlhf.tables import aligned, to_json

    try:
        alone = os.environ.get("RAY_ADDRESS", "") in ("", "local")
        nodes = {platform.node(): doctor.facts()} if alone else of_cluster()
    except cluster.ClusterError as error:
        print(f"doctor: {error}", file=sys.stderr)
        return 2
    found = {name: doctor.judge(facts) if isinstance(facts, dict) else [facts] for name, facts in nodes.items()}
    if len(nodes) > 1:
        found["all nodes"] = doctor.differences({n: facts for n, facts in nodes.items() if isinstance(facts, dict)})
    bad = sum(finding.status == doctor.BAD for findings in found.values() for finding in findings)
    if args.json:
        print(to_json({"ok": not bad, "nodes": {n: [f._asdict() for f in findings] for n, findings in found.items()}}))
        return int(bad > 0)
    for name, findings in found.items():
        print(f"{name}\n{aligned([[f'  {f.status}', f.subject, f.found, f.cure] for f in findings], left=4)}")
    print(f"{bad} findings would stop a job" if bad else "nothing here would stop a job")
    return int(bad > 0)


def of_cluster() -> dict[str, dict | doctor.Finding]:
    """Collect the facts of every living node of the cluster that RAY_ADDRESS names; of one that fails, a finding."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    with cluster.reaching(os.environ["RAY_ADDRESS"]) as address:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    task = ray.remote(num_cpus=0, max_retries=0)(doctor.facts)
    asked = {
        f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})": task.options(
            scheduling_strategy=On(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    found = {}
    for name, answer in asked.items():
        try:
            found[name] = ray.get(answer, timeout=60)
        except Exception as error:  # the package is missing there, or the node is dead or silent
            cause = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"
            cure = "install this package there as here, or take the node out of the cluster"
            found[name] = doctor.Finding("this package", cause, doctor.BAD, cure)
    return found


if __name__ == "__main__":
    sys.exit(main())
