"""DICOM in: association acceptor, Part 10 headers, decoding. Foreign bytes end here as values."""
