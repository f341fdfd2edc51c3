"""What the benchmark measures: the cases by name, in groups. See bench/kernels/ and bench/programs/."""

# The group "compute" is what the figure "slowdown from native" speaks of.
KERNELS = {
    "compute": ["sieve", "sha256", "qsort", "tree", "nbody", "matmul_double", "matmul_float", "x87", "calls_recursive",
                "calls_indirect"],
    "memory": ["chase_cached", "chase_memory", "copy"],
    "system": ["syscalls", "page_faults", "fork", "exec", "pipe"],
    "rewriting": ["code_rewrite"],
}
ALL_KERNELS = [name for group in KERNELS.values() for name in group]
PROGRAMS = ["gcc", "xz", "gzip", "sha256sum", "openssl_aes", "openssl_rsa", "python", "grep", "fork_exec",
            "monero_mining"]
LOOP_ITERATIONS = 40_000_000  # as bench/meson.build builds the guest
LOOP_INSNS_PER_ITERATION = 13.5  # see bench/loop.h
BOOTS = ["init", "login"]

SETS = {"loop": ["loop"], "kernels": ALL_KERNELS, "programs": PROGRAMS, "boots": BOOTS, **KERNELS}
SETS["all"] = ["loop", *ALL_KERNELS, *PROGRAMS, *BOOTS]


def chosen(names):
    """The cases that a list of sets and cases names, in the order of the suite. Raises KeyError with an unknown one."""
    wanted = set()
    for name in names:
        if name not in SETS and name not in SETS["all"]:
            raise KeyError(name)
        wanted.update(SETS.get(name, [name]))
    return [case for case in SETS["all"] if case in wanted]
