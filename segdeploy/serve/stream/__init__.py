"""Runs frames from a source through a session to its outputs.

sources   opens a SOURCE                    clips, live, pipes   files; cameras and servers; pipes
inbox     frames that wait for the network  pipeline             the threads, and what happens when one fails
outputs   checks an OUTPUT                  sinks, window, view  where segmented frames go
outlet    a sink's own thread and deadline  paced                reads a file at its own frame rate
messages  the lines of --json                metrics              figures for Prometheus
images    image files, without threads
"""
