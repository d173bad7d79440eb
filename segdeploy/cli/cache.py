from __future__ import annotations

import argparse
from pathlib import Path

from segdeploy.cli.arguments import add_json, between
from segdeploy.cli.printing import print_lines, print_next, put_json
from segdeploy.shell import command_line, shell_word

SHOWN = 20  # differences


def describe(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    kinds = "a TensorRT calibration cache, or the scales.json of quantize"
    show = steps.add_parser("show", help="show header, tensors and scales", description=f"Show {kinds}.")
    show.add_argument("file", metavar="FILE", type=Path, help=kinds)
    show.add_argument(
        "--for", dest="tensorrt", metavar="VERSION", help="refuse a cache of another TensorRT than this"
    )
    add_json(show)
    compare = steps.add_parser(
        "compare",
        help="show the largest differences of two files; exit status 1 if they differ",
        description="Compare two files, each a calibration cache or a scales.json. Exit status 1 if they differ.",
    )
    compare.add_argument("first", metavar="A", type=Path, help=kinds)
    compare.add_argument("second", metavar="B", type=Path, help=kinds)
    compare.add_argument(
        "--within",
        type=between(0, 100, whole=False),
        metavar="P",
        default=0.0,
        help="per cent by which a scale may differ (default: 0)",
    )
    add_json(compare)
    graphs = steps.add_parser(
        "graphs",
        help="the graphs that are kept of checkpoints",
        description="List the graphs that verbs have made of checkpoints, and kept in the user's cache.",
    )
    graphs.add_argument("--clear", action="store_true", help="remove them all")
    add_json(graphs)
    convert = steps.add_parser(
        "convert",
        help="convert for another TensorRT, or to and from scales.json",
        description="Names and scales stay, only the header changes: NVIDIA does not promise that a cache is valid"
        " across releases.",
    )
    convert.add_argument("file", metavar="FILE", type=Path, help=kinds)
    convert.add_argument(
        "--for", dest="tensorrt", metavar="VERSION", help="TensorRT version of the written cache, as in 8.5.1"
    )
    convert.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        required=True,
        help="a scales.json if the name ends in .json",
    )


def execute(arguments: argparse.Namespace) -> int:
    steps = {"show": show, "compare": compare_files, "convert": convert_file, "graphs": graphs}
    return steps[arguments.step](arguments)


def graphs(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from segdeploy.convert.kept import cache_folder, clear_graphs, kept_graphs

    if arguments.clear:
        print_lines(f"{clear_graphs() / 1e6:.1f} MB of graphs removed from {cache_folder()}")
        return 0
    found = kept_graphs()
    if put_json(arguments.json, [{"file": str(one.path), **asdict(one.kept)} for one in found]):
        return 0
    for one in found:
        print_lines(
            f"{one.path.stat().st_size / 1e6:8.1f} MB  {one.path}", f"{'':13}made by: {one.kept.command}"
        )
    print_lines(f"{len(found)} graphs in {cache_folder()}")
    print_next("segdeploy cache graphs --clear, which removes them")
    return 0


def show(arguments: argparse.Namespace) -> int:
    from segdeploy.convert.int8.cache import demand_version
    from segdeploy.convert.int8.scale_files import described, is_ours, read_scale_file
    from segdeploy.errors import RequestError

    path = arguments.file
    scales = read_scale_file(path)
    if arguments.tensorrt:
        if is_ours(path):
            raise RequestError(
                f"--for {arguments.tensorrt} is of a calibration cache; {path.name} is of no TensorRT"
            )
        demand_version(path, scales, arguments.tensorrt)
    facts = {
        "file": str(path),
        "header": None if is_ours(path) else scales.header,
        "tensorrt": scales.tensorrt or None,
        "algorithm": scales.algorithm,
        "dead": scales.dead,
        "scales": scales.scales,
    }
    if put_json(arguments.json, facts):
        return 0
    print_lines(f"{path}: {described(scales)}, {len(scales.scales)} tensors, {len(scales.dead)} of them dead")
    width = max(map(len, scales.scales), default=0)
    for name, scale in scales.scales.items():
        print_lines(
            f"{name:{width}}  "
            + (f"{scale:.6g}  ±{127 * scale:.6g}" if scale else "0  dead: never anything but zero")
        )
    print_next(f"{command_line('segdeploy', 'cache', 'compare', path)} OTHER")
    return 0


def compare_files(arguments: argparse.Namespace) -> int:
    from segdeploy.convert.int8.scale_files import described, differences, read_scale_file

    first, second = read_scale_file(arguments.first), read_scale_file(arguments.second)
    compared, found = differences(first, second)
    beyond = [one for one in found if 100 * one.share > arguments.within]
    same = not (beyond or compared.only_first or compared.only_second)
    facts = {
        "first": {
            "file": str(arguments.first),
            "tensorrt": first.tensorrt or None,
            "algorithm": first.algorithm,
        },
        "second": {
            "file": str(arguments.second),
            "tensorrt": second.tensorrt or None,
            "algorithm": second.algorithm,
        },
        "only_first": compared.only_first,
        "only_second": compared.only_second,
        "within_percent": arguments.within,
        "differences": [one._asdict() for one in found],
        "same": same,
    }
    if put_json(arguments.json, facts):
        return 0 if same else 1
    print_lines(f"A  {arguments.first}: {described(first)}, {len(first.scales)} tensors")
    print_lines(f"B  {arguments.second}: {described(second)}, {len(second.scales)} tensors")
    for letter, names in (("A", compared.only_first), ("B", compared.only_second)):
        if names:
            print_lines(f"only in {letter}: {', '.join(names[:SHOWN])}" + more(len(names)))
    print_lines(
        f"{len(compared.differences)} tensors in both, {len(beyond)} differ by more than {arguments.within:g} %"
    )
    width = max((len(one.tensor) for one in beyond[:SHOWN]), default=0)
    for one in beyond[:SHOWN]:
        print_lines(f"{one.tensor:{width}}  {one.first:.6g}  {one.second:.6g}  {100 * one.share:.3g} %")
    if len(beyond) > SHOWN:
        print_lines(more(len(beyond)).strip())
    print_next(
        f"segdeploy quantize MODEL --scales {shell_word(arguments.first)} --images DIR, which judges them"
    )
    return 0 if same else 1


def more(count: int) -> str:
    return f" and {count - SHOWN} more" if count > SHOWN else ""


def convert_file(arguments: argparse.Namespace) -> int:
    from segdeploy.convert.int8.scale_files import convert

    words = convert(arguments.file, arguments.tensorrt, arguments.output)
    print_lines(f"{arguments.output}: {words}")
    print_next(command_line("segdeploy", "cache", "compare", arguments.file, arguments.output))
    return 0
