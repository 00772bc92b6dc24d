"""
Settings at their edges: what is no URL, no list, no file, and a setting without words of its own.
"""

from __future__ import annotations

import errno

import pytest

from outbox_relay import config_checks
from outbox_relay.config import load_config
from outbox_relay.config_checks import missing_files, shown
from outbox_relay.config_text import field_texts
from outbox_relay.errors import ConfigError
from outbox_relay.store.options import DatabaseOptions

ENVIRON = {
    "OUTBOX_RELAY_DATABASE__URL": "mysql+asyncmy://ob@db/shop",
    "OUTBOX_RELAY_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092",
}


@pytest.mark.parametrize("url", ["mysql+asyncmy://ob:geheim@db:port/shop", "ob:geheim", 17])
def test_what_is_no_url_is_hidden_as_a_whole(url: object) -> None:
    """
    I11. Nobody knows where in it the password is.
    """
    assert shown("database.url", url) == '"(hidden)"'


@pytest.mark.parametrize("text", ["cat /run/secrets/db", '"cat"', "[" * 100_000])
def test_a_list_in_the_environment_is_json(text: str) -> None:
    """
    Whatever is no list is refused with the form of one, and not shown.
    """
    name = "OUTBOX_RELAY_DATABASE__PASSWORD_COMMAND"
    loaded = load_config(None, ENVIRON | {name: '["cat", "/run/secrets/db"]'})
    with pytest.raises(ConfigError) as refused:
        load_config(None, ENVIRON | {name: text})

    assert loaded.database.password_command == ("cat", "/run/secrets/db")
    [problem] = refused.value.problems
    assert 'must be a list of text, such as ["one", "two"]' in problem
    assert text not in problem


def test_a_file_in_a_folder_that_may_not_be_entered_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The relay says what is wrong when it reads it; the command may run as another user.
    """

    class Closed:
        def __init__(self, path: str) -> None:
            self.path = path

        def exists(self) -> bool:
            raise PermissionError(errno.EACCES, "not allowed", self.path)

    options = DatabaseOptions(password_file="/etc/secret")
    [missing] = missing_files({"database": options})
    monkeypatch.setattr(config_checks, "Path", Closed)

    assert missing.startswith("database.password_file = /etc/secret: there is no such file")
    assert missing_files({"database": options}) == []


class Documented:
    """Settings, one of which has no text of its own."""

    first: int = 1
    second: int = 2
    """The second."""


def test_a_setting_has_no_text_but_its_own() -> None:
    """
    One without is not given that of the next.
    """
    assert field_texts(Documented) == {"second": "The second."}
