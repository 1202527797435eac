"""The demo from curtain to curtain: servers, router, traffic, a rewritten YAML, a summary.

1. Everything the demo makes is in one temporary directory and a few child processes; both are gone
   when it ends, however it ends.
2. The first child that dies ends the demo, with that child's last words.
3. Ctrl-C, SIGTERM and SIGHUP cancel the one task all hangs on.
"""

import asyncio
import io
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from router.demo import routes, view
from router.demo.checks import Outcome, Reload, is_all_held, judge
from router.demo.processes import Child, DemoError, run_beside, run_guarded
from router.demo.readings import Instruments, Reading
from router.demo.tally import Tally
from router.demo.traffic import REQUEST_TIMEOUT_S, THINK_S, USERS, Picture, Traffic, picture

_TRAIN_PATIENCE_S: Final = 60.0
_ROUTER_PATIENCE_S: Final = 20.0
_RELOAD_PATIENCE_S: Final = 10.0
_RELOAD_POLL_S: Final = 0.02
_SETTLE_PATIENCE_S: Final = 5.0
_SETTLE_POLL_S: Final = 0.1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED: Final = 130
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The models are tiny: more threads would only fight over the cores the router needs."""

_INTRODUCTION: Final = f"""\
Pointsman demo: three classifiers of handwritten digits, each in a process of its own.
Version 1 ({routes.STABLE}) has never seen a 7, 8 or 9; version 2 ({routes.CANARY}) has seen all.
A candidate ({routes.SHADOW}) watches in the shadow: it gets copies, and nobody gets its answers.
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """The router and the model servers, running. `listen` and `admin` are `http://host:port`."""

    listen: str
    admin: str
    config: Path
    urls: Mapping[str, str]
    children: tuple[Child, ...]

    def write_config(self, canary_percent: int) -> None:
        """Rewrite the router's YAML as editors do: a new file, renamed over the old one."""
        _replace(self.config, self.urls, canary_percent)


def _replace(config: Path, urls: Mapping[str, str], canary_percent: int) -> None:
    fresh = config.with_suffix(".new")
    fresh.write_text(routes.config_text(urls, config.with_name("state.db"), canary_percent))
    fresh.replace(config)


def _held_out() -> list[Picture]:
    """The requests users send. Imports scikit-learn, which takes a second: run it in a thread."""
    from router.demo import models

    _, held_out = models.load()
    return [
        picture(image.tolist(), int(label))
        for image, label in zip(held_out.images, held_out.labels, strict=True)
    ]


async def _start(stack: AsyncExitStack, name: str, module: str, *arguments: str) -> Child:
    """Start `python -m module`, and stop it when `stack` unwinds."""
    child = await Child.start(name, [sys.executable, "-m", module, *arguments], _ONE_THREAD)
    stack.push_async_callback(child.stop)
    return child


@asynccontextmanager
async def _stage(directory: Path, screen: view.Screen) -> AsyncIterator[Stage]:
    """Train and serve the models, start the router before them; stop all at the end."""
    config = directory / "router.yaml"
    async with AsyncExitStack() as stack:
        servers = [
            await _start(stack, name, "router.demo.server", "--model", name)
            for name in routes.BACKENDS
        ]
        urls: dict[str, str] = {}
        for server in servers:
            ready = await server.ready(_TRAIN_PATIENCE_S)
            urls[server.name] = f"http://127.0.0.1:{ready['port']}"
            screen.say(
                f"  {server.name:<13} trained on {ready['trained_on']:,} images, right on "
                f"{ready['accuracy']:.0%} of those held out, serves on {urls[server.name]}"
            )
        _replace(config, urls, routes.CANARY_PERCENT_AT_FIRST)
        router = await _start(stack, "the router", "router", "serve", str(config))
        ready = await router.ready(_ROUTER_PATIENCE_S)
        listen, admin = f"http://{ready['listen']}", f"http://{ready['admin']}"
        screen.say(f"  {'router':<13} listens on {listen}, admin API on {admin}\n")
        yield Stage(listen, admin, config, urls, (*servers, router))


