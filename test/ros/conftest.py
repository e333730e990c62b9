# SPDX-License-Identifier: Apache-2.0
"""Real nodes over real Fast DDS, on a domain of their own. Test modules skip where ROS is missing, and say so."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MODULES = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def ros_domain() -> None:
    """A domain that other tests, and other people on the network, are not in.

    One for each module: on one domain, processes find only so many participants, and those of earlier nodes may still count.
    """
    os.environ["ROS_DOMAIN_ID"] = str(10 + (os.getpid() + next(MODULES)) % 90)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture(autouse=True)
def patient_watchdog(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of this very process are not ended where a test holds their worker; those of processes of their own are."""
    if "test_heartbeat" not in request.module.__name__:
        monkeypatch.setattr("seqamodal_ros.ros.heartbeat.LEAST", 600.0)


@pytest.fixture(scope="session")
def eager_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained model that sees something everywhere, so that each frame has layers."""
    import torch

    from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
    from seqamodal_ros.diffusion.weights import ModelSettings, save_model

    torch.manual_seed(0)
    settings = FastSettings(encoder_channels=(8, 8, 8, 8), denoiser_channels=(8, 8, 8))
    network = FastNetwork(settings)
    torch.nn.init.constant_(network.denoiser.out[-1].bias, 3.0)
    path = tmp_path_factory.mktemp("models") / "eager.safetensors"
    save_model(path, network.state_dict(), ModelSettings(settings))
    return path


@pytest.fixture
def bench(eager_model: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """Makes benches with the eager model on the CPU, unless told otherwise, and closes them; stderr goes to a file."""
    from harness import Bench

    made: list[Bench] = []

    def make(**parameters: Any) -> Bench:
        made.append(Bench(**{"model": str(eager_model), "device": "cpu", **parameters}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def peer() -> Iterator[Any]:
    """A camera and consumer for a node in another process; the test spins it."""
    import rclpy
    from harness import Peer

    context = rclpy.Context()
    rclpy.init(context=context)
    node = Peer(context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts one of our executables as a process, with `name:=value` parameters; its output is piped."""
    started: list[subprocess.Popen] = []

    def run(module: str, *parameters: str, **environment: str) -> subprocess.Popen:
        arguments = [item for parameter in parameters for item in ("-p", parameter)]
        command = [sys.executable, "-m", f"seqamodal_ros.ros.{module}", "--ros-args", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(command, text=True, env={**os.environ, **environment}, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()
