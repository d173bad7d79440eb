"""Frames from somewhere, through a session, to somewhere.

sources   what SOURCE may be, opened        clips, live, pipes   files; what can be lost; what comes through a pipe
inbox     frames that wait for the network  pipeline             the threads, and what happens when one fails
outputs   what OUTPUT may be                sinks, window        where segmented frames go
images    image files, without any of this
"""
