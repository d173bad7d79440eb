"""An RTSP server for the tests, run by Debian's python3 with its GStreamer; nothing of segdeploy is imported here.

    python3 rtsp_server.py PORT play|record [USER:PASSWORD]

`/live` plays a moving ball, or takes a stream. "ready" is printed once it listens, "frame" for each frame that it takes
and, with --count, for each that it plays.
"""

import argparse
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PLAYED = (
    "( videotestsrc is-live=true pattern={pattern} ! video/x-raw,width={width},height={height},framerate={fps}/1"
    " ! identity name=sink signal-handoffs=true"
    " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 )"
)
RECORDED = "( rtph264depay name=depay0 ! h264parse ! identity name=sink signal-handoffs=true ! fakesink )"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("port")
    parser.add_argument("kind", choices=("play", "record"))
    parser.add_argument("user", nargs="?")
    parser.add_argument("--mount", default="live")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--size", default="96x160")
    parser.add_argument("--pattern", default="ball")
    parser.add_argument("--count", action="store_true")
    asked = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=asked.port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    if asked.kind == "play":
        height, width = asked.size.split("x")
        factory.set_launch(PLAYED.format(height=height, width=width, fps=asked.fps, pattern=asked.pattern))
    else:
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        factory.set_launch(RECORDED)
    if asked.count or asked.kind == "record":
        factory.connect("media-configure", count)
    if asked.user:
        demand_password(server, factory, *asked.user.split(":"))
    server.get_mount_points().add_factory(f"/{asked.mount}", factory)
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
