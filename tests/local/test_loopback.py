from __future__ import annotations

import socket

from twinflow_core.local.loopback import GRPC_OFFSET, HOST, free_ports, is_free, read_url


def test_chosen_ports_are_free_and_low_enough_for_their_neighbours() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(is_free(port) and port + GRPC_OFFSET < 32768 for port in ports)


def test_a_port_is_taken_if_its_neighbour_is() -> None:
    (port,) = free_ports(1)
    with socket.socket() as listener:
        listener.bind((HOST, port + GRPC_OFFSET))
        listener.listen()
        assert not is_free(port)


def test_nobody_answering_is_none() -> None:
    (port,) = free_ports(1)
    assert read_url(f"http://{HOST}:{port}/") is None
    assert read_url("no address") is None
