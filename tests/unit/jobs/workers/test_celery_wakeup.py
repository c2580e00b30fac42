"""The behavior of the Celery notifier without Redis; ``tests/contract/test_worker_notifier.py`` tests it with Redis."""

from __future__ import annotations

import pytest

from diarist.errors import ConfigurationError
from diarist.jobs.workers.celery_wakeup import (
    TIMEOUT_S,
    CeleryNotifier,
    NotificationListener,
    broadcast_queue,
    make_app,
)

pytestmark = pytest.mark.slow

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize("url", ["", "amqp://host", "http://host", "sqla+sqlite://", "REDIS"])
@pytest.mark.parametrize(
    "make", [make_app, CeleryNotifier, lambda url: NotificationListener(url, ("any",), lambda: None)]
)
def test_a_url_that_does_not_name_redis_is_rejected(make, url):
    with pytest.raises(ConfigurationError, match=r"QUEUE_URL must name a Redis server: redis://host:6379/0"):
        make(url)


def test_messages_are_broadcast_and_not_acknowledged():
    for name in ("any", "gpu"):
        queue = broadcast_queue(name)
        assert queue.exchange.type == "fanout"
        assert (queue.no_ack, queue.auto_delete, queue.routing_key) == (True, True, name)
        assert queue.exchange.name == f"diarist.{name}"
    assert broadcast_queue("any").name != broadcast_queue("any").name, "each listener has a queue of its own"


def test_redis_operations_have_short_timeouts():
    conf = make_app(NOWHERE).conf
    assert conf.broker_transport_options["socket_timeout"] == TIMEOUT_S
    assert conf.broker_transport_options["socket_connect_timeout"] == TIMEOUT_S
    assert conf.broker_connection_max_retries is None
    assert conf.task_ignore_result is True


def test_an_unreachable_redis_is_logged_and_does_not_delay_closing(caplog, until):
    notifier = CeleryNotifier(NOWHERE)
    notifier.notify("any")
    until(lambda: "Workers cannot be woken" in caplog.text)
    notifier.close()
    notifier._thread.join(20)
    assert not notifier._thread.is_alive()


def test_a_listener_that_was_never_started_can_be_stopped():
    NotificationListener(NOWHERE, ("any",), lambda: None).stop()
