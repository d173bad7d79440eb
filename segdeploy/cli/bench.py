from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdeploy.cli.arguments import INTERFACE_CHOICES
from segdeploy.cli.bench_flags import add_checkpoint, add_comparison, add_runtime, add_timing
from segdeploy.cli.endings import STOPPED
from segdeploy.cli.printing import print_json, print_lines, print_message, print_next, print_talk
from segdeploy.shell import command_line

if TYPE_CHECKING:
    from segdeploy.assess.bench.measure import Measurement
    from segdeploy.assess.bench.meter import Sensors
    from segdeploy.assess.bench.models import ModelOptions, Opened
    from segdeploy.assess.bench.modes import BenchPlan


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="an .onnx, an .engine, triton://HOST:PORT/MODEL, or a checkpoint, which runs in PyTorch (or its graph:"
        " --network graph); or demo-b0, the bundled model",
    )
    add_timing(parser)
    add_runtime(parser)
    add_checkpoint(parser)
    add_comparison(parser)


def execute(arguments: argparse.Namespace) -> int:
    from segdeploy.assess.bench.jetson import open_board
    from segdeploy.assess.bench.models import on_gpu
    from segdeploy.assess.bench.nvml import open_gpu
    from segdeploy.assess.bench.results import results_of, setting, write_results

    put_graphs_of_checkpoints(arguments)
    plan, opening, batches = demand(arguments)
    models = [arguments.model, *(arguments.compare or [])]
    sensors: Sensors | None = open_board() or (open_gpu() if on_gpu(models, opening) else None)
    where = setting(sensors, arguments.threads)
    bench = Bench(plan, opening, sensors, quiet=arguments.json == "-")
    if sensors is None and on_gpu(models, opening):
        bench.say("the GPU's power, clocks and memory are not measured: pip install 'segdeploy[cuda]'")
    try:
        if arguments.compare:
            found = bench.compared(models, batches, arguments.allow_unlike)
        elif arguments.end_to_end:
            found = bench.end_to_end(arguments.model, arguments.end_to_end)
        else:
            found = bench.measured(arguments.model, batches)
            if arguments.reference is not None:
                bench.refer(arguments.reference or where["machine"]["device"], found["measurements"])
        command = arguments.command
        results = results_of(where, plan, bench.models, command=command, **found)
        if arguments.export_times:
            export(found["measurements"], plan, arguments.export_times)
    finally:
        for model in bench.models:
            model.session.close()
    if arguments.json == "-":
        print_json(results)
    elif arguments.json:
        write_results(results, Path(arguments.json))
    if bench.stopped:
        print_message("stopped; what was measured so far is above")
        return STOPPED
    if arguments.json != "-":
        print_next(next_after(arguments))
    return 0


def next_after(arguments: argparse.Namespace) -> str:
    if arguments.json:
        return command_line("segdeploy", "report", Path(arguments.json).parent)
    if arguments.model.endswith(".onnx"):
        return command_line("segdeploy", "tune", arguments.model)
    return "the same command with --json out/bench.json, of which segdeploy report out makes a page"


def put_graphs_of_checkpoints(arguments: argparse.Namespace) -> None:
    """Put the kept graph of each checkpoint in its place, where `--network graph` asks for it."""
    from segdeploy.cli.model_argument import kept_graph_for
    from segdeploy.errors import RequestError
    from segdeploy.networks.sources import is_checkpoint

    put_bundled_graphs(arguments)
    if arguments.network != "graph":
        return
    models = [arguments.model, *(arguments.compare or [])]
    if not any(map(is_checkpoint, models)):
        raise RequestError(
            f"--network graph is for checkpoints, and {', '.join(models)} is none; leave it out"
        )
    asked = argparse.Namespace(
        graph_size=arguments.size, graph_interface=arguments.interface, graph_fp16=arguments.fp16, graph_revision=None
    )  # fmt: skip
    found = [str(kept_graph_for(Path(model), asked)) if is_checkpoint(model) else model for model in models]
    arguments.model, others = found[0], found[1:]
    arguments.compare = others or None
    arguments.network = arguments.size = arguments.interface = None
    arguments.fp16 = False


