"""Writes the page of a rendered application: what each of the two does, and the commands."""

from __future__ import annotations

from segdeploy.serve.deepstream.app.request import AppRequest, names_of
from segdeploy.serve.deepstream.app.settings import METRICS_PORT, RTSP_PORT
from segdeploy.serve.deepstream.app_files import filled
from segdeploy.serve.deepstream.picture import PICTURE
from segdeploy.serve.deepstream.plan import Plan
from segdeploy.version import __version__

TILES = f"Each source is a tile, drawn as the street of [{PICTURE}]({PICTURE}); README.md says what that picture is."
SEEN = {
    "rtsp": f"Look at it: `rtsp://BOX:{RTSP_PORT}/ds-test` (VLC, ffplay). {TILES}",
    "file": f"It writes segdeploy_app.mkv, which can be read up to where it was written. {TILES}",
    "display": f"It opens a window on the box. {TILES}",
    "fake": "Nothing is drawn (`--sink fake`): lines and figures are all there is.",
}


def readme_of(request: AppRequest, plan: Plan) -> str:
    kafka_or_mqtt = f"{request.publish}, topic {request.topic}" if request.publish else "standard output"
    sources = "\n".join(f"| {number} | `{name}` |" for number, name in enumerate(names_of(request.sources)))
    colours = (
        "NVIDIA's palette of 22 (`[segvisual]`), not the card's colours; no legend"
        if request.has_class_maps
        else "nothing: its deepstream-app has no `[segvisual]`"
    )
    maps = (
        "nvinfer's class maps (`segmentation_items`)"
        if request.has_class_maps
        else "the tensor that nvinfer hands on (`tensor_items`): its Service Maker is not known to show class maps"
    )
    return filled(
        "APP.md",
        segdeploy=__version__,
        version=request.deepstream,
        model=request.model.name,
        streams=len(request.sources),
        sources=sources,
        seen=SEEN[request.sink],
        out=request.sink,
        published=kafka_or_mqtt,
        classes=plan.graph.signature.classes,
        colours=colours,
        maps=maps,
        metrics=METRICS_PORT,
        first=f"The server of `{request.triton}` has to run: README.md says how."
        if request.triton
        else "The first start takes minutes, because nvinfer builds its engine; it is kept in this folder.",
        parser="make -C parser\n    " if plan.parser == "segdeploy" else "",
        muxer=f"{request.muxer.width}x{request.muxer.height}",
    )
