"""
The tree is the architecture: which module may import which, and how large it may grow.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "outbox_relay"

KERNEL = {
    "errors",
    "schema",
    "events",
    "compression",
    "credentials",
    "wake",
    "native",
    "handles",
    "inbox_schema",
    "lazy_names",
    "python_cqrs",
    "_version",
}
CONFIG = {"config", "config_checks", "config_combinations", "config_text"}
EDGE = {
    *CONFIG,
    "adoption",
    "adoption_move",
    "adoption_prepare",
    "admin",
    "autogenerate",
    "logs",
    "metrics",
    "metric_kinds",
    "tracing",
    "migrate",
    "migration_locks",
    "http",
    "liveness",
    "systemd",
    "operations",
    "shown",
    "wake_listener",
}
TOP = {"cli", "demo", "__main__"}

# What the first part of a module's name may import besides itself. `` is the package's own
# __init__: the public names.
ALLOWED: dict[str, set[str]] = {
    **{name: set(KERNEL) for name in KERNEL},
    "": {*KERNEL, "outbox", "relay", "consumer"},
    "outbox": set(KERNEL),
    "consumer": set(KERNEL),
    "django": {*KERNEL, "outbox"},
    "relay": set(KERNEL),
    "store": {*KERNEL, "relay"},
    "brokers": {*KERNEL, "relay"},
    "testing": {*KERNEL, "relay"},
    "cqrs": {*KERNEL, "outbox", "relay", "store", "brokers"},
    **{name: {*KERNEL, "relay", "store", "brokers", *EDGE} for name in EDGE},
    "admin": {*KERNEL, "relay", "store", *EDGE, "doctor"},
    # Reads the envelopes that consumers read.
    "audit": {*KERNEL, "relay", "consumer"},
    "wiring": {*KERNEL, "relay", "store", "brokers", "audit", *EDGE, "doctor"},
    "doctor": {*KERNEL, "relay", "store", "brokers", *EDGE},
    "cli": {*KERNEL, "relay", "store", "brokers", "audit", *EDGE, "wiring", "demo", "doctor"},
    "demo": {"", *KERNEL, "outbox", "consumer", "relay", "store", "brokers", *EDGE, "wiring"},
    "__main__": {"cli"},
}
# A look at a broker is of that broker's kind; it takes the adapter's log-in, and nothing that publishes.
LOOKS = {"doctor.look.kafka", "doctor.look.amqp", "doctor.look.redis"}
MAY_NAME_ADAPTERS = {"wiring", "testing", "demo", "cli.demo", "cqrs", *LOOKS}
ADAPTERS = {"store", "brokers"}
# Of an adapter, what others may import: its options, and how any engine logs in to a database.
SHARED = (".options", "store.login")

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 55
VAGUE_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}
HEAVY = {
    "aio_pika",
    "aiokafka",
    "alembic",
    "confluent_kafka",
    "opentelemetry",
    "prometheus_client",
    "redis",
    "rich",
    "starlette",
    "typer",
    "uvicorn",
    "uvloop",
}


def modules() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """The module's name inside the package: `relay.ports`, `relay`, `` for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def part(name: str) -> str:
    """The layer's part that a module belongs to."""
    return name.split(".", maxsplit=1)[0]


def imports(path: Path) -> Iterator[str]:
    """Names inside the package that *path* imports, also inside functions and type checks."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (inside(alias.name) for alias in node.names if ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and ours(node.module):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield inside(full if is_module(full) else node.module)


def ours(name: str) -> bool:
    """Whether the imported name is of this package."""
    return name.split(".", maxsplit=1)[0] == PACKAGE.name


def inside(name: str) -> str:
    """`outbox_relay.relay.ports` -> `relay.ports`."""
    return name.removeprefix(PACKAGE.name).removeprefix(".")


def is_module(name: str) -> bool:
    """Whether *name* is a module or package of ours, not a name in one."""
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def repository_files() -> list[Path]:
    """Every text file that is in the repository or about to be added."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:1000]]


def lines_that_match(pattern: str) -> list[str]:
    """file:line of each match in the repository."""
    wanted = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in repository_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if wanted.search(line)
    ]


def test_every_module_has_a_place():
    """
    A new part of the package is first given its layer here.
    """
    assert {part(dotted(path)) for path in modules()} - ALLOWED.keys() == set()


