"""Scores of frozen features: every probe, every encoder, one command.

What is scored lies in `probes.data`, read from files by `probes.benchmarks`; features come from `probes.encoders`.
`probes.matching`, `probes.pose`, `probes.multiview`, `probes.dense` and `probes.speed` are the probes, each a
`probes.probe.Probe`, on the pure functions of `probes.metrics`. `probes.units` scores, `probes.results` makes tables
and tests of rows by `probes.statistics`, `probes.report` shows them, and `probes.suite` runs it all. Imports mum and
shards, never pretrain.
"""
