"""What an upload of many objects keeps in memory until it is filed."""

import tracemalloc

from bedside_edge.ports import Way
from support.outputs import publishing_box
from support.synthetic import data_set, noise, part10

OBJECTS = 64


def test_a_long_upload_keeps_no_beginning_of_each_object(tmp_path):
    with publishing_box(tmp_path / "state") as box:
        data = part10(data_set(noise(300, 300)))
        held = []
        tracemalloc.start()
        try:
            for number in range(OBJECTS + 1):
                if number == 1:  # the first one opens what all share
                    before = tracemalloc.get_traced_memory()[0]
                receiving = box.ingest.begin(Way.STOW, "test")
                receiving.write(data)
                receiving.finish()
                held.append(receiving)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown / OBJECTS < 32 << 10  # of 180 kB each
        for receiving in held:
            receiving.abort()
