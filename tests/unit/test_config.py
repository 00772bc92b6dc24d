"""
Configuration: one order of sources, everything checked at once, no secret shown.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outbox_relay import config as config_module
from outbox_relay.cli.app import app
from outbox_relay.cli.exits import Exit
from outbox_relay.config import (
    Config,
    environment_name,
    find_config,
    load_config,
    setting_types,
)
from outbox_relay.config_text import EXAMPLES, example_toml, settings
from outbox_relay.errors import ConfigError

ENVIRON = {
    "OUTBOX_RELAY_DATABASE__URL": "mysql+asyncmy://ob:geheim@db/shop",
    "OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092",
}


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(
    path: Path | None = None,
    environ: dict[str, str] | None = None,
    flags: dict[str, str] | None = None,
) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_config(path, ENVIRON if environ is None else environ, flags)
    return raised.value.problems


def test_environment_wins_over_the_file_and_flags_over_both(tmp_path: Path) -> None:
    """
    config.toml, then environment, then flags: the last one wins, and each origin is kept.
    """
    path = write(tmp_path, "[relay]\nchunk_rows = 1\nsample_seconds = 1\npoll_seconds = 1\n")
    environ = ENVIRON | {
        "OUTBOX_RELAY_RELAY__SAMPLE_SECONDS": "2",
        "OUTBOX_RELAY_RELAY__POLL_SECONDS": "2",
    }
    loaded = load_config(path, environ, {"relay.poll_seconds": "3"})

    relay = loaded.relay
    assert (relay.chunk_rows, relay.sample_seconds, relay.poll_seconds) == (1, 2.0, 3.0)
    assert loaded.origins["relay.chunk_rows"] == str(path)
    assert (
        loaded.origins["relay.sample_seconds"] == "environment: OUTBOX_RELAY_RELAY__SAMPLE_SECONDS"
    )
    assert loaded.origins["relay.poll_seconds"] == "flag"


def test_the_environment_alone_is_enough() -> None:
    """
    Without a file, two variables are all that a relay needs.
    """
    loaded = load_config(None, ENVIRON)

    assert loaded.kafka.bootstrap_servers == "kafka:9092"
    assert loaded.http.port == 9464


def test_every_setting_has_an_environment_variable() -> None:
    """
    OUTBOX_RELAY_<SECTION>__<KEY>, for each key.
    """
    assert environment_name("http.port") == "OUTBOX_RELAY_HTTP__PORT"
    assert all(environment_name(key).count("__") == 1 for key in setting_types())


def test_all_problems_are_told_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    """
    Each line says where a wrong setting stands, and what was probably meant.
    """
    path = write(
        tmp_path,
        "[relay]\nchunk_rwos = 5\nlease_seconds = 5\nin_flight_rows = 'x'\n[htpp]\nport = 1\n"
        "[log]\nlevel = 'loud'\n",
    )
    found = problems(path, ENVIRON | {"OUTBOX_RELAY_HTTP_PORT": "9000"}, {"relay.x": "1"})

    assert found == [
        f"{path}: relay.chunk_rwos is not a setting (did you mean relay.chunk_rows?)",
        f'{path}: relay.in_flight_rows = "x" must be a whole number',
        f"{path}: [htpp] is not a section (did you mean http?)",
        f'{path}: log.level = "loud" must be one of debug, info, warning, error',
        "environment: OUTBOX_RELAY_HTTP_PORT is not a setting "
        "(did you mean OUTBOX_RELAY_HTTP__PORT?)",
        "flag: relay.x is not a setting",
        f"{path}: relay.lease_seconds = 5.0 must be greater than kafka.publish_deadline_seconds "
        "= 10.0, else two relays publish the same event",
    ]


def test_a_number_in_quotes_is_wrong_in_the_file_and_right_in_the_environment(
    tmp_path: Path,
) -> None:
    """
    TOML has types; the environment has only text.
    """
    path = write(tmp_path, '[relay]\nchunk_rows = "500"\n')
    environ = {"OUTBOX_RELAY_RELAY__CHUNK_ROWS": "500", "OUTBOX_RELAY_HTTP__ENABLED": "false"}
    loaded = load_config(None, ENVIRON | environ)

    assert problems(path) == [f'{path}: relay.chunk_rows = "500" must be a whole number']
    assert (loaded.relay.chunk_rows, loaded.http.enabled) == (500, False)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("relay.chunk_rows", "abc", '"abc" must be a whole number'),
        ("relay.chunk_rows", "1.5", '"1.5" must be a whole number'),
        ("relay.poll_seconds", "nan", '"nan" must be a number'),
        ("relay.poll_seconds", "inf", '"inf" must be a number'),
        ("relay.stop_seconds", "0", "0.0 must be greater than 0"),
        ("kafka.idempotent", "perhaps", '"perhaps" must be true or false'),
        ("kafka.compression", "lzma", '"lzma" must be one of none, gzip, snappy, lz4, zstd'),
        ("http.port", "70000", "70000 must be from 0 to 65535"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(key: str, value: str, expected: str) -> None:
    """
    A value of another type, or outside its range, is told by the name under which it was given.
    """
    name = environment_name(key)

    assert problems(environ=ENVIRON | {name: value}) == [f"environment: {name} = {expected}"]


def test_an_empty_host_is_refused() -> None:
    """
    An empty address would listen on all of them, unasked.
    """
    assert problems(flags={"http.host": ""}) == [
        "flag: http.host is required, such as 127.0.0.1 or 0.0.0.0"
    ]


def test_nan_in_the_file_is_refused(tmp_path: Path) -> None:
    """
    TOML knows nan, and nan passes every comparison with a limit.
    """
    path = write(tmp_path, "[relay]\npoll_seconds = nan\n")

    assert problems(path) == [f"{path}: relay.poll_seconds = nan must be a number"]


def test_a_section_must_be_a_table(tmp_path: Path) -> None:
    """
    A value where a section belongs, or a table where a value belongs, is told and not shown.
    """
    path = write(tmp_path, "relay = 3\n[http]\nport = { a = 1 }\n")

    assert problems(path) == [
        f"{path}: relay must be a section, [relay]",
        f"{path}: http.port = a table or list must be a whole number",
    ]


def test_required_settings_are_named_when_nothing_is_given() -> None:
    """
    Without any source, the two settings without a default are asked for.
    """
    found = problems(environ={})

    assert [line.split(" is required")[0] for line in found] == [
        "configuration: database.url",
        "configuration: kafka.bootstrap_servers",
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """
    A missing file, a file that is not text and a syntax error each name the file.
    """
    missing = tmp_path / "none.toml"
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    broken = write(tmp_path, "[relay\n")

    assert problems(missing) == [f"{missing}: cannot be read (No such file or directory)"]
    assert problems(binary) == [f"{binary}: is not UTF-8 text"]
    assert problems(broken)[0].startswith(f"{broken}: is not TOML: ")
    assert "line 1" in problems(broken)[0]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://ob:geheim@db/shop", "use mysql+asyncmy://"),
        ("mysql+pymysql://ob:geheim@db/shop", "use mysql+asyncmy://"),
        ("mariadb://ob:geheim@db/shop", "use mariadb+asyncmy://"),
        ("sqlite:////geheim.db", "use sqlite+aiosqlite://"),
        ("sqlite+aiosqlite://", "names no file"),
        ("sqlite+aiosqlite:///:memory:", "names no file"),
        ("oracle://ob:geheim@db/shop", "not served"),
        ("mysql+asyncmy://ob:geheim@db", "names no database"),
        ("geheim", "is not a URL"),
        ("mysql+asyncmy://ob:geheim@db:port/shop", "is not a URL"),
    ],
)
def test_a_wrong_url_is_explained_without_its_text(url: str, expected: str) -> None:
    """
    I11. What is wrong with the URL is said; the URL is not, since it may hold a password.
    """
    (found,) = problems(flags={"database.url": url})

    assert expected in found
    assert "geheim" not in found


def test_a_url_of_the_wrong_type_is_not_shown(tmp_path: Path) -> None:
    """
    I11. Neither a list nor an unparseable text shows through.
    """
    path = write(tmp_path, "[database]\nurl = ['geheim']\n")

    assert problems(path, {"OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS": "k:1"}) == [
        f'{path}: database.url = "(hidden)" must be text'
    ]


def test_no_form_of_the_configuration_shows_the_password() -> None:
    """
    I11. repr, str and the list of settings hide it, also among the URL's parameters.
    """
    url = "mysql+asyncmy://ob:geheim@db/shop?ssl_password=geheim&charset=utf8mb4"
    loaded = load_config(None, ENVIRON | {"OUTBOX_RELAY_DATABASE__URL": url})
    shown = repr(loaded) + str(loaded) + str(list(loaded.settings()))

    assert "geheim" not in shown
    assert "ob:***@db/shop" in shown
    assert "charset=utf8mb4" in shown


def test_a_table_name_must_be_a_plain_identifier() -> None:
    """
    The name becomes part of SQL text.
    """
    (found,) = problems(flags={"database.table": "out box; --"})

    assert found.startswith("flag: database.table: ")


def test_a_schema_must_be_a_plain_identifier() -> None:
    """
    As the table's name; each wrong name is told with its own key.
    """
    wrong = problems(flags={"database.schema": "shop`; --", "database.table": "out box"})
    fine = load_config(None, ENVIRON | {"OUTBOX_RELAY_DATABASE__SCHEMA": "Shop$Events"})

    assert [text.split(" ")[1] for text in wrong] == ["database.table:", "database.schema:"]
    assert fine.database.schema == "Shop$Events"


def test_sqlite_has_no_schema() -> None:
    """
    The tables are in the file that the URL names, or in none that the relay could find.
    """
    (found,) = problems(
        flags={"database.url": "sqlite+aiosqlite:///shop.db", "database.schema": "other"}
    )

    assert "database.schema is for database servers" in found


def test_variables_that_kubernetes_adds_are_not_ours() -> None:
    """
    A Service called outbox-relay puts its address into the environment of each pod.
    """
    kubernetes = {
        "OUTBOX_RELAY_PORT": "tcp://10.0.0.1:9464",
        "OUTBOX_RELAY_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "OUTBOX_RELAY_PORT_9464_TCP_ADDR": "10.0.0.1",
        "OUTBOX_RELAY_SERVICE_HOST": "10.0.0.1",
        "OUTBOX_RELAY_METRICS_SERVICE_PORT_HTTP": "9464",
        "OUTBOX_RELAY_CONFIG": "somewhere.toml",
    }

    assert load_config(None, ENVIRON | kubernetes) == load_config(None, ENVIRON)


def test_the_file_is_searched_in_a_fixed_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The flag, then $OUTBOX_RELAY_CONFIG, then the first of the known places that exists.
    """
    here, there = tmp_path / "config.toml", tmp_path / "etc.toml"
    monkeypatch.setattr(config_module, "SEARCHED", (here, there))
    variable = {"OUTBOX_RELAY_CONFIG": "v.toml"}
    nothing = find_config(None, {})
    there.touch()
    second = find_config(None, {})
    here.touch()

    assert nothing is None
    assert second == there
    assert find_config(None, {}) == here
    assert find_config(None, variable) == Path("v.toml")
    assert find_config(Path("f.toml"), variable) == Path("f.toml")


