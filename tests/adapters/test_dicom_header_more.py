"""What DICOMweb searches by: descriptions, numbers and names beside the routing attributes."""

from bedside_edge.dicom.header import read_header
from bedside_edge.dicom.quiet import muted_warnings
from support.synthetic import data_set, part10


def test_what_searches_return_is_read_from_the_header():
    made = data_set(
        StudyTime="101530",
        StudyID="ST7",
        StudyDescription="Thorax p.a.",
        SeriesDescription="Detail",
        SeriesNumber=4,
        InstanceNumber=9,
        ReferringPhysicianName="Gray^Ann",
    )
    header = read_header(part10(made))
    assert header.study_time == "101530"
    assert (header.study_label, header.study_description) == ("ST7", "Thorax p.a.")
    assert (header.series_description, header.series_number) == ("Detail", "4")
    assert (header.instance_number, header.frames) == ("9", "")
    assert header.referring_physician == "Gray^Ann"


def test_a_description_longer_than_allowed_does_not_refuse_the_object():
    with muted_warnings():
        made = part10(data_set(StudyDescription="x" * 4000, ReferringPhysicianName="y" * 4000))
    assert read_header(made).study_description == "x" * 1024
