"""Ways to train on real pictures, side by side: ``python -m ablation.real FOLDER``.

rows.py      what is compared, and the config keys of each
oracles.py   pseudo-labels that are put right by the truth
__main__.py  trains what has no result yet, and prints the table
factorial.py what each part of a combination is worth, by all combinations
report.py    the tables of all data that there are results of
"""
