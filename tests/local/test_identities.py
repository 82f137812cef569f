"""Who trains cannot approve or move a channel, and who promotes cannot change bytes: tried on the real server."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from twinflow_core.errors import TwinflowError
from twinflow_core.local.doctor import check_s3
from twinflow_core.local.seaweedfs import connection_as, seaweedfs_record
from twinflow_core.registry import conditional_writes
from twinflow_core.registry.duties import NotThisIdentity
from twinflow_core.registry.garbage import collect
from twinflow_core.registry.registry import Registry
from twinflow_core.registry.s3 import S3Connection, make_s3_client
from twinflow_core.registry.store import ObjectStore

BUCKET = "twinflow"
PLACES = {
    "dvc": "dvc/files/md5/aa/bb",
    "run": "runs/1/speed.json",
    "blob": "registry/shapes/blobs/sha256/aa/aa",
    "manifest": "registry/shapes/versions/aa/manifest.json",
    "decision": "registry/shapes/decisions/1.json",
    "approval": "registry/shapes/approvals/aa/production/000001.json",
    "log": "registry/shapes/channels/production/log/1.json",
    "pointer": "registry/shapes/channels/production/champion.json",
    # A star also stands for slashes: names inside a channel's folder that look like the places a trainer writes.
    "channel called decisions": "registry/shapes/channels/decisions/log/1.json",
    "versions in a log": "registry/shapes/channels/production/log/versions/1.json",
    "probe": ".twinflow-probe/1",
    "elsewhere": "other/1",
}
REFUSALS = ("denies access", "AccessDenied", "InvalidRequest")
TRAINER = {"dvc", "run", "blob", "manifest", "decision"}
PROMOTER = {"approval", "log", "pointer", "probe"}


@pytest.fixture
def as_role(service_root: Path, s3_connection: S3Connection) -> Callable[[str], ObjectStore]:
    folder = service_root / ".twinflow" / "services"
    running = seaweedfs_record(folder)
    assert running is not None
    return lambda role: ObjectStore(make_s3_client(connection_as(folder, running, role)), BUCKET)


def _may(call: Callable[[], Any]) -> bool:
    try:
        answer = call()
    except (TwinflowError, ClientError) as error:
        if any(refusal in str(error) for refusal in REFUSALS):
            return False
        raise
    return not (isinstance(answer, dict) and answer.get("Errors"))


@pytest.mark.parametrize(("role", "places"), [("trainer", TRAINER), ("promoter", PROMOTER)])
def test_each_role_writes_its_own_places_alone(
    as_role: Callable[[str], ObjectStore], role: str, places: set[str]
) -> None:
    store = as_role(role)
    name = uuid.uuid4().hex
    allowed = {
        place for place, key in PLACES.items() if _may(lambda key=key: store.put(f"{key}-{name}", b"1"))
    }
    assert allowed == places
    admin = as_role("admin")
    for place in allowed:
        admin.delete(f"{PLACES[place]}-{name}")


@pytest.mark.parametrize("role", ["trainer", "promoter"])
def test_no_way_round_to_the_history(
    as_role: Callable[[str], ObjectStore], role: str, fresh_prefix: str
) -> None:
    admin, client = as_role("admin"), as_role(role).client
    model = f"registry/{fresh_prefix.rstrip('/')}"
    entry = f"{model}/channels/production/log/1.json"
    admin.put(entry, b"history")
    admin.put(f"{model}/decisions/1.json", b"decision")
    new = f"{model}/channels/production/log/2.json" if role == "trainer" else f"{model}/versions/1"
    target: dict[str, Any] = {"Bucket": BUCKET, "Key": new}
    ways: list[Callable[[], Any]] = [
        lambda: client.put_object(**target, Body=b"1"),
        lambda: client.copy_object(
            **target, CopySource={"Bucket": BUCKET, "Key": f"{model}/decisions/1.json"}
        ),
        lambda: client.create_multipart_upload(**target),
        lambda: client.put_object(
            Bucket=BUCKET, Key=f"{model}/decisions/../{new.removeprefix(model)[1:]}", Body=b"1"
        ),
        lambda: client.delete_object(Bucket=BUCKET, Key=entry),
        lambda: client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": entry}]}),
        lambda: client.put_object_acl(Bucket=BUCKET, Key=entry, ACL="public-read-write"),
        lambda: client.put_bucket_acl(Bucket=BUCKET, ACL="public-read-write"),
        lambda: client.put_bucket_policy(Bucket=BUCKET, Policy="{}"),
        lambda: client.delete_bucket(Bucket=BUCKET),
    ]
    assert [_may(way) for way in ways] == [False] * len(ways)
    assert admin.get(entry) == b"history"
    assert admin.head(new) is None


def test_a_trainer_publishes_and_a_promoter_approves_and_promotes(
    as_role: Callable[[str], ObjectStore], tmp_path: Path
) -> None:
    model = f"model-{uuid.uuid4().hex[:12]}"
    trainer, promoter = (Registry(as_role(role), model, ["staging"]) for role in ("trainer", "promoter"))
    (tmp_path / "model.onnx").write_bytes(b"weights")
    version = trainer.publish(tmp_path, {}, {})
    decision = trainer.record_decision(
        {"candidate": version, "channel": "staging", "generation": 0, "outcome": "promote"}
    )
    with pytest.raises(NotThisIdentity, match="may not approve candidates"):
        trainer.approve("staging", version, "the trainer", "trust me")
    promoter.approve("staging", version, "ada", "looks right")
    with pytest.raises(NotThisIdentity, match="may not change the channel staging") as refused:
        trainer.promote("staging", version, decision, 0, "the trainer", "trust me")
    assert "promoter" in refused.value.fix
    assert trainer.head("staging").version is None
    promoter.promote("staging", version, decision, 0, "ada", "looks right")
    assert trainer.head("staging").version == version
    with pytest.raises(NotThisIdentity, match="may not record decisions"):
        promoter.record_decision(
            {"candidate": version, "channel": "staging", "generation": 1, "outcome": "promote"}
        )
    with pytest.raises(NotThisIdentity, match="may not publish versions"):
        promoter.publish(tmp_path, {"another": "version"}, {})
    with pytest.raises(NotThisIdentity, match="may not change the channel staging"):
        trainer.hold("staging", "the trainer", "mine")
    for each in (trainer, promoter):
        with pytest.raises(NotThisIdentity, match="may not remove anything"):
            collect(each, dry_run=False)
    promoter.hold("staging", "ada", "incident")


def test_the_doctor_tells_a_trainer_what_it_may_not(
    service_root: Path, as_role: Callable[[str], ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional_writes, "_known", {})
    folder = service_root / ".twinflow" / "services"
    running = seaweedfs_record(folder)
    assert running is not None
    for name, value in connection_as(folder, running, "trainer").environment().items():
        monkeypatch.setenv(name, value)
    found = check_s3(service_root)
    assert (found.state, "may not approve" in found.found) == ("note", True)
