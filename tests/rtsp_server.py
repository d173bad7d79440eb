"""An RTSP server for the tests, run by Debian's python3 with its GStreamer; nothing of segdeploy is imported here.

    python3 rtsp_server.py PORT play|record [USER:PASSWORD]

`/live` plays a moving ball, or takes a stream and writes how many frames came. "ready" is printed once it listens.
"""

import sys
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PLAYED = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=96,framerate=25/1"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 )"
)
RECORDED = "( rtph264depay name=depay0 ! h264parse ! identity name=sink signal-handoffs=true ! fakesink )"


def main() -> None:
    port, kind, *user = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    if kind == "play":
        factory.set_launch(PLAYED)
    else:
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        factory.set_launch(RECORDED)
        factory.connect("media-configure", count)
    if user:
        demand_password(server, factory, *user[0].split(":"))
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


def count(factory: Any, media: Any) -> None:
    media.get_element().get_by_name("sink").connect("handoff", lambda *given: print("frame", flush=True))


def demand_password(server: Any, factory: Any, user: str, password: str) -> None:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
