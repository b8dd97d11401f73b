"""Vendor and field side: signed hardware profiles. Arrives with flashing."""
