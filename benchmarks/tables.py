"""Format the result of a comparison as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diarist.evaluation.scoring import Score
from pooling import Result, System, common, left_out, members, pooled, ratio, speaking, spent, stage_seconds

ALL = "all"
BASE_MINUTES = 10.0
"""The length in minutes that the other lengths are compared with in the growth table."""


def report(result: Result, pictures: Sequence[str]) -> str:
    """Return the whole page."""
    lines = [f"# Comparison of {result['made']}", "", conditions(result)]
    for remark in remarks(result):
        lines += ["", remark]
    if "diarist" in result["systems"] and (ratios := comparison(result)):
        lines += ["", "## Diarist compared with the other systems", "", *ratios]
    lines += ["", "## Diarization", "", scope(result), "", *accuracy(result)]
    lines += ["", "## By set", "", *by_set(result)]
    if result["words"]:
        lines += ["", "## Recognition", "", *words(result)]
    lines += ["", "## By recording, strict DER", "", *by_recording(result)]
    lines += ["", "## Time and memory", "", *resources(result), "", *stages(result)]
    if result["growth"]:
        lines += ["", "## Growth", "", *growth(result)]
    lines += ["", *(f"![{picture}]({picture})" for picture in pictures), ""]
    return "\n".join(lines)


def conditions(result: Result) -> str:
    machine = result["machine"]
    rounds = f", fastest of {result['rounds']} rounds" if result["rounds"] > 1 else ""
    return (
        f"Commit {result['commit']}; {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB;"
        f" {machine['system']}, Python {machine['python']}; {result['threads']} thread(s) for each system{rounds};"
        f" {len(result['sets'])} recordings, {sum(result['lengths'].values()) / 60:.0f} minutes."
    )


def remarks(result: Result) -> list[str]:
    """Return remarks that the reader needs in order to interpret the figures."""
    found = []
    if result["machine"]["busy"]:
        found.append(
            "**The machine was busy**: other processes ran at the same time as the systems (see *others* below)."
            " Accuracy and memory are reliable, but wall times are not; compare the CPU times."
        )
    found += [
        f"{name} was not run, because it cannot be installed here ({why})." for name, why in result["not_run"].items()
    ]
    for system in result["systems"].values():
        if system["failure"] and system["reading_of"] is None:
            found.append(
                f"{system['title']} finished {len(system['recordings'])} of {len(result['sets'])} recordings:"
                f" {system['failure']}"
            )
        found += [f"{system['title']}, words not scored: {each}" for each in system["words_unscored"]]
        if not system["steady"]:
            found.append(f"{system['title']} did not give the same output in every round; the fastest is scored.")
    return found


def scope(result: Result) -> str:
    """Return a paragraph that says which recordings are pooled."""
    systems, names = speaking(result), result["sets"]
    text = f"Pooled over the {len(members(result)[ALL])} of {len(names)} recordings that every system here finished."
    missing = left_out(systems, names)
    if missing:
        each = "; ".join(f"{name} ({', '.join(titles)})" for name, titles in missing.items())
        text += f" Left out, with the systems that did not finish them: {each}."
    if nothing := [system["title"] for system in systems if not system["recordings"]]:
        text += f" Not included, because no recording was finished: {', '.join(nothing)}."
    return text


def comparison(result: Result) -> list[str]:
    """Return the ratios of Diarist's errors and time to those of each other system."""
    groups, ours = members(result), result["systems"]["diarist"]
    rows = []
    for system in speaking(result):
        if system is ours or not system["recordings"]:
            continue
        cells = [times(ratio(pooled(ours, names).der, pooled(system, names).der)) for names in groups.values()]
        lenient = ratio(pooled(ours, groups[ALL]).der_collar, pooled(system, groups[ALL]).der_collar)
        rows.append((system["title"], cells[-1], times(lenient), *cells[:-1]))
    lines = []
    if rows:
        heads = [each for each in groups if each != ALL]
        lines += [*table(("ratio of Diarist's DER to that of", ALL, "all, collar", *heads), rows), ""]
        lines += ["If the ratio is below 1, Diarist makes fewer errors.", ""]
    return [*lines, *(f"- {line}" for line in speeds(result))]


def speeds(result: Result) -> list[str]:
    """Compare Diarist's wall and CPU time with each other system's, over the recordings that both finished."""
    systems = result["systems"]
    lines = []
    for name in ("whisper", "whisper-sequential"):
        if result["words"] and (ratios := _time_ratios(result, systems["diarist"], systems.get(name))):
            wall, cpu = ratios
            lines.append(
                f"The whole pipeline takes {wall:.2f} times as long as {systems[name]['title']} (CPU time {cpu:.2f})."
            )
    alone = systems.get("diarist-turns") if result["words"] else systems["diarist"]
    for system in speaking(result):
        if system is systems["diarist"] or system["reading_of"] or alone is None:
            continue
        if ratios := _time_ratios(result, system, alone):
            wall, cpu = ratios
            lines.append(f"Diarization alone is {wall:.2f} times as fast as {system['title']} (CPU time {cpu:.2f}).")
    return lines


def _time_ratios(result: Result, one: System, other: System | None) -> tuple[float, float] | None:
    """Return the ratios of the first system's wall and CPU time to the other's; None if no recording is common."""
    if other is None or not one["recordings"] or not other["recordings"]:
        return None
    names = common((one, other), result["sets"])
    if not names:
        return None
    first, second = spent(result, one, names), spent(result, other, names)
    return first.wall / second.wall, first.cpu / second.cpu