class Show:
    """The traffic, and what happens while it flows."""

    def __init__(
        self,
        stage: Stage,
        session: aiohttp.ClientSession,
        pictures: Sequence[Picture],
        screen: view.Screen,
        seconds: float,
    ) -> None:
        self._stage = stage
        self._screen = screen
        self._seconds = seconds
        sticky = (route.name for route in routes.ROUTES if route.is_sticky)
        # all users visit a route once in this many answers, so a share is one of users too
        self._tally = Tally(sticky, window=USERS)
        self._instruments = Instruments(session, stage.admin, stage.urls[routes.SHADOW])
        self._traffic = Traffic(session, stage.listen, pictures, self._tally)
        self._learned: list[float] = []
        self._reload: Reload | None = None

    async def run(self) -> Outcome:
        """Play it all, and return what was seen.

        Raises:
            DemoError: a reading failed.
        """
        first = await self._instruments.read()
        await run_beside(
            self._traffic.run(self._seconds),
            self._draw_often(),
            self._raise_canary(first.generation),
        )
        last = await self._settled()
        self._draw(self._seconds, last)
        self._screen.keep()
        return Outcome(self._tally, first, last, self._reload)

    async def _draw_often(self) -> None:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        drawn_s = start_s
        while True:
            await asyncio.sleep(view.REDRAW_S)
            reading = await self._instruments.read()
            self._learned.append(reading.weights.get((routes.BANDIT.name, routes.CANARY), 0.0))
            if loop.time() - drawn_s >= self._screen.period_s:
                drawn_s = loop.time()
                self._draw(drawn_s - start_s, reading)

    def _draw(self, elapsed_s: float, reading: Reading) -> None:
        self._screen.draw(
            view.table(view.Scene(elapsed_s, self._seconds, self._tally, reading, self._learned))
        )

    async def _raise_canary(self, generation: int) -> None:
        """Half-way, rewrite the YAML, and see the router take it up."""
        await asyncio.sleep(self._seconds / 2)
        loop = asyncio.get_running_loop()
        start_s, requests = loop.time(), self._tally.requests
        self._tally.stickiness.permit(routes.ANIMALS.name, routes.CANARY)
        self._stage.write_config(routes.CANARY_PERCENT_LATER)
        while loop.time() - start_s < _RELOAD_PATIENCE_S:
            reading = await self._instruments.read()
            if reading.generation > generation:
                break
            await asyncio.sleep(_RELOAD_POLL_S)
        else:
            return
        self._tally.weights_changed(routes.ANIMALS.name)
        self._reload = Reload(
            reading.generation, loop.time() - start_s, self._tally.requests - requests
        )
        self._screen.say(
            f"{self._stage.config} rewritten: {routes.CANARY_PERCENT_AT_FIRST}% -> "
            f"{routes.CANARY_PERCENT_LATER}% to {routes.CANARY}, "
            f"live after {self._reload.seconds:.2f} s\n"
        )

    async def _settled(self) -> Reading:
        """A reading in which every copy that reached the shadow is accounted for, if one comes."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _SETTLE_PATIENCE_S
        while True:
            reading = await self._instruments.read()
            if reading.answered == reading.received or loop.time() > end_s:
                return reading
            await asyncio.sleep(_SETTLE_POLL_S)


async def _stay(stage: Stage, shown: Picture, screen: view.Screen) -> None:
    """Keep everything up until a signal comes.

    Raises:
        DemoError: a child died.
    """
    image = stage.config.with_name("image.json")
    image.write_bytes(shown.body)
    stop = asyncio.Event()
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    screen.say(
        f"""
Still running; Ctrl-C ends it.
  status    {stage.admin}/status
  metrics   {stage.admin}/metrics
  YAML      {stage.config} (edit and save: it is live at once)
  try       curl -i {stage.listen}{routes.ANIMALS.target} -H 'content-type: application/json' \\
                 -H 'x-user-id: you' -H 'x-canary: always' -d @{image}
            (it shows a {shown.label}; with 'x-canary: never' version 1 answers)"""
    )
    await run_guarded(stop.wait(), stage.children)


async def _play(seconds: float, stay: bool, screen: view.Screen) -> int:
    if (task := asyncio.current_task()) is not None:
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    loading = asyncio.create_task(asyncio.to_thread(_held_out))
    screen.say(_INTRODUCTION)
    with tempfile.TemporaryDirectory(prefix="pointsman-demo-") as directory:
        async with (
            _stage(Path(directory), screen) as stage,
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
                connector=aiohttp.TCPConnector(limit=0),
            ) as session,
        ):
            pictures = await loading
            screen.say(
                f"{USERS} users send {USERS / THINK_S:.0f} images a second for {seconds:.0f} s.\n"
            )
            show = Show(stage, session, pictures, screen, seconds)
            outcome = await run_guarded(show.run(), stage.children)
            checks = judge(outcome)
            for line in ("", "Summary", *view.summary(checks)):
                screen.say(line)
            if stay:
                await _stay(stage, pictures[0], screen)
    return 0 if is_all_held(checks) else 1


def play(seconds: float, is_plain: bool, stay: bool) -> int:
    """Run the demo on this terminal, and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    screen = view.Screen(sys.stdout, is_plain)
    try:
        return asyncio.run(_play(seconds, stay, screen))
    except DemoError as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("\nstopped", file=sys.stderr)
        return _INTERRUPTED
