"""Drivers and Ray's workers forked from a process that has imported what they need, instead of seconds of imports for each.

To a test a fork is what a process of its own would be: a driver leads a session in which all that it starts stays, a worker
lives exactly as long as the process that Ray started for it, and each may be killed. With ``REAL_PROCESSES`` in the
environment none is forked, as in ``python -m tests.faults``; tests that start ``subprocess`` have real ones anyway.
"""
