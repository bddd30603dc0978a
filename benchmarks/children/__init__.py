"""What runs in the measured processes.

Each module is run as a program, prints its figures as one line of JSON, and imports no more than
what it measures.
"""
