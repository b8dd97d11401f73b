"""The HTTP service: DICOMweb, inference protocol, appliance API. The only layer that awaits."""
