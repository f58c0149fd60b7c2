"""How is the cost of a proxied request measured? One module per question:

routes     which routes every proxy gets
configure  how one table becomes each proxy's own configuration
peers      which proxies there are, where their programs are, how each is started
processes  how a program is started, pinned, metered and ended
load       what the requests are, who sends them and what comes back
machine    what the numbers were measured on, and how quiet it was
report     how rounds become medians, ratios, tables and files

Python's standard library only.
"""
