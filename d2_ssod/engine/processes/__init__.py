"""The processes of a run.

agreement.py     what all of them must have in common
interruption.py  signals that ask a run to end
group.py         how they end, in one line
logs.py          what is said, and where
"""
