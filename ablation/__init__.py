"""What each part of the method is worth on the embedded data set, against fair controls.

rows.py         what is compared
run.py          trains what has no result yet (``python -m ablation.run``)
oracle.py       the upper bound of re-weighting, which sees the unlabeled images' ground truth
separation.py   how well weights tell missed objects from background
one_stage.py    SSD, CSD and ISD (``python -m ablation.one_stage``)
real/           real pictures (``python -m ablation.real``), in folders which are made of others by
digits_folder.py  the embedded data set, laid out so
real_folder.py    steel and blood cells as published, laid out so
lite0.py          a backbone trained on ImageNet
redraw.py         other pictures labeled
shrink.py         smaller pictures
training.py     one training in a process of its own, for these two, and what came of it
waves.py        what is missing, after what it needs
figures.py      means, differences and tables
paper/          the paper's figures and tables (``python -m ablation.paper``)
report.py       the results as ``docs/ablation.md`` (``python -m ablation.report``)
results/        one small JSON file per finished run
"""
