"""The demonstration: a real box on loopback, real studies sent to it, an honest report.

It plays the hospital around the box. It talks to the box only from outside, by DICOM and HTTP, as
a modality or a PACS would, and takes nothing for granted that it did not see answered.
"""
