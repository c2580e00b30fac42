"""The state that the request handlers of an application share: settings, jobs, limits, and whether it is stopping."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from flask import current_app

from diarist.api.status_cache import StatusCache
from diarist.errors import EngineUnavailable
from diarist.jobs.fair_share import SharedSlots
from diarist.jobs.service import JobService
from diarist.settings import Settings

SPARE_THREADS = 2
"""The number of threads that waiting callers and event streams never occupy, so that ``/status`` is answered."""

STOPPING = "The service is stopping. Send the recording again when it is back."


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """The shared state of one application, in ``app.extensions["diarist"]``."""

    settings: Settings
    jobs: JobService
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the service begins to stop; waiting callers then receive a 503 within half a second."""

    waiting_slots: SharedSlots = field(init=False)
    """One slot for each caller of ``/diarize``, so that some threads always remain for ``/status``."""

    stream_slots: SharedSlots = field(init=False)
    """One slot for each open stream of events, for the same reason."""

    status_cache: StatusCache = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status_cache", StatusCache(self.jobs))
        object.__setattr__(self, "waiting_slots", SharedSlots(self.settings.max_waiting))
        object.__setattr__(self, "stream_slots", SharedSlots(self.settings.max_listeners))

    def check_running(self) -> None:
        """Raise ``EngineUnavailable`` if the service is stopping."""
        if self.stopping.is_set():
            raise EngineUnavailable(STOPPING)

    def check_available(self) -> None:
        """Check that recordings can be processed now, or as soon as the engine has been loaded.

        Raises:
            EngineUnavailable: the service is stopping, or its engine cannot be loaded.
        """
        self.check_running()
        report = self.jobs.pool_status()
        if report.state == "error":
            raise EngineUnavailable(" ".join(("The engine is not available.", *report.errors)))


def runtime() -> Runtime:
    """Return the runtime of the application that handles the current request."""
    current: Runtime = current_app.extensions["diarist"]
    return current
