"""
Document 002: its example, against a real Redis.
"""

from __future__ import annotations

import json
from datetime import datetime
from uuid import UUID

import pytest

import outbox_relay.cqrs as cqrs
from tests.documents import d002_meetings
from tests.documents.d002_meetings import MeetingAPI
from tests.services.redis import Redis


async def test_the_example_runs_on_redis(redis: Redis) -> None:
    """
    The domain event is handled in process; the notification event is published in its envelope.
    """
    api = MeetingAPI()
    with redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.psubscribe("python_diator_channel:*")
        while heard.get_message(timeout=1.0) is not None:
            pass
        with pytest.warns(cqrs.DirectPublishWarning):
            response = await d002_meetings.main(redis.url, api)
        message = heard.get_message(timeout=10.0)

    assert response == d002_meetings.ReadMeetingQueryResult(
        meeting_id=1, link="https://meet.example/1"
    )
    assert api.joined == [(1, 123)]
    assert api.notified == [(1, "a user joined")]
    assert message is not None
    envelope = json.loads(message["data"])
    assert list(envelope) == ["message_type", "message_name", "message_id", "payload"]
    assert envelope["message_type"] == "notification_event"
    assert envelope["message_name"] == "UserJoinedNotificationEvent"
    assert message["channel"].decode() == f"python_diator_channel:{envelope['message_id']}"
    payload = envelope["payload"]
    assert list(payload) == ["event_id", "event_timestamp", "user_id"]
    assert payload["event_id"] == envelope["message_id"]
    assert UUID(payload["event_id"]).version == 7
    assert datetime.fromisoformat(payload["event_timestamp"]).tzinfo is not None
    assert payload["user_id"] == 123
