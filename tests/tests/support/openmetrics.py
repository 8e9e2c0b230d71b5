"""Reads FILE as OpenMetrics, by the reference parser, and prints each exemplar: the metric's name and the trace."""
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

for family in text_string_to_metric_families(open(sys.argv[1]).read()):
    for sample in family.samples:
        if sample.exemplar:
            print(family.name, sample.exemplar.labels["trace_id"])
