"""The training of a phase.

phase_trainer.py   an ordinary Detectron2 trainer
building.py        ... what is said while its parts are built
mixed_precision.py ... in bfloat16 on the CPU
repeatable.py      ... losses that are the same after an interruption
averaging.py       the running average of the weights
teacher.py         ... which labels each batch of the last phase anew
"""
