"""
What each error of a database means for a statement, as data.

A line is: code, name, what follows, and why. ``docs/reference/error-codes.md`` shows it. After any error
the connection is given up and the caller repeats, which is safe for every statement of the store; what
differs is whether the term goes on. What is not here is repeated too, counted and logged.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError

from outbox_relay.relay.known import Known, Meaning, by_code, label_of, of_the_system

_WORDS = {
    "repeat": Meaning.REPEAT,
    "term": Meaning.NEW_TERM,
    "all": Meaning.PAUSE_ALL,
}

_SERVER = "dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html"
_CLIENT = "dev.mysql.com/doc/mysql-errors/8.0/en/client-error-reference.html"
_MARIADB = "mariadb.com/kb/en/mariadb-error-codes"
_POSTGRESQL = "postgresql.org/docs/current/errcodes-appendix.html"
_SQLITE = "sqlite.org/rescode.html"

_OF_SERVER = """
1020 ER_CHECKREAD repeat the row changed since it was read
1021 ER_DISK_FULL all the server's disk is full
1028 ER_FILSORT_ABORT repeat a sort was interrupted
1030 ER_GET_ERRNO all the storage engine fails, such as on a full disk
1037 ER_OUTOFMEMORY all the server has no memory
1040 ER_CON_COUNT_ERROR all too many connections
1041 ER_OUT_OF_RESOURCES all the server has no memory
1042 ER_BAD_HOST_ERROR all the server cannot look up our name
1043 ER_HANDSHAKE_ERROR all the log-in went wrong
1044 ER_DBACCESS_DENIED_ERROR all no right to the database
1045 ER_ACCESS_DENIED_ERROR all wrong user or password: secrets are replaced while we run
1047 ER_UNKNOWN_COM_ERROR all a Galera node that is not (or no longer) part of its cluster
1049 ER_BAD_DB_ERROR all the database is not there (yet)
1053 ER_SERVER_SHUTDOWN repeat the server stops
1054 ER_BAD_FIELD_ERROR term a column is not there: a migration may be under way
1077 ER_NORMAL_SHUTDOWN repeat the server stops
1079 ER_SHUTDOWN_COMPLETE repeat the server stops
1080 ER_FORCING_CLOSE repeat the server closed the connection
1114 ER_RECORD_FILE_FULL all the table, or the disk, is full
1129 ER_HOST_IS_BLOCKED all the server refuses our host: FLUSH HOSTS
1130 ER_HOST_NOT_PRIVILEGED all the server lets nobody in from our host
1142 ER_TABLEACCESS_DENIED_ERROR all no right to a table
1143 ER_COLUMNACCESS_DENIED_ERROR all no right to a column
1146 ER_NO_SUCH_TABLE term a table is not there (yet): a migration may come
1152 ER_ABORTING_CONNECTION repeat the server closed the connection
1153 ER_NET_PACKET_TOO_LARGE repeat a statement larger than max_allowed_packet
1156 ER_NET_PACKETS_OUT_OF_ORDER repeat the connection is out of step
1158 ER_NET_READ_ERROR repeat the connection broke
1159 ER_NET_READ_INTERRUPTED repeat the server waited too long for us
1160 ER_NET_ERROR_ON_WRITE repeat the connection broke
1161 ER_NET_WRITE_INTERRUPTED repeat the server waited too long for us
1176 ER_KEY_DOES_NOT_EXITS term an index is not there: a migration may be under way
1180 ER_ERROR_DURING_COMMIT repeat nobody knows whether it is committed
1203 ER_TOO_MANY_USER_CONNECTIONS all the user has too many connections
1205 ER_LOCK_WAIT_TIMEOUT repeat somebody holds a lock for long
1213 ER_LOCK_DEADLOCK repeat rolled back, as one of two who waited for each other
1223 ER_CANT_UPDATE_WITH_READLOCK repeat FLUSH TABLES WITH READ LOCK, as a backup does
1226 ER_USER_LIMIT_REACHED all a limit of the user
1227 ER_SPECIFIC_ACCESS_DENIED_ERROR all a right is missing
1290 ER_OPTION_PREVENTS_STATEMENT term read_only: after a failover this is the old primary
1317 ER_QUERY_INTERRUPTED repeat somebody ended the statement
1412 ER_TABLE_DEF_CHANGED repeat the table was altered meanwhile
1615 ER_NEED_REPREPARE repeat the table was altered meanwhile
1637 ER_TOO_MANY_CONCURRENT_TRXS all too many transactions
1698 ER_ACCESS_DENIED_NO_PASSWORD_ERROR all wrong user or kind of log-in
1792 ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION term the server only reads
1836 ER_READ_ONLY_MODE term the server only reads
3024 ER_QUERY_TIMEOUT repeat longer than max_execution_time
3032 ER_SERVER_OFFLINE_MODE all offline_mode is on
3100 ER_RUN_HOOK_ERROR repeat group replication refused the commit
3101 ER_TRANSACTION_ROLLBACK_DURING_COMMIT repeat group replication rolled it back
3159 ER_SECURE_TRANSPORT_REQUIRED all the server wants TLS: database.ssl
4031 ER_CLIENT_INTERACTION_TIMEOUT repeat the connection was idle for too long
"""

_OF_MARIADB = """
1927 ER_CONNECTION_KILLED repeat somebody ended the connection
1969 ER_STATEMENT_TIMEOUT repeat longer than max_statement_time
"""

_OF_CLIENT = """
2000 CR_UNKNOWN_ERROR repeat the client has no name for it
2001 CR_SOCKET_CREATE_ERROR all no socket
2002 CR_CONNECTION_ERROR all nobody listens on the socket
2003 CR_CONN_HOST_ERROR all nobody listens there (yet)
2005 CR_UNKNOWN_HOST all the host's name is not known (now)
2006 CR_SERVER_GONE_ERROR repeat the connection was closed
2012 CR_SERVER_HANDSHAKE_ERR all the log-in went wrong
2013 CR_SERVER_LOST repeat the connection broke: nobody knows whether it is committed
2014 CR_COMMANDS_OUT_OF_SYNC repeat the connection is out of step
2026 CR_SSL_CONNECTION_ERROR all TLS did not come about
2027 CR_MALFORMED_PACKET repeat the connection is out of step
2055 CR_SERVER_LOST_EXTENDED repeat the connection broke
2059 CR_AUTH_PLUGIN_CANNOT_LOAD all a kind of log-in that the driver does not know
2061 CR_AUTH_PLUGIN_ERR all the log-in went wrong
"""

_OF_POSTGRESQL = """
08000 connection_exception repeat the connection broke
08001 sqlclient_unable_to_establish_sqlconnection all no connection
08003 connection_does_not_exist repeat the connection was closed
08004 sqlserver_rejected_establishment_of_sqlconnection all the server refuses the connection
08006 connection_failure repeat the connection broke: nobody knows whether it is committed
08007 transaction_resolution_unknown repeat nobody knows whether it is committed
08P01 protocol_violation repeat the connection is out of step, or a pooler has none to give
0A000 feature_not_supported repeat a plan from before the table was altered
25006 read_only_sql_transaction term a standby, or default_transaction_read_only
25P02 in_failed_sql_transaction repeat the transaction had failed before
25P03 idle_in_transaction_session_timeout repeat the connection was idle for too long
26000 invalid_sql_statement_name repeat a pooler gave us another connection
28000 invalid_authorization_specification all pg_hba.conf lets us not in, or wants TLS
28P01 invalid_password all wrong password: secrets are replaced while we run
3D000 invalid_catalog_name all the database is not there (yet)
3F000 invalid_schema_name term the schema is not there (yet)
40001 serialization_failure repeat rolled back because of another transaction
40003 statement_completion_unknown repeat nobody knows whether it is committed
40P01 deadlock_detected repeat rolled back, as one of two who waited for each other
42501 insufficient_privilege all a right is missing
42703 undefined_column term a column is not there: a migration may be under way
42P01 undefined_table term a table is not there (yet): a migration may come
53000 insufficient_resources all the server lacks something
53100 disk_full all the server's disk is full
53200 out_of_memory all the server has no memory
53300 too_many_connections all too many connections
53400 configuration_limit_exceeded all a limit of the server
55P03 lock_not_available repeat somebody holds a lock for longer than lock_timeout
57014 query_canceled repeat longer than statement_timeout, or somebody ended it
57P01 admin_shutdown repeat the server stops
57P02 crash_shutdown repeat another process of the server crashed
57P03 cannot_connect_now all the server starts or stops
57P04 database_dropped all the database is not there any more
57P05 idle_session_timeout repeat the connection was idle for too long
58000 system_error all the server's machine fails
58030 io_error all the server's disk fails
58P01 undefined_file all a file of the server is gone
72000 snapshot_too_old repeat the statement took too long
XX000 internal_error repeat the server, or a pooler, has an error of its own
XX001 data_corrupted all the table is damaged
XX002 index_corrupted all an index is damaged
"""

_OF_SQLITE = """
3 SQLITE_PERM all the file may not be opened
4 SQLITE_ABORT repeat the statement was ended
5 SQLITE_BUSY repeat another process writes
6 SQLITE_LOCKED repeat another connection writes
7 SQLITE_NOMEM all no memory
8 SQLITE_READONLY term the file may not be written
9 SQLITE_INTERRUPT repeat the statement was ended
10 SQLITE_IOERR all the disk fails
11 SQLITE_CORRUPT all the file is damaged
13 SQLITE_FULL all the disk is full
14 SQLITE_CANTOPEN all the file is not there (yet)
15 SQLITE_PROTOCOL repeat another process writes
17 SQLITE_SCHEMA repeat the table was altered meanwhile
23 SQLITE_AUTH all a right is missing
26 SQLITE_NOTADB all the file is not a database
"""


def _rows(text: str, source: str) -> Iterator[Known]:
    for line in text.strip().splitlines():
        code, name, word, why = line.split(maxsplit=3)
        number = code if source == _POSTGRESQL else int(code)
        yield Known(number, name, _WORDS[word], why, source)


MYSQL: tuple[Known, ...] = (
    *_rows(_OF_SERVER, _SERVER),
    *_rows(_OF_MARIADB, _MARIADB),
    *_rows(_OF_CLIENT, _CLIENT),
)
POSTGRESQL: tuple[Known, ...] = tuple(_rows(_OF_POSTGRESQL, _POSTGRESQL))
SQLITE: tuple[Known, ...] = tuple(_rows(_OF_SQLITE, _SQLITE))

_MYSQL, _POSTGRES, _LITE = by_code(MYSQL), by_code(POSTGRESQL), by_code(SQLITE)

_WITHOUT_A_CODE = {
    # asyncpg, of a connection that is gone or that a cancellation left busy
    "connection is closed": _POSTGRES["08003"],
    "connection was closed": _POSTGRES["08003"],
    "another operation is in progress": _POSTGRES["08003"],
    # asyncmy, of one that the other end closed at once: a server that died behind a proxy
    "Transport does not expose socket": _MYSQL[2013],
}
"""What drivers say in words only."""


def driver_error(error: BaseException) -> BaseException:
    """What the driver raised, without what SQLAlchemy put around it."""
    return (error.orig or error) if isinstance(error, DBAPIError) else error


def code_of(error: BaseException) -> int | str | None:
    """The code that the server, or the driver, gave *error*; None if there is none."""
    lite = getattr(error, "sqlite_errorcode", None)
    if lite is not None:
        return int(lite) & 0xFF
    number = error.args[0] if error.args else None
    if isinstance(number, int) and not isinstance(error, OSError):
        # MySQL's drivers name a state too, which says less than the number.
        return number
    state = getattr(error, "sqlstate", None)
    return str(state) if state else None


def known(error: BaseException) -> Known | None:
    """The row of *error*, as raised by SQLAlchemy or a driver; None if it is in no table."""
    original = driver_error(error)
    code = code_of(original)
    if code is None:
        return of_the_system(original) or _gone(original)
    if hasattr(original, "sqlite_errorcode"):
        return _LITE.get(code)
    return _MYSQL.get(code) if isinstance(code, int) else _POSTGRES.get(code)


def _gone(error: BaseException) -> Known | None:
    """Drivers give their own errors no code: they are the connection's."""
    for text, row in _WITHOUT_A_CODE.items():
        if text in str(error):
            return row
    return of_the_system(error.__cause__)


def unexpected(error: BaseException) -> str | None:
    """A word for the metric, if *error* is in no table; else None."""
    if known(error) is not None:
        return None
    original = driver_error(error)
    return label_of(original, code_of(original))
