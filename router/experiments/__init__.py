"""What an experiment shows: sums of units, tests that may be looked at any time, and the report.

Pure arithmetic on plain values. It does not know where sums come from, nor who asks for a report.
"""
