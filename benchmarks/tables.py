"""The result of a comparison as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diarist.evaluation.scoring import Score, pool

ALL = "all"


def pooled(system: Mapping[str, Any], sets: Mapping[str, str], only: str = ALL) -> Score:
    """The scores of a system's recordings added up, all of them or those of one set."""
    recordings: Mapping[str, Any] = system["recordings"]
    return pool(Score(**one["score"]) for name, one in recordings.items() if only in (ALL, sets[name]))


def report(result: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The whole page."""
    machine = result["machine"]
    lines = [
        f"# Comparison of {result['made']}",
        "",
        (
            f"Commit {result['commit']}; {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB;"
            f" {machine['system']}, Python {machine['python']}; {result['threads']} thread(s) for each system;"
            f" {len(result['sets'])} recordings, {sum(result['lengths'].values()) / 60:.0f} minutes."
        ),
    ]
    if machine["busy"]:
        lines += [
            "",
            (
                f"**The machine was busy** (load of {machine['load_per_core']} a core before the start): accuracy and"
                " memory are sound, wall times are not; compare the CPU time."
            ),
        ]
    for name, why in result["not_run"].items():
        lines += ["", f"{name} did not take part: it cannot be installed here ({why})."]
    for system in result["systems"].values():
        if system["failure"]:
            lines += ["", f"{system['title']} failed after {len(system['recordings'])} recordings: {system['failure']}"]
    lines += ["", "## Accuracy, pooled", "", *accuracy(result)]
    lines += ["", "## DER by set, strict / collar 0.25 s", "", *by_set(result)]
    lines += ["", "## DER by recording, strict", "", *by_recording(result)]
    lines += ["", "## Time and memory", "", *resources(result), "", *stages(result)]
    if result["growth"]:
        lines += ["", "## Growth", "", *growth(result)]
    lines += ["", *(f"![{picture}]({picture})" for picture in pictures), ""]
    return "\n".join(lines)


def accuracy(result: Mapping[str, Any]) -> list[str]:
    head = ("system", "DER", "DER, collar", "missed", "false alarm", "confusion", "JER", "speakers exact", "WER",
            "cpWER", "tcpWER", "wrong speaker at boundaries")  # fmt: skip
    rows = []
    for system in result["systems"].values():
        found = pooled(system, result["sets"])
        tells = (found.der, found.der_collar, found.missed / found.speech if found.speech else None,
                 found.false_alarm / found.speech if found.speech else None,
                 found.confusion / found.speech if found.speech else None, found.jer)  # fmt: skip
        who = [percent(each) if system["speakers"] else "-" for each in tells]
        exact = f"{found.exact} of {found.recordings}" if system["speakers"] else "-"
        words = (found.wer, *((found.cpwer, found.tcpwer, found.boundary_error) if system["speakers"] else (None,) * 3))
        rows.append((system["title"], *who, exact, *map(percent, words)))
    return table(head, rows)


def by_set(result: Mapping[str, Any]) -> list[str]:
    sets = list(dict.fromkeys(result["sets"].values()))
    rows = []
    for system in speaking(result):
        cells = []
        for each in (*sets, ALL):
            found = pooled(system, result["sets"], each)
            cells.append(f"{percent(found.der)} / {percent(found.der_collar)} ({found.exact} of {found.recordings})")
        rows.append((system["title"], *cells))
    note = "In brackets: recordings with the right number of speakers."
    return [*table(("system", *sets, ALL), rows), "", note]


def by_recording(result: Mapping[str, Any]) -> list[str]:
    systems = speaking(result)
    rows = []
    for name in result["sets"]:
        cells = [name]
        for system in systems:
            one = system["recordings"].get(name)
            found = Score(**one["score"]) if one else None
            cells.append(f"{percent(found.der)} ({found.found} of {found.speakers})" if found else "-")
        rows.append(tuple(cells))
    return table(("recording", *(system["title"] for system in systems)), rows)


def resources(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for system in result["systems"].values():
        took = system["recordings"]
        length = sum(result["lengths"][name] for name in took)
        wall, cpu = (sum(one[kind] for one in took.values()) for kind in ("wall_s", "cpu_s"))
        start = "-" if system["startup_s"] is None else f"{system['startup_s']:.1f}"
        per_minute = f"{60 * cpu / length:.2f}" if length else "-"
        speed = f"{length / wall:.1f}" if wall else "-"
        rows.append((system["title"], f"{wall:.0f}", f"{cpu:.0f}", per_minute, speed, start, str(system["peak_mb"])))
    head = ("system", "wall s", "CPU s", "CPU s a minute of audio", "x real time", "start-up s", "peak MB")
    return table(head, rows)


def stage_seconds(system: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage over all recordings; what belongs to none is ``rest``."""
    total: dict[str, float] = {}
    for one in system["recordings"].values():
        for stage, seconds in one["stages_s"].items():
            total[stage] = total.get(stage, 0.0) + seconds
    rest = sum(one["wall_s"] for one in system["recordings"].values()) - sum(total.values())
    return {**total, "rest": max(0.0, rest)}


def stages(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for system in result["systems"].values():
        told = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in stage_seconds(system).items())
        rows.append((system["title"], told))
    return table(("system", "wall s by stage"), rows)


def growth(result: Mapping[str, Any]) -> list[str]:
    rows = []
    for row in result["growth"]:
        title = result["systems"][row["system"]]["title"]
        if "wall_s" not in row:
            rows.append((title, f"{row['minutes']:g}", "-", "-", "-", str(row["peak_mb"]), "-", row["failure"] or "-"))
            continue
        der = percent(row.get("der"))
        count = f"{row['found']} of {row['speakers']}" if "found" in row else "-"
        each = f"{row['cpu_s'] / row['minutes']:.2f}"
        cells = (f"{row['wall_s']:.0f}", f"{row['cpu_s']:.0f}", each, str(row["peak_mb"]), der, count)
        rows.append((title, f"{row['minutes']:g}", *cells))
    head = ("system", "minutes", "wall s", "CPU s", "CPU s a minute", "peak MB", "DER", "speakers")
    return table(head, rows)


def speaking(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The systems that tell speakers apart."""
    return [system for system in result["systems"].values() if system["speakers"]]


def percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of Markdown; bars within cells would end them."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]
