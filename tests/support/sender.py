"""A sending modality as a process of its own: prints each image that was acknowledged.

Usage: python sender.py HOST PORT AE_TITLE FIRST_STUDY IMAGES_A_STUDY
"""

import sys

from pynetdicom import AE, build_context

from bedside_edge.dicom.scu import keep_answers
from support.chest import chest

STEP = 8  # every n-th pixel: small objects, many of them


def image(study: int, number: int):
    """Return the image that was sent as `number` of `study`."""
    return chest(study, number, step=STEP, shift=number)


def main(host: str, port: int, title: str, first: int, images: int) -> None:
    sample = image(first, 1)
    entity = AE(ae_title="TEST")
    pair = (sample.SOPClassUID, sample.file_meta.TransferSyntaxUID)
    entity.requested_contexts = [build_context(*pair)]
    association = entity.associate(host, port, ae_title=title)
    keep_answers(association)
    for position in range(1000):
        study, number = first + position // images, position % images + 1
        status = association.send_c_store(image(study, number))
        if "Status" not in status:
            return
        assert status.Status == 0
        sys.stdout.write(f"{study} {number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
