"""A real Label Studio server on loopback, which can be killed and started again, and the people who
annotate on one, real or not, through its API.

`make label-studio-test` installs the server in a folder of its own, which RAYAL_LABEL_STUDIO names.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rayal.labelers.label_studio.screen import LABEL, SHOWN

TOKEN = "0123456789abcdef0123456789abcdef01234567"
_WAIT_S = 400.0  # the first start makes the database
_QUIET = {
    "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    "LABEL_STUDIO_SENTRY_DSN": "",
    "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_CONVERTER_DOWNLOAD_RESOURCES": "false",
    "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
}


@dataclass
class RealServer:
    """One server, with its data in a folder. `home` has the virtual environment `venv`; a database
    that was made once lies there as a template, since making it takes a minute."""

    home: Path
    folder: Path
    port: int = 0
    token: str = TOKEN
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port = self.port or _free_port()
        template = self.home / "template"
        if template.is_dir() and not (self.folder / "data").exists():
            shutil.copytree(template, self.folder / "data")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server, and comes back when it answers."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            **_QUIET,
            "HOME": str(self.folder),
            "LABEL_STUDIO_BASE_DATA_DIR": str(data),
            "LABEL_STUDIO_USERNAME": "rayal@example.com",
            "LABEL_STUDIO_PASSWORD": uuid.uuid4().hex,
            "LABEL_STUDIO_USER_TOKEN": self.token,
        }
        words = [
            str(self.home / "venv" / "bin" / "label-studio"),
            "start",
            "--no-browser",
            *("--internal-host", "127.0.0.1"),
            *("--port", str(self.port)),
            *("--log-level", "WARNING"),
            "--enable-legacy-api-token",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                words, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
            )
        ends = time.monotonic() + _WAIT_S
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"Label Studio ended with {self.process.returncode}: {self.log()}"
                )
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            time.sleep(0.5)
        raise RuntimeError(f"Label Studio did not start in {_WAIT_S:.0f} s: {self.log()}")

    def kill(self) -> None:
        """Ends the server at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the server, and keeps its database as a template where there is none yet."""
        self._end(signal.SIGINT)

    def keep_template(self) -> None:
        """Keeps a fresh database, before anything is in it, for the next start."""
        template = self.home / "template"
        if not template.exists():
            unfinished = self.home / f"template-{uuid.uuid4().hex}"
            shutil.copytree(self.folder / "data", unfinished)
            with contextlib.suppress(OSError):  # another made it meanwhile
                unfinished.rename(template)

    def log(self) -> str:
        """Gives the end of what the server said."""
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)
            self.process = None


@contextlib.contextmanager
def real(home: Path, folder: Path) -> Iterator[RealServer]:
    """Gives a running server with an empty database, which is ended by its pid."""
    server = RealServer(home, folder)
    fresh = not (home / "template").is_dir()
    try:
        server.start()
        if fresh:  # the database is whole when nobody writes into it
            server.stop()
            server.keep_template()
            server.start()
        yield server
    finally:
        server.stop()


@dataclass
class People:
    """Who annotates, through the API of a server."""

    url: str
    token: str
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Token {self.token}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def join(self, number: int) -> list[int]:
        """Gives the ids of so many new annotators."""
        for _ in range(number):
            name = f"{uuid.uuid4().hex}@example.com"
            body = {"email": name, "username": name[:30], "password": uuid.uuid4().hex}
            self.ids.append(self._done("POST", "/api/users/", json=body)["id"])
        return self.ids[-number:]

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """Gives the tasks of a project, with their data and annotations, in order of their ids."""
        params = {"project": project, "page_size": 10_000, "fields": "all"}
        return self._done("GET", "/api/tasks", params=params)["tasks"]

    def project(self, title: str) -> int:
        """Gives the id of the project whose title has this in it."""
        (one,) = self._done("GET", "/api/projects", params={"title": title})["results"]
        return one["id"]

    def say(self, task: int, labels: Sequence[str], who: int | None = None, **more: Any) -> int:
        """Gives the id of a new annotation with these choices."""
        body = {"result": choices(*labels), **({} if who is None else {"completed_by": who})}
        return self._done("POST", f"/api/tasks/{task}/annotations/", json=body | more)["id"]

    def refuse(self, task: int, who: int | None = None) -> int:
        """Gives the id of an annotation that was skipped."""
        return self.say(task, (), who, was_cancelled=True)

    def edit(self, annotation: int, labels: Sequence[str]) -> None:
        self._done("PATCH", f"/api/annotations/{annotation}", json={"result": choices(*labels)})

    def delete(self, annotation: int) -> None:
        self._done("DELETE", f"/api/annotations/{annotation}")

    def delete_tasks(self, project: int, tasks: Sequence[int]) -> None:
        body = {
            "selectedItems": {"all": False, "included": list(tasks)},
            "filters": {"conjunction": "and", "items": []},
        }
        params = {"id": "delete_tasks", "project": project}
        self._done("POST", "/api/dm/actions", params=params, json=body)

    def bring(self, project: int, tasks: Sequence[dict[str, Any]]) -> list[int]:
        """Gives the ids of tasks that were imported, with annotations if they have some."""
        path = f"/api/projects/{project}/import?return_task_ids=true"
        return self._done("POST", path, json=list(tasks))["task_ids"]

    def sign_up(self) -> People:
        """Gives somebody with a token of their own (of a real server alone)."""
        name, password = f"{uuid.uuid4().hex}@example.com", uuid.uuid4().hex[:12]
        with httpx.Client(base_url=self.url, timeout=60) as browser:
            page = browser.get("/user/signup/").text
            (mark,) = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[:1]
            form = {"email": name, "password": password, "csrfmiddlewaretoken": mark}
            browser.post("/user/signup/", data=form, headers={"Referer": self.url})
            who = browser.get("/api/current-user/whoami").json()["id"]
            return People(self.url, browser.get("/api/current-user/token").json()["token"], [who])

    def say_all(self, project: int, labels: Mapping[int, str]) -> None:
        """Annotates many tasks at once, about 1 ms each: as predictions of a name that is used
        once, which the server then turns into annotations of whoever asks."""
        name = uuid.uuid4().hex
        said = [
            {"task": task, "model_version": name, "result": choices(label)}
            for task, label in labels.items()
        ]
        self._done("POST", f"/api/projects/{project}/import/predictions", json=said)
        body = {
            "model_version": name,
            "selectedItems": {"all": False, "included": list(labels)},
            "filters": {"conjunction": "and", "items": []},
        }
        params = {"id": "predictions_to_annotations", "project": project}
        self._done("POST", "/api/dm/actions", params=params, json=body)

    def personal_token(self) -> str:
        """Gives a personal access token, which the server shows once."""
        return self._done("POST", "/api/token/")["token"]

    def _done(self, method: str, path: str, **more: Any) -> Any:
        reply = self.http.request(method, path, **more)
        assert reply.status_code < 300, f"{method} {path}: {reply.status_code} {reply.text[:500]}"
        return reply.json() if reply.content else None


def choices(*labels: str) -> list[dict[str, Any]]:
    """Gives the result of an annotation with these choices."""
    said = {"from_name": LABEL, "to_name": SHOWN, "type": "choices", "value": {"choices": labels}}
    return [said] if labels else []


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
