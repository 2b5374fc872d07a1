"""One evaluation, many renderings. A rendering never decides anything: the exit code is the gate's."""
