"""What has been measured, and its presentation: medians, ratios, geometric means, as a table for people or as JSON."""
import json
import math
import os
import platform
import statistics

import suite


class Figures:
    def __init__(self, machines):
        self.machines = machines
        self.seconds = {}  # {case: {machine: [seconds of each round]}}
        self.memory = {}  # {what: {machine: [MiB of each round]}}
        self.verdicts = {}  # {case: {machine: last verdict}}
        self.troubles = []  # what was wrong or missing
        self.doubts = []  # times that two clocks do not agree on: on a host with much to do, they may be read late

    def add(self, case, machine, seconds):
        self.seconds.setdefault(case, {}).setdefault(machine, []).append(seconds)

    def add_memory(self, what, machine, mib):
        self.memory.setdefault(what, {}).setdefault(machine, []).append(mib)

    def trouble(self, sentence):
        if sentence not in self.troubles:
            self.troubles.append(sentence)

    def doubt(self, sentence):
        self.doubts.append(sentence)

    def verdict(self, case, machine, word, printed=b""):
        """printed: what the machine printed during the case. A kernel must say "ok"; a program's checksum must be that
        of the machines before. True if the time counts."""
        known = self.verdicts.setdefault(case, {})
        known[machine] = word
        failed = word in ("timeout", "silent") or word.startswith(("status-", "signal-"))
        if failed or case in suite.ALL_KERNELS and word != "ok":
            self.trouble(f"{case} on {machine}: {word}; it printed:\n{printed[-1000:].decode(errors='replace')}")
            return False
        others = ", ".join(f"{m} {w}" for m, w in known.items() if w != word)
        if others:
            self.trouble(f"{case}: {machine} has the result {word}, but {others}")
        return True

    def median(self, case, machine, of=None):
        values = (of or self.seconds).get(case, {}).get(machine)
        return statistics.median(values) if values else None

    def ratio(self, case, machine, base):
        """How many times as long `machine` takes as `base` does; None if either was not measured."""
        ours, theirs = self.median(case, machine), self.median(case, base)
        return ours / theirs if ours and theirs else None

    def geometric_mean(self, cases, machine, base):
        logs = [math.log(r) for r in (self.ratio(case, machine, base) for case in cases) if r]
        return math.exp(sum(logs) / len(logs)) if logs else None


def comparisons(machines):
    """The columns of ratios: (machine, base, heading, whether to show how many times as fast, not as slow)."""
    columns = [(m, "native", f"{m}/native", False) for m in machines if m != "native" and "native" in machines]
    ours = [m for m in machines if m not in ("native", "tcg") and "tcg" in machines]
    return columns + [(m, "tcg", f"{m} vs tcg", True) for m in ours]


def show(value, form="{:.3f}"):
    return "–" if value is None else form.format(value)


def row(name, cells):
    return f"{name:<24}" + "".join(f"{cell:>14}" for cell in cells)


def ratio_cell(value, faster):
    return show(value and (1 / value if faster else value), "{:.2f}×")


def mips(seconds):
    return seconds and suite.LOOP_ITERATIONS * suite.LOOP_INSNS_PER_ITERATION / seconds / 1e6


def table(figures):
    machines, columns = figures.machines, comparisons(figures.machines)
    lines = [row("seconds (median)", machines + [heading for *_, heading, _ in columns])]
    for case in suite.SETS["all"]:
        if case in figures.seconds:
            cells = [show(figures.median(case, m)) for m in machines]
            cells += [ratio_cell(figures.ratio(case, m, b), faster) for m, b, _, faster in columns]
            lines.append(row(case, cells))
    if "loop" in figures.seconds:
        lines.append(row("loop, million insns/s", [show(mips(figures.median("loop", m)), "{:.0f}") for m in machines]))
    for title, cases in (("compute kernels", suite.KERNELS["compute"]), ("all kernels", suite.ALL_KERNELS),
                         ("programs", suite.PROGRAMS)):
        if columns and any(case in figures.seconds for case in cases):
            cells = [ratio_cell(figures.geometric_mean(cases, m, b), faster) for m, b, _, faster in columns]
            lines.append(row("geomean " + title, [""] * len(machines) + cells))
    for what, by_machine in figures.memory.items():
        cells = [show(figures.median(what, m, figures.memory), "{:.1f}") for m in machines]
        lines.append(row(f"MiB beyond RAM, {what}", cells))
    return "\n".join(lines)


def host():
    """What the figures depend on, as far as the host tells it."""
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0]}


def as_json(figures, options):
    columns = comparisons(figures.machines)
    cases = {case: {"seconds": by_machine, "median": {m: figures.median(case, m) for m in by_machine},
                    "verdict": figures.verdicts.get(case, {})} for case, by_machine in figures.seconds.items()}
    sets = {"compute": suite.KERNELS["compute"], "kernels": suite.ALL_KERNELS, "programs": suite.PROGRAMS}
    means = {name: {f"{m}/{b}": figures.geometric_mean(members, m, b) for m, b, *_ in columns}
             for name, members in sets.items()}
    return json.dumps({"host": host(), "options": options, "cases": cases, "geometric_means": means,
                       "memory_beyond_ram_mib": figures.memory, "troubles": figures.troubles,
                       "doubts": figures.doubts}, indent=1)