def test_imports_point_one_way():
    """
    Kernel <- write side; kernel <- relay core <- adapters <- edge <- wiring <- command line, demo.

    Adapters never import one another, and the write side imports nothing but the kernel.
    """
    wrong = [
        f"{dotted(path) or 'outbox_relay'} imports {name or 'outbox_relay'}"
        for path in modules()
        for name in imports(path)
        if part(name) != part(dotted(path)) and part(name) not in ALLOWED[part(dotted(path))]
    ]

    assert wrong == []


def test_only_wiring_names_concrete_adapters():
    """
    Elsewhere an adapter is known by its port; only what `SHARED` names is shared.
    """
    wrong = [
        f"{dotted(path)} imports {name}"
        for path in modules()
        for name in imports(path)
        if part(name) in ADAPTERS
        and part(dotted(path)) != part(name)
        and not name.endswith(SHARED)
        and not {dotted(path), part(dotted(path))} & MAY_NAME_ADAPTERS
    ]

    assert wrong == []


def test_doctor_can_neither_publish_nor_mark():
    """
    It looks: of the adapters it takes how they log in, their options, and the words for errors.
    """
    allowed = (
        ".options",
        "_errors",
        "brokers.security",
        "brokers.topics",
        "_client",
        "store.login",
    )
    taken = {
        name
        for path in modules()
        if part(dotted(path)) == "doctor"
        for name in imports(path)
        if part(name) in ADAPTERS
    }

    assert [name for name in sorted(taken) if not name.endswith(allowed)] == []


def test_the_rules_of_doctor_are_pure():
    """
    They decide from facts: no connection, no file, no clock.
    """
    pure = [path for path in modules() if dotted(path).startswith("doctor.rules")]
    known = {name for path in pure for name in imports(path)}

    assert {name for name in known if name.startswith(("doctor.look", "migrate", "store"))} == set()
    assert not any(
        word in path.read_text()
        for path in pure
        for word in ("import asyncio", "import time", "import socket", "pathlib", "open(")
    )


def test_imports_are_seen_in_functions_and_by_module_name():
    """
    The reading of imports itself: this module's own rules would be worth nothing if it were blind.
    """
    seen = set(imports(PACKAGE / "wiring.py"))

    assert "config" in seen
    assert "cli.app" in set(imports(PACKAGE / "__main__.py"))


def test_using_the_write_side_loads_neither_kafka_nor_http():
    """
    An application that only writes events pays for nothing else, and needs no extra.
    """
    program = f"""
import sys
from outbox_relay import NotificationEvent, Outbox, ZlibCompressor
class OrderPlaced(NotificationEvent, name="order.placed", topic="orders", key="order_id"):
    order_id: int
Outbox(source="/shop").insert(OrderPlaced(order_id=1))
loaded = {{name.split(".")[0] for name in sys.modules}} & {HEAVY!r}
layers = {{n for n in sys.modules if n.startswith(("outbox_relay.relay", "outbox_relay.store",
    "outbox_relay.brokers", "outbox_relay.http", "outbox_relay.cli", "outbox_relay.config"))}}
print(sorted(loaded | layers))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path):
    """
    A module has at most 400 lines, a function at most 55.
    """
    source = path.read_text()
    functions = [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]

    assert len(source.splitlines()) <= MAX_MODULE_LINES
    assert [item for item in functions if item[1] > MAX_FUNCTION_LINES] == []


def test_no_module_has_a_vague_name():
    """
    A module is named after what it holds.
    """
    assert [path.name for path in repository_files() if path.name in VAGUE_NAMES] == []


def test_the_package_is_typed():
    """
    py.typed tells type checkers to read our annotations.
    """
    assert (PACKAGE / "py.typed").is_file()


def test_nothing_is_left_to_do():
    """
    No file holds a note of work to do: work that is known is an issue.
    """
    assert lines_that_match(r"\b(TO[D]O|FIX[M]E|X[X]X)\b") == []


def test_no_file_names_a_path_of_one_machine():
    """
    The repository works wherever it is cloned.
    """
    folders = "|".join(["work", "root", "home"])

    assert lines_that_match(rf"(?<![\w.$}}])/({folders})/\w|(?<!\w)/tmp/[vh]/") == []
