"""The final report and the slides, from what was measured and what the warehouse holds; nothing is typed by hand.

results      docs/results/*.json as rows with a verdict
index        docs/results/README.md: every page with its verdicts, and what missed
figures      every chart, as SVG
warehouse    what the marts say now, where a warehouse answers
__main__     `make report`: both pages into <var_dir>/reports/final/
"""
