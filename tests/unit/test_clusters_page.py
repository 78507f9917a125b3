"""The scripts of docs/clusters.md: what can be checked of them without Slurm and Kubernetes."""

import re
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_slurm_script_is_bash_and_gives_each_job_a_port_and_a_folder_of_its_own():
    script = (DOCS / "clusters/slurm.sh").read_text()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "SLURM_JOB_ID % 10000" in script and "RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID" in script


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
