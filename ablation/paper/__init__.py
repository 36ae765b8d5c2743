"""The paper's figures and tables as commands: ``python -m ablation.paper NAME``.

__main__.py     the commands
finished.py     a finished run: its config, data and models
noise.py        Fig. 2a: better on test images, worse on those that it was trained on?
difficulty.py   Fig. 2b, Table 5: easy and difficult test images
heatmap.py      Fig. 5: how much the background of an image counts, place by place
sweeps.py       Fig. 6, 7: fraction of easy images, number of phases
tables.py       Tables 3 and 4
plots.py        curves and bars
"""
