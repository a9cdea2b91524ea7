"""The workloads, one module per subject. Each has `rows(context)`, a generator that measures and yields rows."""

from benchmarks.workloads import jobs, memory, merging, reading, reports, running, storing

#: In the order of the table.
ALL = {
    module.__name__.rpartition(".")[2]: module for module in (reports, storing, reading, jobs, merging, memory, running)
}