def put_bundled_graphs(arguments: argparse.Namespace) -> None:
    """Put its graph in the place of the bundled model's name; --interface says which of its graphs."""
    from segdeploy.convert.bundled import bundled_graph, is_bundled

    models = [arguments.model, *(arguments.compare or [])]
    if not any(is_bundled(Path(model)) for model in models):
        return
    graph = str(bundled_graph(arguments.interface or INTERFACE_CHOICES[0]))
    found = [graph if is_bundled(Path(model)) else model for model in models]
    arguments.model, arguments.compare = found[0], found[1:] or None
    arguments.interface = None


def demand(arguments: argparse.Namespace) -> tuple[BenchPlan, ModelOptions, list[int] | None]:
    from segdeploy.assess.bench.models import ModelOptions, demand_used
    from segdeploy.assess.bench.modes import plan_measurement
    from segdeploy.devices import device_called
    from segdeploy.errors import RequestError

    batches: list[int] | None = arguments.batch
    several = batches is not None and len(batches) > 1
    if arguments.export_times and (several or arguments.compare or arguments.end_to_end):
        raise RequestError("--export-times holds the queries of one model at one batch size; ask for one")
    if arguments.end_to_end and batches is not None:
        raise RequestError("--end-to-end takes frames as the model does, so leave --batch out")
    if arguments.reference is not None and (arguments.compare or arguments.end_to_end):
        raise RequestError("--reference is for measuring one model by itself; leave it out")
    if arguments.reference:
        device_called(arguments.reference)
    if arguments.streams > 1 and (arguments.compare or arguments.end_to_end):
        raise RequestError(
            f"--streams {arguments.streams} is for measuring one model by itself; leave it out"
        )
    plan = plan_measurement(
        arguments.trtexec_compat,
        transfers=None if arguments.transfers is None else arguments.transfers == "include",
        cuda_graph=arguments.cuda_graph,
        streams=arguments.streams,
        warm_up_ms=arguments.warmup,
        duration_s=arguments.duration,
    )
    opening = ModelOptions(
        arguments.threads,
        arguments.provider,
        plan.modes.cuda_graph,
        arguments.precision,
        arguments.as_exported,
        print_message,
        arguments.network,
        arguments.interface,
        arguments.size,
        arguments.fp16,
        one_caller=bool(arguments.compare or arguments.end_to_end),
    )
    demand_used([arguments.model, *(arguments.compare or [])], opening)
    return plan, opening, batches


def export(measurements: list[Measurement], plan: BenchPlan, path: Path) -> None:
    from segdeploy.assess.bench.results import results_text
    from segdeploy.assess.bench.timings import export_times
    from segdeploy.files import write_text

    (measurement,) = measurements
    write_text(path, results_text(export_times(measurement.queries, plan.warm_up_ms)))


