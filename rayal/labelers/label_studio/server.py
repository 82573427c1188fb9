"""The calls to a Label Studio server, and its two kinds of tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rayal.errors import InDoubt, LabelError
from rayal.labelers.http import Client, secret

if TYPE_CHECKING:
    import httpx

PAGE_TASKS = 500
_ACCESS_S = 240.0  # an access token lives five minutes
_IMPORT_POLLS = 60
_DELETE_TASKS = 1_000  # a call
Filter = dict[str, Any]


@dataclass(frozen=True)
class Project:
    """One project, and how many tasks it has."""

    id: int
    title: str
    num_tasks: int


@dataclass(frozen=True)
class Page:
    """Some tasks in order of their ids; `is_last`: no further ones fit the question."""

    tasks: list[dict[str, Any]]
    is_last: bool


def where(name: str, operator: str, value: Any, kind: str) -> Filter:
    """Gives a condition on tasks."""
    return {"filter": f"filter:tasks:{name}", "operator": operator, "type": kind, "value": value}


def tagged(tag: str, key: str) -> Filter:
    """Gives the condition that a task has our tag."""
    return where(f"data.{tag}", "equal", key, "String")


ANSWERED = (
    where("total_annotations", "greater", 0, "Number"),
    where("cancelled_annotations", "greater", 0, "Number"),
)
UNANSWERED = (
    where("total_annotations", "equal", 0, "Number"),
    where("cancelled_annotations", "equal", 0, "Number"),
)


class Tokens:
    """The header that lets us in. A personal access token is traded for one that lives minutes, a
    legacy token is sent as it is: a token with two dots is a personal one."""

    def __init__(self, token_env: str, door: Client, now: Callable[[], float]) -> None:
        self.token_env, self._door, self._now = token_env, door, now
        self._access: tuple[str, float] | None = None  # the token, and when it came

    def headers(self, anew: bool) -> dict[str, str]:
        """Gives the header; `anew`: the one before was refused.

        Raises:
            ConfigError: there is no token in the environment.
            LabelError: the server does not take it.
        """
        token = secret(self.token_env, "a token of Label Studio")
        if token.count(".") != 2:
            return {"Authorization": f"Token {token}"}
        access = self._access
        if anew or access is None or self._now() - access[1] > _ACCESS_S:
            access = (self._traded(token), self._now())
            self._access = access
        return {"Authorization": f"Bearer {access[0]}"}

    def _traded(self, token: str) -> str:
        try:
            reply = self._door.call(
                "POST", "/api/token/refresh", body={"refresh": token}, again=True
            )
        except LabelError as error:
            raise LabelError(
                f"the token in {self.token_env} cannot be traded for access: "
                f"{str(error).replace(token, '***')}; make a new one in Label Studio's account "
                "settings, and set the variable"
            ) from None
        return str(reply.body["access"])


class Server:
    """What the adapter asks of a server.

    timeout_s  of a call: an import of 10,000 small tasks takes a server about 4 s
    """

    def __init__(
        self,
        url: str,
        token_env: str,
        timeout_s: float,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        door = Client(url, timeout_s=timeout_s, transport=transport, sleep=sleep)
        self.tokens = Tokens(token_env, door, now)
        self.client = Client(url, self.tokens.headers, timeout_s, transport=transport, sleep=sleep)
        self._sleep = sleep

    def projects(self, title: str, ids: Sequence[int] = ()) -> list[Project]:
        """Gives the projects with exactly this title, or one of these ids, in order of their ids:
        a creation that was cut off may have left a second one."""
        found: dict[int, Project] = {}
        for wanted in ({"title": title}, {"ids": ",".join(map(str, ids))} if ids else None):
            page = 1 if wanted else 0
            while wanted and page:
                params = {**wanted, "include": "id,title,task_number", "page_size": 100}
                reply = self.client.get("/api/projects", params | {"page": page})
                for one in reply.body["results"]:
                    if one["title"] == title or one["id"] in ids:
                        count = int(one.get("task_number") or 0)
                        found[one["id"]] = Project(one["id"], one["title"], count)
                page = page + 1 if reply.body.get("next") else 0
        return [found[one] for one in sorted(found)]

    def create(self, fields: Mapping[str, Any]) -> int:
        """Gives the id of a new project.

        Raises:
            InDoubt: the call was cut off.
        """
        return int(self.client.call("POST", "/api/projects", body=dict(fields)).body["id"])

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Adds tasks, all or none; the same twice adds them twice.

        Raises:
            InDoubt: the call was cut off, or the server takes long over them.
        """
        reply = self.client.call("POST", f"/api/projects/{project}/import", body=list(tasks))
        job = reply.body.get("import") if isinstance(reply.body, dict) else None
        if job is None:
            return
        for _ in range(_IMPORT_POLLS):  # the hosted editions import in the background
            told = self.client.get(f"/api/projects/{project}/imports/{job}").body
            if told.get("status") == "completed":
                return
            if told.get("status") == "failed":
                raise LabelError(f"Label Studio could not import: {str(told.get('error'))[:300]}")
            self._sleep(1.0)
        raise InDoubt(f"Label Studio still imports after {_IMPORT_POLLS} s (import {job})")

    def count(self, project: int, filters: Sequence[Filter], any_of: bool = False) -> int:
        """Gives how many tasks fit all conditions, or any of them."""
        return int(self._tasks(project, filters, "id", 1, any_of=any_of)["total"])

    def newest(self, project: int) -> tuple[str, int]:
        """Gives when a task was changed last, by the server's clock ("": there is none), and how
        many tasks there are."""
        reply = self._tasks(project, (), "id,updated_at", 1, ordering="-tasks:updated_at")
        tasks = reply["tasks"]
        return (str(tasks[0]["updated_at"]) if tasks else "", int(reply["total"]))

    def page(
        self, project: int, filters: Sequence[Filter], after: int, fields: str, whole: bool = False
    ) -> Page:
        """Gives the first tasks with ids above `after`; `whole`: with their annotations. Pages by
        number would shift when a task is deleted between two of them."""
        conditions = [*filters, where("id", "greater", after, "Number")]
        reply = self._tasks(project, conditions, fields, PAGE_TASKS, whole=whole)
        return Page(reply["tasks"], int(reply["total"]) <= len(reply["tasks"]))

    def every(self, project: int, filters: Sequence[Filter], fields: str) -> list[dict[str, Any]]:
        """Gives all tasks that fit the conditions, without their annotations."""
        found: list[dict[str, Any]] = []
        page = Page([], False)
        while not page.is_last:
            page = self.page(project, filters, found[-1]["id"] if found else 0, fields)
            found += page.tasks
        return found

    def delete(self, project: int, tasks: Sequence[int], filters: Sequence[Filter] = ()) -> None:
        """Deletes those of these tasks that fit the conditions at that moment."""
        for start in range(0, len(tasks), _DELETE_TASKS):
            some = list(tasks[start : start + _DELETE_TASKS])
            self.client.call(
                "POST",
                "/api/dm/actions",
                params={"id": "delete_tasks", "project": project},
                body={
                    "selectedItems": {"all": False, "included": some},
                    "filters": {"conjunction": "and", "items": list(filters)},
                },
                again=True,
            )

    def _tasks(
        self,
        project: int,
        filters: Sequence[Filter],
        fields: str,
        page_size: int,
        *,
        any_of: bool = False,
        whole: bool = False,
        ordering: str | None = None,
    ) -> dict[str, Any]:
        conjunction = "or" if any_of else "and"
        asked: dict[str, Any] = {"filters": {"conjunction": conjunction, "items": list(filters)}}
        if ordering is not None:
            asked["ordering"] = [ordering]
        params = {"project": project, "page": 1, "page_size": page_size, "include": fields}
        params |= {"query": json.dumps(asked)} | ({"fields": "all"} if whole else {})
        body = self.client.get("/api/tasks", params).body
        if not isinstance(body, dict) or "tasks" not in body or "total" not in body:
            raise LabelError(
                f"{self.client.url}/api/tasks gave no list of tasks but {str(body)[:200]}; is "
                "labeler.url a Label Studio server?"
            )
        return body
