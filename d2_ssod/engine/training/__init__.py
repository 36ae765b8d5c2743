"""The training of a phase.

phase_trainer.py   an ordinary Detectron2 trainer
building.py        ... what is said while its parts are built
on_cpu.py          ... what it needs on the CPU
rank_averages.py   ... statistics of each process, averaged
averaging.py       the running average of the weights
teacher.py         ... which labels each batch of the last phase anew
"""
