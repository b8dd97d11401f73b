"""Statistics a hospital may release: the catalogue, its integer queries, and reading the answers.

`rows` freezes and bounds the studies, `spec` says what can be asked, `query` compiles it to
integers with a known sensitivity, `choice` does the same for quantiles, `catalogue` names what is
shipped, `measure` adds the noise it is handed, `reading` turns answers into numbers with intervals,
`rates` does ratios, AUC and quantiles from them, `running` holds totals over a year of nights,
`strata` the grades. Nothing here draws randomness, reads a clock or spends a budget.
"""
