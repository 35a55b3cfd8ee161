"""The RayJob: its pods against Kubernetes' own schema, the rest field by field.

KubeRay's schema itself is in no package that could be installed here, so a field of the right name but a wrong meaning
would pass.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.33"
# The fields of ray.io/v1 in KubeRay 1.5.1 that a sweep has a use for, and their types.
JOB = {
    "entrypoint": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "submissionMode": str,
    "rayClusterSpec": dict,
}
CLUSTER = {"rayVersion": str, "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD = {"rayStartParams": dict, "template": dict}
WORKERS = {**HEAD, "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}

claim, job = yaml.safe_load_all((ROOT / "docker" / "kuberay.yaml").read_text())
cluster = job["spec"]["rayClusterSpec"]
head, [workers] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
groups = pytest.mark.parametrize("group", [head, workers], ids=["head", "workers"])


def container(group):
    [only] = group["template"]["spec"]["containers"]
    return only


def environment(group):
    return {each["name"]: each for each in container(group)["env"]}


@pytest.mark.parametrize(
    ("part", "fields"),
    [(job["spec"], JOB), (cluster, CLUSTER), (head, HEAD), (workers, WORKERS)],
    ids=["job", "cluster", "head", "workers"],
)
def test_structure_only_fields_that_kuberay_has_of_their_types(part, fields):
    assert part.keys() <= fields.keys()
    assert all(type(value) is fields[name] for name, value in part.items())


def test_structure_of_the_whole():
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert cluster["authOptions"] == {"mode": "token"}
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


@pytest.mark.parametrize(
    "manifest",
    [
        claim,
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "head"}, **head["template"]},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, **workers["template"]},
    ],
    ids=["claim", "head", "workers"],
)
def test_kubernetes_accepts_the_claim_and_the_pods(package, manifest):
    checker = package("kubernetes_validate", "pip install kubernetes-validate")
    checker.validate(manifest, KUBERNETES, strict=True)


def test_kubernetes_would_refuse_a_misspelt_field(package):
    checker = package("kubernetes_validate", "pip install kubernetes-validate")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [], "volume": []}}
    with pytest.raises(checker.ValidationError, match="volume"):
        checker.validate(pod, KUBERNETES, strict=True)


@groups
def test_ray_start_knows_the_parameters(parse, group):
    assert all(type(value) is str for value in group["rayStartParams"].values())
    options = parse(["ray", "start", *(f"--{name}={value}" for name, value in group["rayStartParams"].items())])
    memory = {each["name"]: each for each in group["template"]["spec"]["volumes"]}["shared-memory"]["emptyDir"]
    assert options["object_store_memory"] < int(memory["sizeLimit"].removesuffix("Gi")) * 2**30


def test_the_head_trains_nothing_and_a_worker_brings_a_gpu():
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in container(head)["resources"]["limits"]
    assert container(workers)["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_sweep_joins_the_cluster_and_keeps_everything_on_the_shared_claim(parse):
    options = parse(shlex.split(job["spec"]["entrypoint"]))
    assert options["preset"] == "paper"
    assert options["address"] == "auto"
    assert options["runs"].is_relative_to("/data")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@groups
def test_every_node_has_the_same_image_user_and_data(group):
    pod = group["template"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in container(group)["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mounts == {"data": "/data", "shared-memory": "/dev/shm"}
    assert environment(group)["WHETSTONE_CACHE"]["value"].startswith("/data/")
    assert container(group)["image"] == "whetstone:cuda"
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert {str(pod["securityContext"]["runAsUser"])} == set(re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE))


def test_the_tracking_store_and_its_password_reach_the_driver_only():
    assert {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"} < environment(head).keys()
    assert "value" not in environment(head)["MLFLOW_TRACKING_PASSWORD"]  # but the name of a secret
    assert not any(name.startswith("MLFLOW") for name in environment(workers))


def test_ray_is_the_version_in_the_image():
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text().split()
