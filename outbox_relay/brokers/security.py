"""
How a Kafka client logs in: with the password and the certificates of this moment.

aiokafka keeps what a client was made with, so a password that was changed reaches the brokers with
the next client. There is one after each failure: the old password is refused, the batch runs into
its deadline, the client is retired. A token, in contrast, is asked for at each connection.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from outbox_relay.brokers.options import KafkaOptions
from outbox_relay.credentials import find_callable, read_secret, tls_context

# A server that is not what it says it is makes aiokafka raise these during the log-in.
LOGIN_ERRORS = (KafkaError, OSError, TimeoutError, ValueError, AssertionError, LookupError)


class TokenUnavailable(KafkaError):  # type: ignore[misc]
    """The token provider gave none. Says nothing of what it raised: that may hold the token."""


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """A callable of the user as aiokafka wants it: bounded in time, and without its errors' texts."""

    def __init__(self, name: str, provider: Callable[[], Any], timeout_seconds: float) -> None:
        self._name = name
        self._provider = provider
        self._timeout_seconds = timeout_seconds
        # Its own threads: one that hangs must not keep others from looking up host names.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="oauth-token")

    async def token(self) -> str:
        name = f"kafka.oauth_token_provider = {self._name}"
        try:
            async with asyncio.timeout(self._timeout_seconds):
                token = await self._ask()
        except TimeoutError:
            raise TokenUnavailable(
                f"{name} gave no token within {self._timeout_seconds:g} s"
            ) from None
        except Exception as error:  # noqa: BLE001 - code of the user may raise anything
            raise TokenUnavailable(f"{name} raised {type(error).__name__}") from None
        if not isinstance(token, str) or not token or "\x01" in token:
            raise TokenUnavailable(f"{name} must return the token as text")
        return token

    async def _ask(self) -> Any:
        if inspect.iscoroutinefunction(self._provider):
            return await self._provider()
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, self._provider)
        return await answer if inspect.isawaitable(answer) else answer


class Login:
    """The log-in of every client of one broker."""

    def __init__(self, options: KafkaOptions) -> None:
        """Raises ConfigError if the token provider cannot be imported."""
        self._options = options
        self._tokens: _Tokens | None = None
        if options.oauth_token_provider:
            name = options.oauth_token_provider
            provider = find_callable("kafka.oauth_token_provider", name)
            self._tokens = _Tokens(name, provider, options.request_timeout_seconds)

    def arguments(self) -> dict[str, Any]:
        """What aiokafka takes. Reads all files now; raises CredentialsError."""
        options = self._options
        found: dict[str, Any] = {"security_protocol": options.security_protocol}
        if options.security_protocol in ("SSL", "SASL_SSL"):
            found["ssl_context"] = tls_context(
                "kafka",
                ca_file=options.ssl_ca_file,
                cert_file=options.ssl_cert_file,
                key_file=options.ssl_key_file,
                key_password_file=options.ssl_key_password_file,
            )
        if options.sasl_mechanism != "none":
            found["sasl_mechanism"] = options.sasl_mechanism
            if self._tokens is not None:
                found["sasl_oauth_token_provider"] = self._tokens
            else:
                found["sasl_plain_username"] = options.sasl_username
                found["sasl_plain_password"] = self._password()
        return found

    def _password(self) -> str:
        if self._options.sasl_password_file:
            return read_secret("kafka.sasl_password_file", self._options.sasl_password_file)
        return self._options.sasl_password

    async def refusal(self, arguments: Mapping[str, Any]) -> str | None:
        """
        Why the brokers let nobody in; None if that is not the reason.

        aiokafka says only that none of them could be reached, so one is asked once more.
        """
        if self._options.security_protocol == "PLAINTEXT":
            return None
        servers = [s.strip() for s in self._options.bootstrap_servers.split(",")]
        host, port, _ = collect_hosts(servers)[0]
        try:
            connection = await create_conn(
                host,
                port,
                client_id=self._options.client_id,
                request_timeout_ms=int(self._options.request_timeout_seconds * 1000),
                **arguments,
            )
        except LOGIN_ERRORS as error:
            return self._explain(error, f"{host}:{port}")
        try:
            # aiokafka takes a refused token for a log-in; what is asked then gets no true answer.
            answer = await connection.send(MetadataRequest([]))
            if self._tokens is not None and not answer.brokers:
                return f"kafka at {host}:{port} refuses the token of kafka.oauth_token_provider"
        except LOGIN_ERRORS as error:
            return self._explain(error, f"{host}:{port}")
        finally:
            connection.close()
        return None

    def _explain(self, error: BaseException, broker: str) -> str | None:
        said = f"kafka at {broker} ({type(error).__name__})"
        match error:
            case TokenUnavailable():
                return str(error.args[0])
            case SaslAuthenticationFailed() | KafkaConnectionError() if self._tokens is not None:
                return f"{said} refuses the token of kafka.oauth_token_provider"
            case SaslAuthenticationFailed():
                return (
                    f"{said} refuses the log-in: check kafka.sasl_username, its password, and "
                    "kafka.sasl_mechanism"
                )
            case UnsupportedSaslMechanismError() | IllegalSaslStateError():
                return (
                    f"{said} does not offer {self._options.sasl_mechanism}: check "
                    "kafka.sasl_mechanism, and whether this port asks for SASL"
                )
            case ssl.SSLCertVerificationError():
                return (
                    f"{said}: {error.verify_message}: kafka.ssl_ca_file must hold the authority "
                    "that signed the broker's certificate, and the certificate must name the host"
                )
            case ssl.SSLError():
                return (
                    f"{said}: no TLS ({error.reason}): check kafka.security_protocol, the port, "
                    "and whether the brokers ask for kafka.ssl_cert_file"
                )
            case KafkaConnectionError():
                return (
                    f"{said} closes the connection during the log-in: check "
                    "kafka.security_protocol, the port, and whether the brokers ask for "
                    "kafka.ssl_cert_file"
                )
        return None
