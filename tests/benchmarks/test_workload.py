import re
from pathlib import Path

import pytest

from benchmarks import workload
from benchmarks.errors import BenchmarkError
from benchmarks.peers import POINTSMAN, select
from benchmarks.workload import Places, build_requests, read_requests, write_requests

_PLACES = Places(Path("/run/x"), port=1, admin_port=2, v1_port=3, v2_port=4)


def test_a_request_is_built_for_each_user() -> None:
    template = 'POST /a HTTP/1.1\nHost: h\nX-User-Id: u-@USER@\n\n{"a":1}\n'
    assert build_requests(template, 2) == [
        b'POST /a HTTP/1.1\r\nHost: h\r\nX-User-Id: u-000000\r\nContent-Length: 7\r\n\r\n{"a":1}',
        b'POST /a HTTP/1.1\r\nHost: h\r\nX-User-Id: u-000001\r\nContent-Length: 7\r\n\r\n{"a":1}',
    ]


def test_a_request_without_a_body_has_no_content_length() -> None:
    assert build_requests("GET / HTTP/1.1\nHost: h\n\n", 1) == [
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    ]


def test_requests_survive_the_file_between_programs(tmp_path: Path) -> None:
    requests = [b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\nbody"]
    assert read_requests(write_requests(requests, tmp_path / "requests")) == requests


def test_places_are_filled_in() -> None:
    assert _PLACES.fill("@DIR@ @PORT@ @ADMIN_PORT@ @V1_PORT@ @V2_PORT@") == "/run/x 1 2 3 4"


def test_a_line_is_repeated_for_each_port_of_the_origin() -> None:
    places = Places(Path("/run/x"), 1, 2, 3, 4, origin_ports=(3, 4, 5))
    template = "up {\n  s@EACH_PORT@ :@EACH_PORT@\n}\nlisten @PORT@\n"
    assert places.fill(template) == "up {\n  s3 :3\n  s4 :4\n  s5 :5\n}\nlisten 1\n"


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="@NOWHERE@ is not known"):
        _PLACES.fill("listen @NOWHERE@")


def test_an_unknown_workload_is_refused_with_those_there_are() -> None:
    with pytest.raises(BenchmarkError, match=r"there are: .*json_canary"):
        workload.load("nothing")


@pytest.mark.parametrize("name", workload.names())
def test_a_workload_brings_a_config_for_each_of_its_proxies(name: str, tmp_path: Path) -> None:
    chosen = workload.load(name)
    places = Places(tmp_path, 1, 2, 3, 4, origin_ports=tuple(range(3, 3 + chosen.ports)))
    chosen.render(places)
    for peer in (POINTSMAN, *select(list(chosen.peers))):
        for argument in (*peer.arguments, *peer.environment.values()):
            filled = places.fill(argument).rpartition("=")[2]
            if filled.startswith(str(tmp_path)):
                assert Path(filled).exists(), f"{name} has nothing for {peer.name}: {argument}"
    assert not any("@PORT@" in path.read_text() for path in tmp_path.iterdir())
    requests = chosen.requests()
    assert len(set(requests)) == len(requests) == (0 if chosen.stream else chosen.users)


@pytest.mark.parametrize("config", ["pointsman.yaml", "nginx.conf", "haproxy.cfg", "envoy.yaml"])
def test_a_hundred_endpoints_are_the_same_for_every_proxy(config: str, tmp_path: Path) -> None:
    chosen = workload.load("endpoints-100")
    ports = tuple(range(20_000, 20_000 + chosen.ports))
    chosen.render(Places(tmp_path, 1, 2, *ports[:2], origin_ports=ports))
    for rendered in ((tmp_path / config).read_text(), (tmp_path / "origin.conf").read_text()):
        assert [len(re.findall(rf"\b{port}\b", rendered)) for port in ports] == [1] * 100


def test_an_upload_is_of_1_mib() -> None:
    head, _, body = workload.load("upload-1MiB").requests()[0].partition(b"\r\n\r\n")
    assert len(body) == 1024 * 1024
    assert b"\r\nContent-Length: 1048576" in head


def test_a_split_is_ready_when_its_route_answers() -> None:
    split = workload.load("json_canary")
    assert split.ready_request() == split.requests()[0]
    assert workload.load("sse").ready_request().startswith(b"GET /ready HTTP/1.1\r\n")


def test_free_ports_are_distinct() -> None:
    assert len(set(workload.free_ports(20))) == 20
