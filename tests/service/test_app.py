"""Good requests get the generator's own picture; bad ones are told why; too many are told when to come back."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.service_load import pixels, post
from twinflow_core.errors import TwinflowError
from twinflow_core.runtime.generator import Generator
from twinflow_core.service import body_limit
from twinflow_core.service.app import Limits
from twinflow_core.service.body_limit import LARGEST_BODY
from twinflow_core.service.server import listen, make_server

pytestmark = pytest.mark.slow


@contextmanager
def served(generator: Generator, limits: Limits) -> Iterator[str]:
    """The address of a service in a thread."""
    listening = listen("127.0.0.1", 0)
    server = make_server(generator, limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield "{}:{}".format(*listening.getsockname())
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def generator(sized_package: Path) -> Generator:
    return Generator.from_folder(sized_package, "cpu", threads=1, batch=4)


@pytest.fixture(scope="module")
def address(generator: Generator) -> Iterator[str]:
    with served(generator, Limits(batch=4)) as where:
        yield where


@pytest.fixture
def connection(address: str) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection(address, timeout=30)
    yield made
    made.close()


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, dict[str, str], bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.mark.parametrize(
    ("prompt", "seed", "steps"), [("a red circle", 0, 1), ("", 7, 2), ("wörds ☆", 2**53 - 1, 1)]
)
def test_an_image_is_the_generators_own(
    connection: http.client.HTTPConnection, generator: Generator, prompt: str, seed: int, steps: int
) -> None:
    status, headers, body = post(connection, {"prompt": prompt, "seed": seed, "steps": steps})
    assert status == 200
    assert headers["content-type"] == "image/png"
    assert headers["x-twinflow-version"] == generator.serving.release.version
    assert float(headers["x-twinflow-milliseconds"]) > 0
    expected = generator.generate([prompt], seed, steps)[0].astype(int)
    assert np.abs(pixels(body).astype(int) - expected).max() <= 1


def test_sizes_that_are_asked_for_together_are_each_drawn(address: str, generator: Generator) -> None:
    sizes = ["64x32", None, "32x32", "64x32"]

    def ask(size: str | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address, timeout=30)
        status, _, body = post(connection, {"prompt": "a red circle", "seed": 4, "size": size})
        connection.close()
        return status, body

    with ThreadPoolExecutor(len(sizes)) as people:
        answers = list(people.map(ask, sizes))
    for size, (status, body) in zip(sizes, answers, strict=True):
        expected = generator.generate(["a red circle"], 4, size=size)[0].astype(int)
        assert (status, expected.shape) == (200, (32, 64 if size == "64x32" else 32, 3))
        assert np.abs(pixels(body).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff\xfe", "body"),
        ({}, "body.prompt"),
        ({"prompt": 3}, "body.prompt"),
        ({"prompt": None}, "body.prompt"),
        (b'{"prompt": "\\ud800"}', "body.prompt"),
        ({"prompt": "a" * 2001}, "body.prompt"),
        ({"prompt": "a", "seed": -1}, "body.seed"),
        ({"prompt": "a", "seed": 2**53}, "body.seed"),
        ({"prompt": "a", "seed": 0.5}, "body.seed"),
        ({"prompt": "a", "seed": "1"}, "body.seed"),
        (b'{"prompt": "a", "seed": NaN}', "body"),
        ({"prompt": "a", "steps": 0}, "body.steps"),
        ({"prompt": "a", "version": "other"}, "body.version"),
        ({"prompt": "a", "size": 64}, "body.size"),
        ({"prompt": "a", "size": "48x32"}, "size"),
        ({"prompt": "a", "negative_prompt": "b"}, "body.negative_prompt"),
    ],
)
def test_bad_input_is_told_where(
    connection: http.client.HTTPConnection, generator: Generator, document: object, where: str
) -> None:
    status, headers, body = post(connection, document)
    assert status == 422
    error = json.loads(body)["error"]
    assert error["where"].startswith(where)
    assert error["what"]
    assert headers["x-twinflow-version"] == generator.serving.release.version


def test_unknown_steps_and_versions_are_told_what_there_is(connection: http.client.HTTPConnection) -> None:
    status, _, body = post(connection, {"prompt": "a", "steps": 3})
    assert status == 422
    assert "1, 2" in json.loads(body)["error"]["fix"]
    status, _, body = post(connection, {"prompt": "a", "version": "previous"})
    assert status == 404
    assert "no previous version" in json.loads(body)["error"]["what"]


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_body_is_refused_before_it_is_read(address: str, announced: bool) -> None:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.putrequest("POST", "/images")
    connection.putheader("Content-Type", "application/json")
    if announced:
        connection.putheader("Content-Length", str(1 << 40))
        connection.endheaders()
    else:
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for _ in range(2 + LARGEST_BODY // 4096):
            connection.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
    answer = connection.getresponse()
    assert answer.status == 413
    assert "larger than" in json.loads(answer.read())["error"]["what"]
    assert answer.headers["x-twinflow-version"]
    connection.close()


def test_what_is_served_is_told(connection: http.client.HTTPConnection, generator: Generator) -> None:
    version = generator.serving.release.version
    status, headers, body = get(connection, "/health")
    assert (status, headers["x-twinflow-version"]) == (200, version)
    assert json.loads(body) == {
        "status": "serving",
        "version": version,
        "generation": 0,
        "channel": "followed",
    }
    model = json.loads(get(connection, "/model")[2])
    assert (model["steps"], model["resolution"], model["previous"]) == ([1, 2], 32, None)
    assert model["sizes"] == ["32x32", "64x32"]
    described = json.loads(get(connection, "/openapi.json")[2])
    assert set(described["paths"]) == {"/images", "/health", "/model", "/metrics"}
    assert {"200", "404", "413", "422", "429", "503"} <= set(
        described["paths"]["/images"]["post"]["responses"]
    )
    _, headers, _ = get(connection, "/")
    assert "default-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/images", 405)])
def test_wrong_addresses_are_told_like_wrong_input(
    connection: http.client.HTTPConnection, path: str, status: int
) -> None:
    found, headers, body = get(connection, path)
    assert found == status
    assert json.loads(body)["error"]["where"] == path
    assert headers["x-twinflow-version"]


def test_a_body_that_exhausts_the_parser_is_wrong_input(connection: http.client.HTTPConnection) -> None:
    status, _, body = post(connection, b"[" * 30000)
    assert status == 400
    assert "body" in json.loads(body)["error"]["what"]


def test_metrics_count(connection: http.client.HTTPConnection, generator: Generator) -> None:
    name = f'twinflow_images_total{{version="{generator.serving.release.version[:12]}"}}'
    before = metrics(connection).get(name, 0)
    for seed in range(3):
        post(connection, {"prompt": "a", "seed": seed})
    post(connection, {})
    after = metrics(connection)
    assert after[name] == before + 3
    assert after['twinflow_requests_total{status="422"}'] >= 1
    assert after["twinflow_admitted"] == 0
    assert after["process_resident_memory_bytes"] > 1e7


def metrics(connection: http.client.HTTPConnection) -> dict[str, float]:
    lines = get(connection, "/metrics")[2].decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_requests_that_arrive_together_are_drawn_together(generator: Generator) -> None:
    expected = generator.generate(["a red circle"], seed=5)[0].astype(int)
    with served(generator, Limits(batch=4, patience_seconds=0.3)) as where:
        answers = at_once(where, 4, {"prompt": "a red circle", "seed": 5})
    assert {status for status, _, _ in answers} == {200}
    assert max(int(headers["x-twinflow-batch"]) for _, headers, _ in answers) > 1
    for _, _, body in answers:
        assert np.abs(pixels(body).astype(int) - expected).max() <= 1


def test_too_many_are_told_when_to_come_back(generator: Generator) -> None:
    with served(generator, Limits(batch=1, patience_seconds=0.2, admitted=3)) as where:
        answers = at_once(where, 12, {"prompt": "a", "seed": 1})
        statuses = Counter(status for status, _, _ in answers)
        assert set(statuses) == {200, 429}
        assert statuses[200] >= 3
        assert all(int(headers["retry-after"]) >= 1 for status, headers, _ in answers if status == 429)
        assert all(headers["x-twinflow-version"] for _, headers, _ in answers)
        # Those that were turned away left nothing behind.
        assert at_once(where, 1, {"prompt": "a", "seed": 1})[0][0] == 200


def test_who_hangs_up_is_not_drawn_for(generator: Generator) -> None:
    with served(generator, Limits(batch=1, patience_seconds=0.0, admitted=4)) as where:
        for _ in range(20):
            connection = http.client.HTTPConnection(where, timeout=30)
            body = json.dumps({"prompt": "a"})
            connection.request("POST", "/images", body, {"Content-Type": "application/json"})
            connection.close()
        deadline = time.monotonic() + 20
        with_room = http.client.HTTPConnection(where, timeout=30)
        # The server may read some of the twenty only now, so room may come and go before it stays.
        while post(with_room, {"prompt": "a"})[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        while metrics(with_room)["twinflow_admitted"] > 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with_room.close()


def test_a_body_that_does_not_come_is_not_waited_for(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limit, "SLOWEST_BODY_SECONDS", 0.2)
    with served(generator, Limits()) as where:
        connection = http.client.HTTPConnection(where, timeout=30)
        connection.putrequest("POST", "/images")
        connection.putheader("Content-Length", "20")
        connection.endheaders(b'{"prompt"')
        answer = connection.getresponse()
        assert answer.status == 408
        assert "did not arrive" in json.loads(answer.read())["error"]["what"]
        assert answer.headers["x-twinflow-version"]
        connection.close()


def test_a_taken_address_is_refused(address: str) -> None:
    with pytest.raises(TwinflowError, match="cannot listen"):
        listen("127.0.0.1", urlsplit(f"//{address}").port or 0)


def at_once(where: str, count: int, document: object) -> list[tuple[int, dict[str, str], bytes]]:
    """Answers to equal requests on as many connections."""
    answers: list[tuple[int, dict[str, str], bytes]] = []

    def ask() -> None:
        connection = http.client.HTTPConnection(where, timeout=30)
        answers.append(post(connection, document))
        connection.close()

    run_together(ask, count)
    assert len(answers) == count
    return answers


def run_together(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
