"""Lists the groups and keys that NVIDIA's deepstream-app reads, each with its type; from its public sources of 9.1."""

from __future__ import annotations

import re
from functools import cache

INTEGER, BOOLEAN, NUMBER, TEXT = "a whole number", "true or false", "a number", "a text"
COLOUR = "four numbers from 0 to 1, as in 1;0;0;1"
_KEYS = {
    "source": {
        INTEGER: """
        type enable camera-width camera-height camera-fps-n camera-fps-d camera-csi-sensor-id
        camera-v4l2-dev-node udp-buffer-size latency num-sources gpu-id num-decode-surfaces
        num-extra-surfaces drop-frame-interval drop-on-latency camera-id rtsp-reconnect-interval-sec
        init-rtsp-reconnect-interval-sec rtsp-reconnect-attempts simulate-fps-interval-ms
        intra-decode-enable low-latency-decode cudadec-memtype nvbuf-memory-type select-rtp-protocol
        set-rtp-protocol leaky max-size-buffers buffer-mode source-id smart-record smart-rec-video-cache
        smart-rec-cache smart-rec-container smart-rec-start-time smart-rec-default-duration
        smart-rec-duration smart-rec-interval extract-sei-type5-data copy-hw
        """,
        BOOLEAN: "sensorID-padID-mapping",
        TEXT: "alsa-device video-format uri smart-rec-dir-path smart-rec-file-prefix",
    },
    "streammux": {
        INTEGER: """
        compute-hw cache-buffer-timeout sync-inputs-ntp width height gpu-id enable-padding frame-duration
        buffer-pool-size batch-size live-source attach-sys-ts-as-ntp batched-push-timeout nvbuf-memory-type
        sync-inputs max-latency num-surfaces-per-frame extract-sei-type5-data extract-sei-sim-time
        align-first-buffer failsafe-flush-count drop-backward-sei
        """,
        BOOLEAN: """
        sort-batch cache-buffer frame-num-reset-on-stream-reset frame-num-reset-on-eos async-process
        drop-pipeline-eos
        """,
        TEXT: "config-file-path",
    },
    "segvisual": {
        INTEGER: "enable width height batch-size nvbuf-memory-type gpu-id",
    },
    "osd": {
        INTEGER: """
        enable process-mode border-width text-size show-clock clock-x-offset clock-y-offset clock-text-size
        nvbuf-memory-type gpu-id
        """,
        BOOLEAN: "display-text display-bbox display-mask",
        TEXT: "font hw-blend-color-attr",
        COLOUR: "text-color text-bg-color clock-color",
    },
    "primary-gie": {
        INTEGER: """
        enable batch-size plugin-type audio-framesize audio-hopsize audio-input-rate min-crop-size verbose
        interval gie-unique-id operate-on-gie-id gpu-id nvbuf-memory-type
        """,
        BOOLEAN: "input-tensor-meta",
        TEXT: """
        operate-on-class-ids model-engine-file audio-transform model-variant device backend triton-url
        triton-model labelfile-path config-file infer-raw-output-dir
        """,
    },
    "sink": {
        INTEGER: """
        enable type link-to-demux width height sync nvbuf-memory-type container codec enc-type copy-meta
        output-io-mode sw-preset bitrate profile iframeinterval source-id rtsp-port udp-port udp-buffer-size
        color-range conn-id plane-id set-mode compute-hw gpu-id msg-conv-payload-type msg-conv-comp-id
        msg-conv-frame-interval msg-broker-comp-id disable-msgconv sleep-time
        """,
        BOOLEAN: """
        nvdslogger show-fps show-latency qos multiple-payloads msg-conv-msg2p-new-api msg-conv-dummy-payload
        new-api
        """,
        TEXT: """
        output-file msg-conv-config msg-conv-msg2p-lib debug-payload-dir msg-conv-embedding-filter
        msg-broker-proto-lib msg-broker-conn-str topic msg-broker-config
        """,
    },
    "tiled-display": {
        INTEGER: """
        enable rows columns width height gpu-id nvbuf-memory-type compute-hw buffer-pool-size
        """,
        BOOLEAN: "square-seq-grid",
    },
    "application": {
        INTEGER: "enable-perf-measurement perf-measurement-interval-sec global-gpu-id",
        TEXT: """
        gie-kitti-output-dir kitti-track-output-dir reid-track-output-dir terminated-track-output-dir
        shadow-track-output-dir
        """,
    },
    "tests": {
        INTEGER: "file-loop pipeline-recreate-sec",
    },
    "source-list": {
        INTEGER: """
        num-source-bins max-batch-size sgie-batch-size extract-sei-type5-data low-latency-mode
        """,
        BOOLEAN: """
        dummy-payload custom-ts-to-rfc use-nvmultiurisrcbin stream-name-display enable-error-propagation
        """,
        TEXT: """
        batched-sensor-name list sensor-id-list sensor-name-list http-ip http-port sei-uuid proto-lib
        conn-str topic
        """,
    },
    "tracker": {
        INTEGER: """
        enable tracker-width tracker-height gpu-id tracker-surface-type tracking-surface-type
        display-tracking-id tracking-id-reset-mode tensor-meta-gie-id compute-hw user-meta-pool-size
        sub-batch-err-recovery-trial-cnt
        """,
        BOOLEAN: "input-tensor-meta",
        TEXT: "ll-config-file ll-lib-file sub-batches operate-on-class-ids",
    },
    "ds-example": {
        INTEGER: """
        enable full-frame processing-width processing-height unique-id gpu-id nvbuf-memory-type batch-size
        """,
        BOOLEAN: "blur-objects",
    },
    "nvds-analytics": {
        INTEGER: "enable",
        TEXT: "config-file",
    },
    "pre-process": {
        INTEGER: "enable operate-on-gie-id",
        TEXT: "config-file",
    },
    "img-save": {
        INTEGER: "enable gpu-id min-box-width min-box-height",
        NUMBER: """
        save-img-full-frame save-img-cropped-obj second-to-skip-interval min-confidence max-confidence
        """,
        TEXT: "output-folder-path frame-to-skip-rules-path",
    },
    "message-converter": {
        INTEGER: "enable msg-conv-payload-type msg-conv-comp-id msg-conv-frame-interval",
        BOOLEAN: "multiple-payloads msg-conv-msg2p-new-api msg-conv-dummy-payload",
        TEXT: "msg-conv-config msg-conv-msg2p-lib debug-payload-dir msg-conv-embedding-filter",
    },
    "message-consumer": {
        INTEGER: "enable",
        TEXT: "config-file proto-lib conn-str sensor-list-file subscribe-topic-list",
    },
    "visionencoder": {
        INTEGER: """
        enable batch-size min-crop-size gpu-id skip-interval cache-refresh-interval cache-max-size
        query-only
        """,
        BOOLEAN: "verbose smart-infer ofa-predict",
        NUMBER: "ofa-motion-threshold ofa-high-motion-threshold",
        TEXT: """
        model-variant device backend triton-url triton-model embedding-classes onnx-model tensorrt-engine
        """,
    },
    "text-embedder": {
        INTEGER: "enable",
        TEXT: "model-name onnx-model-path tokenizer-dir",
    },
    "replay": {
        INTEGER: "enable label-width label-height interval",
        TEXT: "label-dir file-names max-frame-nums",
    },
}  # fmt: skip
# Groups of which there may be several, numbered or not, and those that are read like another.
_NUMBERED = {
    "source": "source",
    "sink": "sink",
    "secondary-gie": "primary-gie",
    "secondary-pre-process": "pre-process",
    "message-consumer": "message-consumer",
}
_LIKE = {"source-attr-all": "source"}
_COLOURS = re.compile(r"bbox-(?:border|bg)-color\d*")  # of a class each


def group_kind(group: str) -> str | None:
    """Give the name under which a group's keys are listed; None for a group that the app does not read."""
    if group in _LIKE:
        return _LIKE[group]
    found = re.fullmatch(r"(.*?)(\d*)", group)
    if found and found[1] in _NUMBERED and (found[2] or found[1] not in ("source", "sink")):
        return _NUMBERED[found[1]]
    return group if group in _KEYS and group not in ("source", "sink") else None


@cache
def types_of(kind: str) -> dict[str, str]:
    return {key: said for said, keys in _KEYS[kind].items() for key in keys.split()}


def type_of_key(kind: str, key: str) -> str | None:
    """Say what a key takes; None for one that the app does not read there."""
    is_colour = kind == "primary-gie" and _COLOURS.fullmatch(key)
    return COLOUR if is_colour else types_of(kind).get(key)
