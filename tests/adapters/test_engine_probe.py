"""The probe reads Linux's own files; made-up ones stand in for other machines."""

import os

from bedside_edge.engine.probe import probe


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CPUINFO = "processor : 0\nvendor_id : GenuineIntel\nflags : fpu sse avx2\n\n"


def test_this_machine_has_an_architecture_cores_and_memory():
    board = probe()
    assert board.arch == os.uname().machine
    assert 1 <= board.cores <= (os.cpu_count() or 1)
    assert board.memory_mib > 256


def test_facts_come_from_the_files(tmp_path):
    write(tmp_path, proc__cpuinfo=CPUINFO, proc__meminfo="MemTotal:  8192000 kB\nMemFree: 1 kB\n")
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/product_name").write_text("ACME Box 2\n")
    board = probe(tmp_path)
    assert (board.cpu_vendor, board.dmi) == ("GenuineIntel", {"product_name": "ACME Box 2"})
    assert board.cpu_flags == {"fpu", "sse", "avx2"}
    assert board.memory_mib == 8000


def test_only_flags_of_every_core_count(tmp_path):
    small = CPUINFO.replace("avx2", "sse2").replace("processor : 0", "processor : 1")
    write(tmp_path, proc__cpuinfo=CPUINFO + small)
    assert probe(tmp_path).cpu_flags == {"fpu", "sse"}


def test_a_containers_limits_count(tmp_path):
    write(tmp_path, proc__meminfo="MemTotal: 8192000 kB\n")
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "cpu.max").write_text("100000 100000\n")
    (cgroup / "memory.max").write_text("1073741824\n")
    board = probe(tmp_path)
    assert (board.cores, board.memory_mib) == (1, 1024)
    (cgroup / "cpu.max").write_text("50000 100000\n")
    assert probe(tmp_path).cores == 1, "half a CPU still needs one thread"


def test_no_limit_is_no_limit(tmp_path):
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "cpu.max").write_text("max 100000\n")
    (cgroup / "memory.max").write_text("max\n")
    assert probe(tmp_path).cores == len(os.sched_getaffinity(0))


def test_a_machine_that_shows_nothing_fits_no_profile_but_does_not_crash(tmp_path):
    board = probe(tmp_path)
    assert (board.cpu_flags, board.memory_mib, board.level) == (frozenset(), 0, "")
