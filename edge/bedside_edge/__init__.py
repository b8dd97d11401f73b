"""The appliance inside the hospital: DICOM in and out, engines, store, services, API."""
