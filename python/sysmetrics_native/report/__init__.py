"""A run or a recording as one page that needs nothing else: verdict, facts, charts.

The page has the chart library in it and asks nobody for anything: its own policy (CSP) forbids
every request, and lets only the scripts run that it was made with.
"""
