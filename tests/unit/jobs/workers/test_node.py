from __future__ import annotations

import pytest

from diarist.errors import ConfigurationError, StoreUnavailable
from diarist.jobs.model import QUEUES
from diarist.jobs.workers.node import run_workers, subscribed_queues


def test_a_missing_queue_url_is_explained(make_settings):
    with pytest.raises(ConfigurationError, match=r"QUEUE_URL is not set.*diarist serve"):
        run_workers(make_settings(queue_url=""))


def test_an_invalid_queue_url_is_rejected(make_settings):
    with pytest.raises(ConfigurationError, match=r"redis://host:6379/0"):
        run_workers(make_settings(queue_url="amqp://host"))


def test_an_unreachable_database_is_reported_without_its_password(make_settings):
    settings = make_settings(queue_url="redis://127.0.0.1:1/0", database_url="postgresql://u:secret@127.0.0.1:1/n")
    with pytest.raises(StoreUnavailable, match="DATABASE_URL") as caught:
        run_workers(settings)
    assert "secret" not in str(caught.value)


def test_the_queues_that_a_machine_subscribes_to(make_settings):
    assert subscribed_queues(make_settings()) == QUEUES
    assert subscribed_queues(make_settings(queues="gpu,any,gpu")) == ("gpu", "any")
    with pytest.raises(ConfigurationError, match=r"QUEUES contains gpus, .*any, cpu, gpu"):
        subscribed_queues(make_settings(queues="any,gpus"))
