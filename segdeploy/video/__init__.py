"""Video in and out, for whatever handles it: the one place that knows FFmpeg (PyAV).

It lies below `stream`, `deepstream` and `bench`, which are not to know each other and all read and write clips. PyAV,
and not OpenCV, because OpenCV hides timestamps, sound and time-outs. From PyAV 17 on a frame is converted by its own
colour matrix; before, BT.709 came out as BT.601.
"""
