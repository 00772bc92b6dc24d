"""
Secrets and certificates, read anew for each connection: one that is rotated needs no restart.

No text made here holds a secret. Errors name the setting and the file, or the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import ssl
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from outbox_relay.errors import ConfigError, CredentialsError

MOST_BYTES: Final = 65_536
"""Longest secret. More is a wrong file, or a program that prints something else."""


def read_secret(setting: str, path: str) -> str:
    """
    The content of the file at *path* without the line ends that follow it.

    Raises CredentialsError, which names *setting* and the file.
    """
    return _secret(_read(setting, path), f"{setting} = {path}")


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CredentialsError(
            f"{setting} = {path} cannot be read ({error.strerror}): it must be a file that the "
            "relay's user may read"
        ) from None


def _secret(content: bytes, source: str) -> str:
    if len(content) > MOST_BYTES:
        raise CredentialsError(f"{source} gives more than {MOST_BYTES} bytes: that is no secret")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        # Without its cause: the error holds the bytes.
        raise CredentialsError(f"{source} gives bytes that are not UTF-8") from None
    if not text:
        raise CredentialsError(f"{source} gives nothing: a secret was expected")
    return text


async def secret_from_command(
    setting: str, command: Sequence[str], *, timeout_seconds: float
) -> str:
    """
    What *command* prints, without the line ends that follow it. No shell is involved.

    Its standard error goes nowhere: it may hold secrets. Raises CredentialsError if the command
    cannot be started, fails, prints nothing, or takes longer than *timeout_seconds*.
    """
    source = f"{setting} ({command[0]})"
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CredentialsError(f"{source} cannot be started ({reason})") from None
    try:
        async with asyncio.timeout(timeout_seconds):
            printed = await _printed(process)
            code = await process.wait()
    except TimeoutError:
        raise CredentialsError(f"{source} did not end within {timeout_seconds:g} s") from None
    finally:
        await _end(process)
    if code != 0:
        raise CredentialsError(f"{source} ended with exit code {code}: run it by hand to see why")
    return _secret(printed, source)


async def _printed(process: Process) -> bytes:
    assert process.stdout is not None
    printed = b""
    while len(printed) <= MOST_BYTES and (more := await process.stdout.read(MOST_BYTES)):
        printed += more
    if len(printed) > MOST_BYTES:
        # It would wait for a reader for ever.
        _kill(process)
    return printed


async def _end(process: Process) -> None:
    """Also when the wait for it was cancelled: no program is left behind."""
    if process.returncode is None:
        _kill(process)
        await process.wait()


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def tls_context(
    section: str,
    *,
    ca_file: str = "",
    cert_file: str = "",
    key_file: str = "",
    key_password_file: str = "",
) -> ssl.SSLContext:
    """
    TLS that verifies the server's certificate and host name, always. Reads the files now.

    Without *ca_file* the system's authorities are trusted. Raises CredentialsError.
    """
    setting = f"{section}.ssl_ca_file"
    if ca_file:
        _read(setting, ca_file)
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (ssl.SSLError, OSError):
        raise CredentialsError(f"{setting} = {ca_file} holds no certificate in PEM form") from None
    if cert_file:
        _load_own(context, section, cert_file, key_file, key_password_file)
    return context


def _load_own(
    context: ssl.SSLContext, section: str, cert_file: str, key_file: str, password_file: str
) -> None:
    _read(f"{section}.ssl_cert_file", cert_file)
    if key_file:
        _read(f"{section}.ssl_key_file", key_file)
    # Without any password, OpenSSL would ask for one on the terminal and wait.
    password = (
        read_secret(f"{section}.ssl_key_password_file", password_file) if password_file else ""
    )
    try:
        context.load_cert_chain(cert_file, key_file or None, password=password)
    except (ssl.SSLError, OSError, ValueError):
        files = f"{section}.ssl_cert_file = {cert_file}"
        if key_file:
            files += f" and {section}.ssl_key_file = {key_file}"
        raise CredentialsError(
            f"{files} cannot be used: a certificate and its own key in PEM form are needed, "
            "and the key's password if it has one"
        ) from None


def find_callable(setting: str, name: str) -> Callable[[], Any]:
    """
    What ``module:callable`` names. Raises ConfigError, without the text of what went wrong inside.
    """
    module, _, path = name.partition(":")
    found: Any
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # noqa: BLE001 - a module of the user may raise anything
        reason = type(error).__name__
        raise ConfigError(
            [f"{setting} = {name} cannot be imported ({reason}): is it on PYTHONPATH?"]
        ) from None
    if not callable(found):
        raise ConfigError([f"{setting} = {name} is not callable"])
    checked: Callable[[], Any] = found
    return checked
