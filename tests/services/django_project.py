"""
A Django project in this process, whose databases are those of the tests.

Import it before anything of Django: it configures the settings, once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import django
import pymysql
from django.conf import settings
from django.db import connections
from sqlalchemy.engine import make_url

from tests.services.database import Database

ENGINES = {"mysql": "mysql", "postgresql": "postgresql", "sqlite": "sqlite3"}

pymysql.install_as_MySQLdb()
for _name in [name for name in sys.modules if name.startswith("pymysql.")]:
    # Else Django would load them a second time, and pymysql.err be another module than before.
    sys.modules[_name.replace("pymysql", "MySQLdb", 1)] = sys.modules[_name]
if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        DATABASES={},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        SECRET_KEY="tests",
        USE_TZ=True,
    )
    django.setup()


@contextmanager
def django_database(database: Database, alias: str = "default") -> Iterator[None]:
    """Within the block, *database* is the project's database called *alias*."""
    url = make_url(database.sync_url)
    own = {
        "ENGINE": f"django.db.backends.{ENGINES[url.get_backend_name()]}",
        "NAME": url.database,
        "USER": url.username or "",
        "PASSWORD": url.password or "",
        "HOST": url.host or "",
        "PORT": url.port or "",
    }
    before = connections.settings.get(alias)
    with suppress(AttributeError):  # this thread has none yet
        del connections[alias]
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: own})[alias]
    try:
        yield
    finally:
        connections[alias].close()
        del connections[alias], connections.settings[alias]
        if before is not None:
            connections.settings[alias] = before
