"""The list of all checks, in the order in which they are reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diarist.doctor import device, engine, machine, service, stores
from diarist.doctor.findings import Check, Finding, run_concurrently
from diarist.settings import Settings

CHECKS: Mapping[str, Check] = {
    "python": machine.check_python,
    "packages": machine.check_packages,
    "cores and memory": machine.check_resources,
    "data folder": machine.check_data_dir,
    "temporary files": machine.check_temp_dir,
    "log file": machine.check_log_file,
    "model folder": machine.check_model_dir,
    "models": engine.check_models,
    "engine": engine.check_engine,
    "device": device.check_device,
    "decoder": engine.check_decoder,
    "job store": stores.check_job_store,
    "clock": stores.check_clock,
    "queue": stores.check_queue,
    "recordings": stores.check_media,
    "API keys": stores.check_keys,
    "webhooks": stores.check_webhooks,
    "service": service.check_service,
    "workers": service.check_workers,
    "traces": service.check_traces,
}


def run_checks(settings: Settings) -> Iterator[tuple[str, Finding]]:
    """Yield the finding of each check, by name. The only changes are test files, which are deleted again."""
    return run_concurrently(CHECKS, settings)
