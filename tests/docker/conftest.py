"""What these tests share: the programs they run, and the options that other programs would read."""

import importlib
import shutil
import sysconfig
import warnings

import pytest
from tiny import missing


def read_options(command):
    if command[:2] == ["python", "-m"]:
        program, rest = importlib.import_module(command[2]).main, command[3:]
    elif command[0] == "analysis":
        from analysis.cli import main

        program, rest = main.commands[command[1]], command[2:]
    elif command[:2] == ["mlflow", "server"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own, when its server is imported
            from mlflow.cli import server as program
        rest = command[2:]
    elif command[:2] == ["ray", "start"]:
        from ray.scripts.scripts import start as program

        rest = command[2:]
    else:
        raise AssertionError(f"no test knows the command {command}")
    return program.make_context(program.name, list(rest)).params


@pytest.fixture(scope="session")
def parse():
    """A function that has a command's own program read its options; nothing is run. An unknown option raises."""
    return read_options


@pytest.fixture(scope="session")
def tool():
    """A function that finds a program, or skips the test that needs it."""

    def find(name, install):
        path = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
        return path or missing(f"{name} is not installed: {install}")

    return find


@pytest.fixture(scope="session")
def package():
    """A function that imports a package, or skips the test that needs it."""

    def find(name, install):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            return missing(f"{error}: {install}")

    return find
