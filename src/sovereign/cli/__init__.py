"""The command line: each command reads, calls one function, prints, and exits."""
