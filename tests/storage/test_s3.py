"""Large payloads in a bucket: what it holds, and how each way of being out of reach is said."""

import socket
from pathlib import Path

import pytest
from perstack.client.locations import DataFolder
from perstack.client.storage.s3 import S3Storage
from perstack.client.storage.setting import open_storage
from perstack.core.failures import StorageError, UsageError
from support.s3_server import KEY, SECRET, S3Server


def test_objects_lie_below_the_prefix_and_are_named_by_content(s3: S3Server) -> None:
    storage = S3Storage(s3.bucket, "team/a")
    ref = storage.put(b"content")
    storage.put_named("archive/job/1", b"history")
    _ = storage.storage_id
    assert s3.keys() == sorted(
        [f"team/a/{ref.sha256[:2]}/{ref.sha256[2:]}", "team/a/named/archive/job/1", "team/a/storage-id"]
    )


def test_two_prefixes_of_a_bucket_are_two_storages(s3: S3Server) -> None:
    one, two = S3Storage(s3.bucket, "one"), S3Storage(s3.bucket, "two")
    assert one.storage_id != two.storage_id
    one.put_named("a", b"of one")
    assert two.names("") == []
    with pytest.raises(StorageError, match="is not in"):
        two.get(one.put(b"content"))


def test_content_that_was_changed_in_the_bucket_is_refused(s3: S3Server) -> None:
    ref = S3Storage(s3.bucket).put(b"original")
    s3.client().put_object(Bucket=s3.bucket, Key=f"{ref.sha256[:2]}/{ref.sha256[2:]}", Body=b"tampered")
    with pytest.raises(StorageError, match="does not contain what its name says") as caught:
        S3Storage(s3.bucket).get(ref)
    assert caught.value.code == "storage.corrupt"


def test_what_was_put_a_moment_ago_costs_no_request(s3: S3Server) -> None:
    storage = S3Storage(s3.bucket)
    ref = storage.put(b"content")
    before = s3.requests.copy()
    assert storage.put(b"content") == ref
    assert storage.get(ref) == b"content"
    assert s3.requests == before


def refused(storage: S3Storage) -> list[StorageError]:
    """How every use of a storage fails."""
    uses = (
        lambda: storage.storage_id,
        lambda: storage.put(b"new"),
        lambda: storage.get("a" * 64),
        lambda: storage.put_named("a", b"new"),
        lambda: storage.get_named("a"),
        lambda: storage.names(""),
    )
    errors: list[StorageError] = []
    for use in uses:
        with pytest.raises(StorageError) as caught:
            use()
        errors.append(caught.value)
    assert {error.code for error in errors} == {"storage.unavailable"}
    assert all(f"the payload storage {storage.location} cannot be " in error.message for error in errors)
    told = " ".join(f"{error.message} {error.hint} {error.details}" for error in errors)
    assert KEY not in told
    assert SECRET not in told
    return errors


def test_a_bucket_that_does_not_exist_is_said(s3: S3Server) -> None:
    for error in refused(S3Storage("no-such-bucket-here")):
        assert "there is no bucket no-such-bucket-here" in error.message
        assert "make the bucket" in (error.hint or "")


def test_credentials_that_are_refused_are_said_with_what_they_need(s3: S3Server) -> None:
    s3.deny()
    for error in refused(S3Storage(s3.bucket)):
        assert "access was denied (AccessDenied)" in error.message
        assert "AWS_ACCESS_KEY_ID" in (error.hint or "")
        assert "s3:PutObject" in (error.hint or "")


def test_missing_credentials_are_said(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for error in refused(S3Storage(s3.bucket)):
        assert "there are no AWS credentials" in error.message
        assert "AWS_PROFILE" in (error.hint or "")


def test_a_server_that_is_away_is_said_with_its_address(s3: S3Server) -> None:
    storage = S3Storage(s3.bucket)
    s3.stop()
    for error in refused(storage):
        assert f"no connection to {s3.url}" in error.message
        assert "AWS_ENDPOINT_URL_S3" in (error.hint or "")


def test_a_server_that_is_overloaded_is_an_outage(s3: S3Server) -> None:
    s3.slow_down()
    for error in refused(S3Storage(s3.bucket)):
        assert "SlowDown (503)" in error.message


def test_an_answer_that_breaks_off_is_an_outage(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("perstack.client.storage.s3.READ_SECONDS", 0.2)
        with pytest.raises(StorageError, match="cannot be read") as caught:
            S3Storage(s3.bucket).get("a" * 64)
    assert caught.value.code == "storage.unavailable"


def test_a_storage_comes_back_with_its_server(s3: S3Server) -> None:
    storage = S3Storage(s3.bucket)
    ref = storage.put(b"content")
    s3.stop()
    with pytest.raises(StorageError):
        storage.put(b"other")
    s3.start()
    assert S3Storage(s3.bucket).get(ref) == b"content"
    assert S3Storage(s3.bucket).get(storage.put(b"other")) == b"other"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("http://bucket/prefix", "knows no storage of the kind http://"),
        ("s3://", "no valid bucket name"),
        ("s3://a", "no valid bucket name"),
        ("s3://key:password@bucket", "no valid bucket name"),
        ("s3://bucket/../other", "a prefix with other characters"),
        ("s3://bucket//x", "a prefix with other characters"),
        ("s3://bucket/x?versionId=1", "a prefix with other characters"),
        ("relative/folder", "is a relative path"),
        ("s3:bucket", "is a relative path"),
    ],
)
def test_a_setting_that_names_no_storage_is_refused_without_being_quoted(
    value: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSTACK_STORAGE", value)
    with pytest.raises(UsageError, match=complaint) as caught:
        open_storage(DataFolder(tmp_path))
    assert caught.value.code == "storage.setting"
    assert "password" not in str(caught.value)
    assert "s3://bucket/prefix" in (caught.value.hint or "")


def test_an_aws_profile_that_is_not_there_is_a_wrong_setting(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("PERSTACK_STORAGE", f"s3://{s3.bucket}")
    with pytest.raises(UsageError, match="nobody") as caught:
        open_storage(DataFolder(tmp_path))
    assert caught.value.code == "storage.setting"
    assert "AWS_PROFILE" in (caught.value.hint or "")


def test_without_a_setting_payloads_lie_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERSTACK_STORAGE", raising=False)
    data = DataFolder(tmp_path)
    storage = open_storage(data)
    storage.put_named("a", b"content")
    assert (data.storage / "named" / "a").read_bytes() == b"content"
    assert storage.location == str(data.storage)


def test_the_same_bucket_is_one_storage_however_its_prefix_ends(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataFolder(Path("/nowhere"))
    monkeypatch.setenv("PERSTACK_STORAGE", f"s3://{s3.bucket}/team/")
    one = open_storage(data)
    monkeypatch.setenv("PERSTACK_STORAGE", f"S3://{s3.bucket}/team")
    assert open_storage(data).storage_id == one.storage_id
