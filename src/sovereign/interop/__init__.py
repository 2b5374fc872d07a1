"""Other people's trainers: their logs as series, their runs as folders whose numbers are reported, never recomputed."""
