"""What must hold: metrics, criteria, and the specs that hold them. No status lives here."""
