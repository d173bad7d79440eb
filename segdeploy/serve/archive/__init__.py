"""Works through archives of images, videos and tars, each file once, by several processes or on a cluster.

items     a file and its name               listing    finds the files of the sources, one after the other
plan      says what a folder is             journal    says what was done; the areas' table is made of it
reading   the frames of a file              labels     writes a file's labels, whole or not at all
worker    opens the model once, and works   areas      makes the table, a row for each frame
archive   hands files out, and takes note
"""