class Bench:
    """Measures what was asked for and shows each result as soon as all of its kind are there."""

    def __init__(self, plan: BenchPlan, opening: ModelOptions, sensors: Sensors | None, quiet: bool) -> None:
        self.plan, self.opening, self.sensors, self.quiet = plan, opening, sensors, quiet
        self.models: list[Opened] = []
        self.stopped = False

    def measured(self, model: str, batches: list[int] | None) -> dict[str, Any]:
        from segdeploy.assess.bench.measure import demand_batches, measure, usual_batches
        from segdeploy.assess.bench.meter import Before
        from segdeploy.assess.bench.table import how_it_ran, measurements_shown
        from segdeploy.run.address import is_served

        before = Before.look(self.sensors)
        opened = self.open(model)
        batches = batches or usual_batches(opened.session)
        demand_batches(opened.session, batches)
        measurements: list[Measurement] = []
        plan = self.plan.with_streams(max(self.plan.modes.streams, opened.streams))
        try:
            for batch in batches:
                self.announce(f"{opened.name}, batch {batch}: {self.plan.duration_s:g} s")
                measurements.append(measure(opened.session, batch, plan, before=before, sensors=self.sensors))
                if measurements[-1].stopped:
                    self.stopped = True
                    break
        except KeyboardInterrupt:  # before the first query of a further batch was counted
            if not measurements:
                raise
            self.stopped = True
        self.say(f"{opened.name} in {opened.runtime}")
        self.show(measurements_shown(measurements))
        last = measurements[-1]
        self.say(how_it_ran(self.plan, last.ran, last.timings.walltime_ms if last.stopped else None))
        for measurement in measurements:
            for warning in measurement.warnings:
                self.say(f"warning, batch {measurement.batch}: {warning}")
        if opened.record is None and not is_served(model):
            self.say(f"{opened.name} has no record: how well it agrees with its checkpoint is not known")
        return {"measurements": measurements}

    def refer(self, device: str | None, measurements: list[Measurement]) -> None:
        from segdeploy.assess.bench.reference import published_lines

        if device is None:
            self.say(
                "nothing ran on a GPU here, and published numbers are of GPUs; name one: --reference DEVICE"
            )
            return
        for line in published_lines(device, [(one.batch, one.images_per_s) for one in measurements]):
            self.say(line)

    def compared(self, models: list[str], batches: list[int] | None, allow_unlike: bool) -> dict[str, Any]:
        from segdeploy.assess.bench.compare import compare, demand_alike, markdown_lines
        from segdeploy.assess.bench.measure import demand_batches, usual_batches
        from segdeploy.assess.bench.table import how_it_ran

        for model in models:
            self.open(model)
        demand_alike(self.models, allow_unlike)
        batches = batches or usual_batches(self.models[0].session)
        for opened in self.models:
            demand_batches(opened.session, batches)
        comparisons = []
        try:
            for batch in batches:
                self.announce(f"batch {batch}: {self.plan.duration_s * len(models):g} s")
                comparisons.append(compare(self.models, batch, self.plan, allow_unlike=allow_unlike))
                self.say(*markdown_lines(comparisons[-1]), "")
                if comparisons[-1].stopped:
                    self.stopped = True
                    break
        except KeyboardInterrupt:
            if not comparisons:
                raise
            self.stopped = True
        for ran, names in comparisons[0].ran_alike():
            self.say(f"{how_it_ran(self.plan, ran)} ({', '.join(names)})")
        for difference in comparisons[0].unlike:
            self.say(f"the models differ in {difference}")
        return {"comparisons": comparisons}

    def end_to_end(self, model: str, source: Path) -> dict[str, Any]:
        from segdeploy.assess.bench.table import waterfall_shown
        from segdeploy.assess.bench.waterfall import measure_end_to_end

        opened = self.open(model)
        self.announce(f"{opened.name}, end to end: {self.plan.duration_s:g} s")
        waterfall = measure_end_to_end(opened.session, source, self.plan)
        self.stopped = waterfall.stopped
        self.say(
            f"{opened.name} in {opened.runtime}: {waterfall.frames} images of {waterfall.frame} from {waterfall.source}"
        )
        self.show(waterfall_shown(waterfall))
        self.say(
            f"{waterfall.outside_network:.1%} of the time is not the network; {waterfall.images_per_s:.1f} images/s"
            f" with one stage after the other; encoded as {waterfall.encoded}"
        )
        return {"waterfall": waterfall}

    def open(self, model: str) -> Opened:
        from segdeploy.assess.bench.models import open_model
        from segdeploy.picture.video_location import as_typed

        self.announce(f"opening {as_typed(model)}")
        self.models.append(open_model(model, self.opening))
        return self.models[-1]

    def announce(self, step: str) -> None:
        """A line, not a spinner: that would take turns with what is measured."""
        if sys.stderr.isatty():
            print_talk(step)

    def say(self, *lines: str) -> None:
        if not self.quiet:
            print_lines(*lines)

    def show(self, table: Any) -> None:
        from segdeploy.cli.console import show_tables

        if not self.quiet:
            show_tables([table])
