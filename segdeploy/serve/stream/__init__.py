"""Frames from somewhere, through a session, to somewhere.

sources   what SOURCE may be, opened        clips, live, pipes   files; what can be lost; what comes through a pipe
inbox     frames that wait for the network  pipeline             the threads, and what happens when one fails
outputs   what OUTPUT may be                sinks, window, view  where segmented frames go
outlet    a sink's own thread and deadline  paced                a file, read as fast as it is to be seen
images    image files, without any of this
"""