def test_a_command_without_a_file_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever stands in the wrong folder learns that no file was read; with a file nobody hears of it.
    """
    monkeypatch.chdir(tmp_path)
    nowhere = CliRunner().invoke(app, ["status"])
    (tmp_path / "config.toml").write_text("")
    here = CliRunner().invoke(app, ["status"])

    assert (nowhere.exit_code, here.exit_code) == (Exit.USAGE, Exit.USAGE)
    assert nowhere.output.splitlines()[-1].startswith(
        "no file was read: there is no config.toml and no /etc/outbox-relay/config.toml; name one"
    )
    assert "no file was read" not in here.output


def test_the_example_file_is_what_the_code_says() -> None:
    """
    config.example.toml lists every key with its default; `example_toml()` writes it.
    """
    example = Path(__file__).parents[2] / "config.example.toml"

    assert example.read_text(encoding="utf-8") == example_toml()


def test_the_example_file_loads_and_holds_every_default(tmp_path: Path) -> None:
    """
    Loaded as it is, it gives the defaults, and no key is missing.
    """
    path = write(tmp_path, example_toml())
    loaded = load_config(path, {})
    content = tomllib.loads(example_toml())
    keys = {f"{section}.{key}" for section, found in content.items() for key in found}

    assert keys == set(setting_types())
    assert isinstance(loaded, Config)
    assert loaded == load_config(None, {}, EXAMPLES)


def test_every_setting_says_what_it_does() -> None:
    """
    Each field of each section has a text below it.
    """
    assert all(setting.text and setting.environment for setting in settings())
