"""Configs of runs and of their phases.

files.py       as files and command lines give them
named_files.py what they name outside of the run's folder
checks.py      what they must agree with
odd_keys.py    what is said of keys that are odd
schedule.py    the config of a phase: its length, learning rate and start
"""
