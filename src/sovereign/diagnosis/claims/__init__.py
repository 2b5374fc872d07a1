"""Claims: one function each, named as the claim is, from a record read with one seed to a finding.

Coarse tests run beside finer ones, so that taking evidence away never adds a verdict. The procedure holds back
refutations that rest on validation while contamination is open; nothing here knows of that.

    consistency      INVALID_DATA
    loader           BROKEN_LOADER
    instrument       EVAL_PATH, COMPARABILITY_VIOLATED, METRIC_ARTIFACT
    position         POSITION_ARTIFACT
    optimisation     DIVERGED, NOT_LEARNED
    validation       CONTAMINATED, SHIFT, IMPLAUSIBLE
    memorization     MEMORIZED
    generalisation   OVERFIT, PLATEAU
    health           HEALTHY
"""
