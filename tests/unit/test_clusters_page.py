"""The scripts of docs/clusters.md: what can be checked of them without Slurm and Kubernetes."""

import os
import re
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_slurm_script_is_bash_and_gives_each_job_a_port_and_a_folder_of_its_own():
    script = (DOCS / "clusters/slurm.sh").read_text()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "SLURM_JOB_ID % 10000" in script and "RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID" in script


def test_the_slurm_script_hands_its_options_to_the_recipe(tmp_path):
    """Stand-ins take the place of Slurm, Ray, the environment and the recipe."""
    for name, text in {
        "bin/scontrol": "echo head", "bin/srun": "", "bin/ray": "", "riskpo-openrlhf/.venv/bin/activate": "",
        "recipes/math_hard.sh": 'echo "$NODES:" "$@"',
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "head", "SLURM_NNODES": "4"}
    environment = {**os.environ, **slurm, "HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", DOCS / "clusters/slurm.sh", "--resume"],
        capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert run.stdout == f"4: --machines nodes --out {tmp_path}/runs/hard --resume -- --riskpo.wait_for_gpus 300\n"


def test_the_kubernetes_manifest_is_a_ray_job_whose_nodes_all_see_the_shared_volume():
    yaml = pytest.importorskip("yaml")
    manifest = yaml.safe_load((DOCS / "clusters/ray_job.yaml").read_text())
    cluster = manifest["spec"]["rayClusterSpec"]
    assert manifest["kind"] == "RayJob" and "-- --riskpo.wait_for_gpus" in manifest["spec"]["entrypoint"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted == {"shared": "/shared", "memory": "/dev/shm"}
        assert {volume["name"] for volume in pod["volumes"]} == set(mounted)
    pins = (DOCS.parent / "requirements/cpu.txt").read_text()
    assert f"ray=={cluster['rayVersion']}" in re.sub(r"\[\w+\]", "", pins)


def test_the_pages_on_clusters_and_security_stay_short():
    for name in ("clusters", "security"):
        lines = (DOCS / f"{name}.md").read_text().splitlines()
        assert len(lines) <= 120, name
