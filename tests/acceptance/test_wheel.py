"""
What a user gets with `pip install`: the wheel, not the source tree.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.services.wheel import ROOT, InstalledWheel, install_wheel


@pytest.fixture
def bare_wheel(wheel: Path, tmp_path: Path) -> InstalledWheel:
    """The wheel without any of the packages that it may use."""
    return install_wheel(wheel, tmp_path, with_dependencies=False)


def test_the_migrations_travel_in_the_wheel(wheel):
    """
    Each file of migrations/ is in the wheel as outbox_relay/_migrations.
    """
    folder = ROOT / "migrations"
    sources = {
        f"outbox_relay/_migrations/{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if "/_migrations/" in name}

    assert any(name.endswith(".py") for name in sources)
    assert sources <= packed


def test_the_types_travel_in_the_wheel(wheel):
    """
    py.typed is in the wheel, so that a user's type checker reads our annotations.
    """
    with ZipFile(wheel) as archive:
        names = archive.namelist()

    assert "outbox_relay/py.typed" in names


def test_the_wheel_holds_only_the_package(wheel):
    """
    Tests, benchmarks and docs stay out of an application's site-packages.
    """
    with ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"outbox_relay"}


def test_the_installed_package_is_not_the_source_tree(installed_wheel):
    """
    What the acceptance tests run comes from the wheel.
    """
    done = installed_wheel.run(
        installed_wheel.python, "-c", "import outbox_relay; print(outbox_relay.__file__)"
    )

    assert done.returncode == 0, done.stderr
    assert ROOT not in Path(done.stdout.strip()).parents


def test_the_command_tells_its_version(installed_wheel):
    """
    `outbox-relay --version` prints the version of the package.
    """
    from outbox_relay import __version__

    done = installed_wheel.run(installed_wheel.command, "--version")

    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout


def test_the_command_and_the_module_are_one(installed_wheel):
    """
    `python -m outbox_relay` is the same program.
    """
    done = installed_wheel.run(installed_wheel.python, "-m", "outbox_relay", "--version")

    assert done.returncode == 0, done.stderr
    assert done.stdout == installed_wheel.run(installed_wheel.command, "--version").stdout


def test_the_installed_wheel_migrates_a_database(installed_wheel):
    """
    `outbox-relay migrate` finds its scripts in the wheel.
    """
    config = installed_wheel.home / "config.toml"
    config.write_text(
        '[database]\nurl = "sqlite+aiosqlite:///shop.db"\n'
        '[kafka]\nbootstrap_servers = "127.0.0.1:9092"\n'
    )
    done = installed_wheel.run(installed_wheel.command, "migrate", "--config", config)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (installed_wheel.home / "shop.db").exists()


def test_without_its_extra_the_command_says_which_one_to_install(bare_wheel):
    """
    Run where only the library is installed, the command names the extra and leaves with 2.
    """
    done = bare_wheel.run(bare_wheel.command, "run")

    assert done.returncode == 2
    assert "outbox-relay[relay]" in done.stderr
    assert "Traceback" not in done.stderr
