# SPDX-License-Identifier: Apache-2.0
"""Launch and parameter files name executables and parameters that exist. Read as text: no ROS is needed."""

import ast
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
DDS = "{http://www.eprosima.com}"
OF_ROS = {"use_sim_time"}  # every node has it


def assigned(path: Path, name: str) -> ast.expr:
    """What a file gives to a name at its top level."""
    for statement in ast.parse(path.read_text()).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return statement.value
    raise AssertionError(f"{path} has no {name}")


def keywords(path: Path, name: str) -> list[ast.expr]:
    """What the calls in a file are given for a keyword."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [keyword.value for call in calls for keyword in call.keywords if keyword.arg == name]


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The node's parameters and their defaults, as SPECS has them."""
    specs = assigned(ROOT / "seqamodal_ros" / "ros" / "parameters.py", "SPECS")
    return {ast.literal_eval(key): ast.literal_eval(spec.args[0]) for key, spec in zip(specs.keys, specs.values, strict=True)}


def parameters(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config" / name).read_text())["/**"]["ros__parameters"]


def test_there_are_launch_files():
    assert {path.name for path in LAUNCH_FILES} == {"demo.launch.py", "perception.launch.py"}


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_each_executable_is_a_console_script(path: Path):
    strings = [node.value for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Constant)]
    scripts = {text.removesuffix(" = ") for text in strings if isinstance(text, str) and text.endswith(" = ")}
    named = {ast.literal_eval(value) for value in keywords(path, "executable")}
    assert named
    assert named <= scripts


def test_each_parameter_that_the_demo_gives_is_one_of_that_executable():
    tree = ast.parse((ROOT / "launch" / "demo.launch.py").read_text())
    given = {}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        words = {word.arg: word.value for word in call.keywords}
        if "executable" in words:
            (values,) = words["parameters"].elts
            given[ast.literal_eval(words["executable"])] = {ast.literal_eval(key) for key in values.keys}
    assert given.keys() == {"player", "recorder"}
    for executable, names in given.items():
        known = assigned(ROOT / "seqamodal_ros" / "ros" / f"{executable}.py", "PARAMETERS")
        assert names <= {ast.literal_eval(key) for key in known.keys}


def test_what_the_demo_withholds_are_arguments_of_the_node_s_launch_file():
    def strings(tree: ast.AST) -> set[str]:
        return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}

    withheld = strings(assigned(ROOT / "launch" / "demo.launch.py", "NOT_OF_THE_DEMO")) - {""}
    assert len(withheld) == 7
    assert withheld <= strings(ast.parse((ROOT / "launch" / "perception.launch.py").read_text()))


def test_each_key_of_the_parameter_file_is_a_parameter_with_its_default(defaults):
    assert parameters("perception.yaml") == defaults


def test_what_the_demo_sets_are_parameters_of_the_node(defaults):
    values = parameters("demo.yaml")
    assert values
    for name, value in values.items():
        assert type(value) is type(defaults[name])


def test_shared_memory_holds_two_frames_of_1920x1080_and_every_participant_has_it():
    profiles = ElementTree.parse(ROOT / "config" / "fastdds.xml").getroot()
    (memory,) = [each for each in profiles.iter(DDS + "transport_descriptor") if each.findtext(DDS + "type") == "SHM"]
    assert int(memory.findtext(DDS + "segment_size")) > 2 * 3 * 1920 * 1080
    (participant,) = profiles.iter(DDS + "participant")
    assert participant.get("is_default_profile") == "true"
    assert memory.findtext(DDS + "transport_id") in {each.text for each in participant.iter(DDS + "transport_id")}


@pytest.mark.parametrize("arguments,kind", [("OVERRIDES", str), ("REGION", list), ("SWITCHES", bool)])
def test_each_argument_that_overrides_is_a_parameter_of_its_kind(defaults, arguments: str, kind: type):
    names = set(ast.literal_eval(assigned(ROOT / "launch" / "perception.launch.py", arguments)))
    assert names
    assert {type(defaults[name]) for name in names - OF_ROS} == {kind}