def accuracy(result: Result) -> list[str]:
    head = ("system", "DER", "missed", "false alarm", "confusion", "DER, collar 0.25 s", "missed", "false alarm",
            "confusion", "JER", "speakers exact")  # fmt: skip
    names = members(result)[ALL]
    rows = []
    for system in speaking(result):
        found = pooled(system, names)
        strict = (ratio(each, found.speech) for each in (found.missed, found.false_alarm, found.confusion))
        lenient = (ratio(each, found.collar_speech)
                   for each in (found.collar_missed, found.collar_false_alarm, found.collar_confusion))  # fmt: skip
        rates = (found.der, *strict, found.der_collar, *lenient, found.jer)
        rows.append((system["title"], *map(percent, rates), f"{found.exact} of {found.recordings}"))
    return table(head, rows)


def by_set(result: Result) -> list[str]:
    groups = members(result)
    rows = []
    for system in speaking(result):
        cells = []
        for names in groups.values():
            found = pooled(system, names)
            cells.append(f"{percent(found.der)} / {percent(found.der_collar)} ({found.exact} of {found.recordings})")
        rows.append((system["title"], *cells))
    note = "Strict DER / DER with collar (recordings with the correct number of speakers)."
    return [*table(("system", *groups), rows), "", note]


def words(result: Result) -> list[str]:
    """Return the word error rates; systems without words have those of faster-whisper, attributed to their speakers."""
    head = ("system", "WER", "cpWER", "tcpWER", "wrong speaker at boundaries")
    names = members(result)[ALL] if speaking(result) else tuple(result["sets"])
    rows = []
    for system in result["systems"].values():
        found = pooled(system, names)
        if found.words or found.boundary_words:
            whose = (found.cpwer, found.tcpwer, found.boundary_error) if system["speakers"] else (None, None, None)
            rows.append((system["title"], *map(percent, (found.wer, *whose))))
    return table(head, rows)


def by_recording(result: Result) -> list[str]:
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


def timed(result: Result) -> tuple[list[System], tuple[str, ...]]:
    """Return the systems whose time is shown, and the recordings that all of them finished."""
    systems = [each for each in result["systems"].values() if each["recordings"] and each["reading_of"] is None]
    return systems, common(systems, result["sets"])


def resources(result: Result) -> list[str]:
    systems, names = timed(result)
    rows = []
    for system in systems:
        took = spent(result, system, names)
        start = "-" if system["startup_s"] is None else f"{system['startup_s']:.1f}"
        figures = (("{:.1f}", took.wall), ("{:.1f}", took.cpu), ("{:.4f}", ratio(took.wall, took.audio)),
                   ("{:.1f}", ratio(took.audio, took.wall)),
                   ("{:.2f}", ratio(60 * took.cpu, took.audio)))  # fmt: skip
        cells = ("-" if figure is None else form.format(figure) for form, figure in figures)
        rows.append((system["title"], *cells, start, str(system["peak_mb"]), f"{system['others_cores']:.2f}"))
    head = ("system", "wall s", "CPU s", "RTF", "x real time", "CPU s per minute of audio", "start-up s", "peak MB",
            "others, cores")  # fmt: skip
    note = (
        f"Times are totals of the recordings that all of these systems finished ({len(names)}). RTF is the wall time"
        " per second of audio. *others* is the number of cores that other processes kept busy at the same time."
    )
    return [*table(head, rows), "", note]


def stages(result: Result) -> list[str]:
    systems, names = timed(result)
    rows = []
    for system in systems:
        took = spent(result, system, names)
        for stage, seconds in stage_seconds(system, names).items():
            if stage != "rest" or seconds >= 0.01 * took.wall:
                share = percent(ratio(seconds, took.wall))
                rows.append((system["title"], stage, f"{seconds:.2f}", f"{seconds / took.audio:.5f}", share))
    return table(("system", "stage", "wall s", "RTF", "% of its time"), rows)


def growth(result: Result) -> list[str]:
    rows = []
    for row in result["growth"]:
        title, minutes = result["systems"][row["system"]]["title"], row["minutes"]
        if "wall_s" not in row:
            rows.append((title, f"{minutes:g}", *("-",) * 4, str(row["peak_mb"]), "-", row["failure"] or "-"))
            continue
        count = f"{row['found']} of {row['speakers']}" if "found" in row else "-"
        base = next((each for each in result["growth"] if each["system"] == row["system"]
                     and each["minutes"] == BASE_MINUTES and "wall_s" in each), None)  # fmt: skip
        slower = "-"
        if base is not None:
            wall, cpu = (ratio(row[kind] / minutes, base[kind] / BASE_MINUTES) for kind in ("wall_s", "cpu_s"))
            slower = f"{times(wall)} / {times(cpu)}"
        cells = (f"{row['wall_s']:.1f}", f"{row['wall_s'] / minutes / 60:.4f}", f"{row['cpu_s'] / minutes:.2f}", slower,
                 str(row["peak_mb"]), percent(row.get("der")), count)  # fmt: skip
        rows.append((title, f"{minutes:g}", *cells))
    head = ("system", "minutes", "wall s", "RTF", "CPU s per minute",
            f"ratio of time per minute to {BASE_MINUTES:g} min, wall / CPU", "peak MB", "DER", "speakers")  # fmt: skip
    return [f"The recording {result['growth'][0]['source']} is repeated to each length.", "", *table(head, rows)]


def percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def times(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; vertical bars in cells are replaced, because they would end the cell."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines]
