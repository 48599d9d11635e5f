"""Typed settings: options of the scripts, hyper-parameters, data sets.

Nothing is imported here: each script's ``--help`` would wait for what only data sets need.
"""
