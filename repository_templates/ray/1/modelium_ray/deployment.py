"""An entry's application on Ray Serve: settings enter, a deployed application with its handle leaves, and at the end
nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from . import status
from .connection import Connection, connect, ensure_serve, find, leave
from .settings import Settings, begun_at

_POLL_S = 0.1
_CLOCKS_S = 0.5  # by which those of two machines may differ
_MOST = 1000
_KNOWN_WITHIN_S = 0.2
_SCHEDULE_WITHIN_S = 60.0
_DELETED_WITHIN_S = 60.0
_UPLOAD_AT_MOST = 200 * 2**20
_DEPLOYMENT = "model"
# Ray says it of no replica that has begun to start, but also of one that has its room and whose worker is slow to come up.
_ROOM = re.compile(r"\bResources required for each replica: (?P<required>.*?), total resources available: (?P<free>\{.*?\})\.")


class Deployment:
    """``start`` deploys, ``end`` deletes. ``handle`` and ``route`` are there in between."""

    def __init__(self, settings: Settings, *, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.connection: Connection = find(settings.address, settings.dashboard)
        self.application = settings.application
        self.route = f"/{self.application}" if settings.way == "app" else ""
        self.handle: Any = None
        self._say = say
        self._started = False
        self._asking = threading.Lock()
        self._asked_at = self._died_at = 0.0

    def start(self) -> None:
        """Return when a replica answers (or none has to). Raises ``RuntimeError`` with the cause."""
        marks = [time.monotonic()]
        connect(self.connection, self._environment())
        self._started = True
        marks.append(time.monotonic())
        ensure_serve(self.connection)
        marks.append(time.monotonic())
        from ray import serve

        self._delete_leftovers()
        target = self._application()
        run = serve.RunTarget(target=target, name=self.application, route_prefix=self.route or None)
        serve.run_many([run], wait_for_applications_running=False)
        self._until_it_runs()
        self.handle = serve.get_app_handle(self.application)
        marks.append(time.monotonic())
        took = zip(("connected in", "Serve ready in", "deployed in"), marks, marks[1:], strict=False)
        self._say(f"{self.application}: " + ", ".join(f"{word} {after - before:.1f} s" for word, before, after in took))

    def end(self) -> bool:
        """Delete it; True when it is gone. Never raises."""
        if not self._started:
            leave()
            return True
        gone = delete(self.application)
        leave()
        return gone

    def lost_replica_since(self, moment: float) -> bool:
        """Has a replica died after ``moment`` (seconds since the epoch)? Serve itself notices that later."""
        came = time.time()
        with self._asking:  # many fail at once; what one of them has learned is the others' answer too
            for asked_after in (came, came + _KNOWN_WITHIN_S):
                if self._asked_at < asked_after:
                    time.sleep(max(0.0, asked_after - time.time()))
                    self._asked_at, self._died_at = time.time(), self._last_death()
                if self._died_at >= moment - _CLOCKS_S:
                    return True
        return False

    def _last_death(self) -> float:
        """Of the replicas that Ray remembers, in seconds since the epoch; 0 for none."""
        from ray.util.state import list_actors, list_workers

        of_ours = f"ServeReplica:{self.application}:"
        asked = {"address": self.connection.address, "limit": _MOST}  # else any Ray on this machine would do
        with contextlib.suppress(Exception):  # that it cannot be known is no reason to say it
            ours = [actor for actor in list_actors(**asked) if actor.class_name.startswith(of_ours)]
            if self.connection.here and any(each.state == "ALIVE" and not begun_at(each.pid) for each in ours):
                return time.time()  # Ray has not noticed it yet
            pids = {each.pid for each in ours}
            ended = list_workers(filters=[("is_alive", "=", "False")], detail=True, **asked)
            return max(((each.end_time_ms or 0) / 1000 for each in ended if each.pid in pids), default=0.0)
        return 0.0

    def _application(self) -> Any:
        settings = self.settings
        if settings.way == "app":
            from .app import load_application

            return load_application(settings)
        from ray import serve

        from .replica import EngineReplica, TaskReplica

        engine = settings.way == "engine"
        made = serve.deployment(EngineReplica if engine else TaskReplica).options(**self._options(engine=engine))
        if engine:
            return made.bind(dict(settings.given), settings.replicas.visible_devices)
        return made.bind(dict(settings.given), settings.replicas.device, settings.max_batch_size)

    def _options(self, *, engine: bool) -> dict[str, Any]:
        replicas = self.settings.replicas
        first = replicas.bundles[0]
        actor: dict[str, Any] = {"num_cpus": first.cpus, "num_gpus": first.gpus}
        if first.memory_bytes:
            actor["memory"] = first.memory_bytes
        options: dict[str, Any] = {
            "name": _DEPLOYMENT,
            # The queue is Ray's, at the handle: what waits there goes to whichever replica is free first.
            "max_ongoing_requests": 256 if engine else max(16, 2 * self.settings.max_batch_size),
            "ray_actor_options": actor,
            "health_check_period_s": 1.0,
            "health_check_timeout_s": 30.0,
            "graceful_shutdown_wait_loop_s": 0.1,
            "graceful_shutdown_timeout_s": 5.0,
            # What a constructor says once it will say again.
            "max_constructor_retry_count": 1,
        }
        if len(replicas.bundles) > 1:
            options["placement_group_bundles"] = [
                {name: value for name, value in (("CPU", b.cpus), ("GPU", b.gpus), ("memory", b.memory_bytes)) if value}
                for b in replicas.bundles
            ]
            options["placement_group_strategy"] = "PACK"
            actor.update(num_cpus=first.cpus, num_gpus=0)  # the ranks are actors of vLLM's, on the group's GPUs
        if replicas.maximum > replicas.minimum:
            options["autoscaling_config"] = {
                "min_replicas": replicas.minimum,
                "max_replicas": replicas.maximum,
                "initial_replicas": max(1, replicas.minimum),
                "target_ongoing_requests": replicas.target_ongoing_requests,
            }
        else:
            options["num_replicas"] = replicas.minimum
        return options

    def _environment(self) -> dict[str, Any]:
        """What a replica needs to import this code, and where it runs. On this machine it reads the entry; elsewhere the entry,
        which is small, travels with it."""
        settings, replicas = self.settings, self.settings.replicas
        variables: dict[str, str] = {}
        if replicas.visible_devices:
            variables["CUDA_VISIBLE_DEVICES"] = replicas.visible_devices
            variables["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # it asks Ray for no GPU, and has some all the same
        place = str(settings.directory)
        if settings.way == "app":
            place = variables["MODELIUM_MODEL_PATH"] = settings.given["model_path"]
            variables["PYTHONDONTWRITEBYTECODE"] = "1"  # the folder is the user's
        if (
            self.connection.here or _size(place) > _UPLOAD_AT_MOST
        ):  # what is too large to travel is seen there under the same path
            return {"env_vars": {**variables, "PYTHONPATH": place}}
        return {"env_vars": variables, "working_dir": place}

    def _until_it_runs(self) -> None:
        """Ray says why a replica does not start; that it waits for room it says only after half a minute."""
        begun = time.monotonic()
        while True:
            told = status.look(self.application)
            if told is not None:
                if told.status == "RUNNING":
                    return
                if told.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                    raise RuntimeError(cause_of(told.messages))
                waiting = waits_for_room(told.messages)
                if waiting and time.monotonic() - begun > _SCHEDULE_WITHIN_S:
                    raise RuntimeError(f"Ray has no room for a replica: {' '.join(waiting.split())[:400]}{self._hint(waiting)}")
            time.sleep(_POLL_S)

    def _hint(self, waiting: str) -> str:
        if self.connection.here and "GPU" in waiting:
            return " (Modelium's own Ray gives no GPUs away: take num_gpus out, the application sees them all the same)"
        return ""

    def _delete_leftovers(self) -> None:
        """Applications that dead processes of this owner's left, whichever model's: their guards could not reach Ray, or ended
        with their container."""
        for name in status.names():
            pid, _, begun = name.partition(f"@{self.settings.owner}-")[2].partition(".")
            if pid.isdigit() and begun_at(int(pid)) != begun:
                self._say(f"deleting {name}, which an earlier process left")
                delete(name)


def delete(application: str) -> bool:
    """Delete an application of Serve; True when it is gone. Never raises."""
    with contextlib.suppress(Exception):
        from ray import serve

        serve.delete(application, _blocking=False)  # which would look once a second: it is gone after a fifth of one
        deadline = time.monotonic() + _DELETED_WITHIN_S
        while status.look(application) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True
    return False


def waits_for_room(messages: list[str]) -> str:
    """What Ray says of a replica that it has no room for; "" where there is none. One that is slow to start has its room."""
    return next((message for message in messages if (said := _ROOM.search(message)) and _lacks(said)), "")


def _lacks(said: re.Match[str]) -> bool:
    """All nodes together have less than one replica needs, of any resource."""
    try:
        needs, free = json.loads(said["required"]), json.loads(said["free"])
        bundles = needs if isinstance(needs, list) else [needs]  # a group's: what each of its parts needs
        return any(sum(bundle.get(name, 0) for bundle in bundles) > free.get(name, 0) for bundle in bundles for name in bundle)
    except (ValueError, TypeError, AttributeError):
        return False  # not Ray's words


def cause_of(messages: list[str]) -> str:
    """The last error in what Ray says of a replica that did not start, without its traceback."""
    found = [
        line.strip()
        for message in messages
        for line in message.splitlines()
        if re.match(r"\s*[\w.]*(Error|Exception)\b.*: \S", line)
    ]
    own = [line for line in found if not line.startswith(("ray.exceptions.", "ray::"))]
    said = own or found or [" ".join(" ".join(messages).split())[-400:]]
    return said[-1]


def _size(path: str) -> int:
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.path.getsize(os.path.join(directory, name))  # noqa: PTH118, PTH202
    return total
