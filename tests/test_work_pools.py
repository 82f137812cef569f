"""The work pools of docs/work_pools: Prefect takes them, and what they render is a Job and a container."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import prefect
import pytest
import yaml
from docker.types import HostConfig
from prefect.server.schemas.actions import validate_base_job_template
from prefect.utilities.schema_tools import is_valid_schema, validate
from prefect.utilities.templating import apply_values

REPOSITORY = Path(__file__).resolve().parents[1]
POOLS = REPOSITORY / "docs/work_pools"
SHIPPED = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
# What the worker adds to a run's variables.
OF_THE_RUN = {
    "name": "retrain-1",
    "command": "prefect flow-run execute",
    "env": {"PREFECT__FLOW_RUN_ID": "1"},
    "labels": {"prefect.io/flow-run-name": "retrain-1"},
}
# The Docker worker takes it since it can ask for GPUs; the list that Prefect 3.8.8 ships is older.
NEWER = {"docker": {"container_create_kwargs"}, "kubernetes": set[str]()}

each_pool = pytest.mark.parametrize("kind", ["kubernetes", "docker"])


def template(kind: str) -> dict[str, Any]:
    return json.loads((POOLS / f"{kind}.json").read_text(encoding="utf-8"))


def deployments() -> list[dict[str, Any]]:
    return yaml.safe_load((POOLS / "deployments.yaml").read_text(encoding="utf-8"))["deployments"]


def rendered(kind: str) -> dict[str, Any]:
    """What a worker makes of the pool's template, the deployment's variables and a run."""
    (deployment,) = [each for each in deployments() if each["work_pool"]["name"] == f"gpus-{kind}"]
    pool, given = template(kind), deployment["work_pool"]["job_variables"]
    validate(given, pool["variables"], raise_on_error=True)
    assert set(given) <= set(pool["variables"]["properties"])
    defaults = {
        name: variable["default"]
        for name, variable in pool["variables"]["properties"].items()
        if "default" in variable
    }
    return apply_values(pool["job_configuration"], {**defaults, **given, **OF_THE_RUN})


@each_pool
def test_prefect_takes_the_template(kind: str) -> None:
    pool = template(kind)
    validate_base_job_template(pool)
    is_valid_schema(pool["variables"])
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))[f"prefect-{kind}"][kind]
    fields = shipped["default_base_job_configuration"]["job_configuration"]
    assert set(pool["job_configuration"]) - NEWER[kind] <= set(fields)


def test_the_kubernetes_pool_renders_a_job() -> None:
    manifest = rendered("kubernetes")["job_manifest"]
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    # As the worker writes them into the manifest.
    container["args"] = shlex.split(container["args"])
    container["env"] = [{"name": name, "value": value} for name, value in container["env"].items()]
    schema = json.loads((REPOSITORY / "tests/kubernetes_job.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(manifest)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in manifest["spec"]["template"]["spec"]["volumes"]}
    manifest["spec"]["template"]["spec"]["parallelism"] = 1
    with pytest.raises(jsonschema.ValidationError, match="parallelism"):
        jsonschema.Draft202012Validator(schema).validate(manifest)


def test_the_docker_pool_renders_a_container_with_gpus() -> None:
    job = rendered("docker")
    made = dict(HostConfig("1.44", **job["container_create_kwargs"], network_mode=job["network_mode"]))
    (request,) = made["DeviceRequests"]
    assert request["Capabilities"] == [["gpu"]]
    assert request["Count"] == -1
    assert made["ShmSize"] == 16 * 2**30
    assert [volume.split(":")[1] for volume in job["volumes"]] == ["/twinflow"]


def test_the_deployments_run_a_flow_of_this_repository_in_the_mounted_clone() -> None:
    for deployment in deployments():
        path, function = deployment["entrypoint"].split(":")
        assert f"def {function}(" in (REPOSITORY / path).read_text(encoding="utf-8")
        assert deployment["schedules"]
    document = yaml.safe_load((POOLS / "deployments.yaml").read_text(encoding="utf-8"))
    (step,) = document["pull"]
    assert step["prefect.deployments.steps.set_working_directory"]["directory"] == "/twinflow"
