"""``sparse-vae``: train, draw and publish from the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext

import sparse_vae
from sparse_vae.checks import ExplainedError, SettingError, parse_value

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_UNREAD = 1, 2, 130, 141  # the last two as a shell counts signals


def _all(arguments: argparse.Namespace) -> int:
    from sparse_vae.report.execution import draw_suite, local_cluster, train_suite
    from sparse_vae.report.suites import load_suite

    suite, address = load_suite(arguments.suite), _scheduler(arguments)
    jobs = max(len(suite.runs), len(suite.figures))
    with nullcontext(address) if address else local_cluster(jobs) as address:  # one for both
        status = _outcomes(train_suite(suite, scheduler=address)) or _outcomes(draw_suite(suite, scheduler=address))
    return status or _site(arguments)


def _models(arguments: argparse.Namespace) -> int:
    from sparse_vae.models import model_lines

    print("\n".join(model_lines()))
    return 0


def _datasets(arguments: argparse.Namespace) -> int:
    from sparse_vae.datasets import dataset_lines

    print("\n".join(dataset_lines()))
    return 0


def _download(arguments: argparse.Namespace) -> int:
    from sparse_vae.datasets import download
    from sparse_vae.report.suites import project_root

    try:
        download(arguments.names or None, root=arguments.root or project_root() / "data", mirror=arguments.mirror)
    except SettingError:
        raise
    except ValueError as error:  # of urllib
        raise SettingError(f"the mirror's address cannot be read: {error}") from error
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from sparse_vae.report.execution import train_suite
    from sparse_vae.report.suites import load_suite

    if arguments.suite and arguments.settings:
        raise SettingError("give either --suite or settings of one run, not both: a suite's settings are in its file")
    if arguments.suite:
        return _outcomes(train_suite(load_suite(arguments.suite), scheduler=_scheduler(arguments)))
    if arguments.scheduler:
        raise SettingError("--scheduler is for a suite: a single run is trained on this machine")
    return _train_single(arguments.settings)


def _train_single(settings: list[str]) -> int:
    from sparse_vae.report import execution
    from sparse_vae.report.runs import failings, is_finished, read_record, warn_of_weights
    from sparse_vae.report.suites import expand_run, project_root

    root = project_root()
    values: dict[str, object] = {"model": "vae", "dataset": "digits"}
    shown: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise SettingError(f"settings are written key=value, for example latent_dim=16; got {setting!r}")
        if key in shown:
            raise SettingError(f"{key} is given twice: {key}={shown[key]} and {setting}")
        values[key] = shown[key] = given = parse_value(value)
        if key.removeprefix("dataset.") == "csv" and given and isinstance(given, str):
            values[key], shown[key] = os.path.abspath(given), os.path.relpath(given, root)
    variant = "-".join(f"{key}{value}" for key, value in shown.items() if key not in ("model", "dataset", "seed"))
    for special, plain in (("/", "_"), ("{", "{{"), ("}", "}}")):
        variant = variant.replace(special, plain)
    runs = list(expand_run({**values, **({"variant": variant} if variant else {})}))
    if len(runs) > 1:
        raise SettingError(f"these settings make {len(runs)} runs; give one value for each, or write a suite")
    run = runs[0]
    folder = root / "runs" / "local" / run.name
    if is_finished(folder, run.config, root):
        print(f"finished before: {folder.relative_to(root)}")
        return 0
    warn_of_weights(folder)
    execution.check_writable(folder.parent)
    try:
        execution.execute_run(run, folder, root, show_progress=True)
    except execution.PapermillExecutionError as error:
        print(f"error: {error.ename}: {error.evalue}", file=sys.stderr)
        return EXIT_FAILED
    print(f"done: {folder.relative_to(root)}")
    if failed := failings(read_record(folder)["measures"]):
        print(f"warning: {failed}")
    return 0


def _collect(arguments: argparse.Namespace) -> int:
    from sparse_vae.report import site
    from sparse_vae.report.suites import load_suite
    from sparse_vae.report.tables import collect, unpublished

    suite = load_suite(arguments.suite)
    fresh, missing = collect(suite), unpublished(suite)
    if suite.folder.is_dir():  # something is published
        site.describe(suite)
    print(f"{suite.folder.relative_to(suite.root)}: {len(fresh)} of the suite's {len(suite.runs)} runs are new or have "
          f"changed; {len(suite.runs) - len(missing)} are published as the suite asks for them")
    return 0


def _graphics(arguments: argparse.Namespace) -> int:
    from sparse_vae.report.execution import draw_suite
    from sparse_vae.report.suites import load_suite

    return _outcomes(draw_suite(load_suite(arguments.suite), scheduler=_scheduler(arguments)))


def _scheduler(arguments: argparse.Namespace) -> str | None:
    return arguments.scheduler or os.environ.get("SCHEDULER") or None


def _outcomes(outcomes: list) -> int:
    from sparse_vae.report.execution import outcome_table

    print(outcome_table(outcomes))
    statuses = {outcome.status for outcome in outcomes}
    if "stopped" in statuses:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if "failed" in statuses else 0


def _check(arguments: argparse.Namespace) -> int:
    from sparse_vae.report import claims, site
    from sparse_vae.report.suites import load_suite

    suite = load_suite(arguments.suite)
    problems = [*site.check(suite.root, suite.name), *claims.check_claims(suite.root)]
    print("\n".join(problems) if problems else "every reference leads somewhere, every claim holds",
          file=sys.stderr if problems else sys.stdout)
    return EXIT_FAILED if problems else 0


def _site(arguments: argparse.Namespace) -> int:
    from sparse_vae.report import site
    from sparse_vae.report.suites import load_suite

    page = site.render(load_suite(arguments.suite), plain=arguments.plain)
    print(f"\nThe report is ready: {page}\nServe it with: make preview")
    return 0


def _table(arguments: argparse.Namespace) -> int:
    from sparse_vae.report import open_runs
    from sparse_vae.report.notebook import markdown_table

    measures = ["negative_elbo", "mean_squared_error", "explained_variance", "active_fraction", "used_dimensions"]
    print(markdown_table(open_runs(arguments.suite).table(measures, by=["dataset", "title", "latent_dim"], seeds=True)))
    return 0


def _publish(arguments: argparse.Namespace) -> int:
    from sparse_vae.report import site
    from sparse_vae.report.suites import load_suite

    suite = load_suite(arguments.suite)
    if status := _check(arguments):
        return status
    site.publish(suite, remote=arguments.remote)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="sparse-vae", description="Sparse latent-variable models: train them, draw the figures, build the report.")
    parser.add_argument("--version", action="version", version=sparse_vae.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, function: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(function=function)
        return sub

    def add_suite(sub: argparse.ArgumentParser, default: str | None,
                  help: str = "name of a file in experiments/, without .yml") -> None:
        sub.add_argument("--suite", default=default, help=help)

    def add_scheduler(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--scheduler", default=None, metavar="ADDRESS",
                         help="a dask scheduler, tcp://host:8786; by default a local cluster (environment: SCHEDULER)")

    def add_plain_option(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--plain", action="store_true", help="the plain preview, even where Quarto is there")

    everything = command("all", _all, "train a suite, draw its figures, build the report")
    add_suite(everything, "quick")
    add_scheduler(everything)
    add_plain_option(everything)

    train = command("train", _train, "train one run, from settings written key=value, or a whole suite")
    train.add_argument("settings", nargs="*", metavar="key=value",
                       help="model=…, dataset=…, and any setting of the training, the model or the data set")
    add_suite(train, None)
    add_scheduler(train)

    graphics = command("graphics", _graphics, "execute the figure notebooks of a suite")
    add_suite(graphics, "quick")
    add_scheduler(graphics)

    collect = command("collect", _collect, "publish finished runs: from runs/ into the tables and weights of results/")
    add_suite(collect, "quick")

    check = command("check", _check, "check every reference of the pages and every claim over the published results")
    add_suite(check, "report", "the suite that the site is built of")

    site = command("site", _site, "build the report from a suite's results")
    add_suite(site, "quick")
    add_plain_option(site)

    table = command("table", _table, "print a suite's results as a Markdown table")
    add_suite(table, "report")

    publish = command("publish", _publish, "build the report and push it to the gh-pages branch")
    add_suite(publish, "report")
    publish.add_argument("--remote", default="origin", help="the git remote to push to")

    download = command("download", _download, "download and verify the real data sets")
    download.add_argument("names", nargs="*", metavar="dataset", help="which; by default all")
    download.add_argument("--root", default=None, help="the data folder; by default the project's")
    download.add_argument("--mirror", default=None,
                          help="a folder or an address to take the files from (environment: SPARSE_VAE_MIRROR)")

    command("models", _models, "list the models, their settings and defaults")
    command("datasets", _datasets, "list the data sets, their settings and defaults")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        try:
            parsed = make_parser().parse_args(arguments)
            return parsed.function(parsed)
        finally:  # also after --help, which ends the program
            if sys.stdout is not None:  # None where the output is closed: >&-
                sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough: head, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (ExplainedError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
