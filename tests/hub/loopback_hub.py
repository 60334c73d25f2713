"""A loopback Hub that the real huggingface_hub / transformers / diffusers / datasets clients accept. For tests only.

`hf_test` is the token of its user `tester`, `hf_reader` one of `reader`, who may read what is public and write nothing;
any other is wrong. What fails is said by the test: `hub.faults.append(Fault(...))`.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}
LFS_SUFFIX = (
    ".safetensors",
    ".bin",
    ".parquet",
    ".arrow",
    ".pt",
    ".npy",
    ".tar",
    ".zip",
    ".gz",
    ".png",
    ".jpg",
    ".jpeg",
    ".h5",
)
LFS_MIN = 10 * 1024 * 1024
SPACE_README = """---
title: {title}
emoji: 🚀
colorFrom: gray
colorTo: blue
sdk: {sdk}
sdk_version: 6.5.1
app_file: app.py
pinned: false
---

Check out the configuration reference at https://huggingface.co/docs/hub/spaces-config-reference
"""
TOKENS = {"hf_test": "tester", "hf_reader": "reader"}


@dataclass
class Fault:
    """What goes wrong with requests of one kind.

    Args:
        method: `"GET"`, `"PUT"`, …
        path: Pattern that is found in their path.
        status: Answer with it instead of doing anything.
        headers: Headers of that answer.
        cut: Cut the connection after so many bytes of the answer's body.
        corrupt: Change the last byte of the answer's body.
        held: Do nothing until `release` is called, or the test ends.
        after: So many such requests go well before.
        times: How often it happens; None for always.
    """

    method: str
    path: str
    status: int | None = None
    headers: dict = field(default_factory=dict)
    cut: int | None = None
    corrupt: bool = False
    held: bool = False
    after: int = 0
    times: int | None = 1
    happened: int = 0

    def release(self):
        self.held = False

    def strikes(self, method, path):
        if method != self.method or not re.search(self.path, path) or self.happened == self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.happened += 1
        return True


class CutError(Exception):
    """Ends an answer in the middle."""


class Store:
    def __init__(self, root):
        self.root = Path(root)
        self.lock = threading.Lock()
        for d in ("blobs", "lfs", "repos"):
            (self.root / d).mkdir(parents=True, exist_ok=True)

    def path(self, kind, rid):
        return self.root / "repos" / f"{kind}--{rid.replace('/', '--')}.json"

    def get(self, kind, rid):
        p = self.path(kind, rid)
        return json.loads(p.read_text()) if p.exists() else None

    def put(self, r):
        p = self.path(r["kind"], r["id"])
        t = p.with_suffix(".tmp")
        t.write_text(json.dumps(r))
        os.replace(t, p)

    def all(self, kind):
        return [json.loads(p.read_text()) for p in sorted((self.root / "repos").glob(f"{kind}--*.json"))]

    def blob(self, e):
        return self.root / ("lfs" if e.get("lfs") else "blobs") / (e.get("lfs") or e["oid"])


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_pointer(sha, size):
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {size}\n".encode()


def err(status, msg, code=None):
    return JSONResponse(
        {"error": msg}, status, headers={"X-Error-Message": msg, **({"X-Error-Code": code} if code else {})}
    )


def create_app(root):
    s = Store(root)
    log = []
    faults = []

    def new_commit(r, branch, tree, title):
        oid = hashlib.sha1(json.dumps([r["id"], tree, title, time.time_ns()]).encode()).hexdigest()
        parent = r["refs"].get(branch)
        r["commits"][oid] = {
            "tree": tree,
            "title": title,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
            "parent": parent,
        }
        r["refs"][branch] = oid
        s.put(r)
        return oid

    def find(q):
        kind = q.path_params.get("kind", "models").rstrip("s")
        rid = f"{q.path_params['ns']}/{q.path_params['name']}"
        r = s.get(kind, rid)
        if r is None or (r["private"] and user(q) != rid.split("/")[0]):
            # As the Hub does: whoever has not said who they are does not learn whether there is one.
            if user(q) is None:
                return None, None, err(401, "Invalid username or password.")
            return None, None, err(404, "Repository not found", "RepoNotFound")
        rev = q.path_params.get("rev", "main")
        sha = rev if rev in r["commits"] else r["refs"].get(rev) or r["tags"].get(rev)
        if sha is None:
            return None, None, err(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        return r, sha, None

    def user(q):
        return TOKENS.get(q.headers.get("authorization", "").removeprefix("Bearer "))

    def not_authed(q):
        """What is answered to somebody who may not write; None to who may."""
        if user(q) is None:
            return err(401, "Invalid username or password.")
        if user(q) != "tester" or q.path_params.get("ns", "tester") != "tester":
            return err(403, "You don't have the rights to write here.")
        return None

    def stored(data):
        oid = git_oid(data)
        (s.root / "blobs" / oid).write_bytes(data)
        return {"oid": oid, "size": len(data)}

    async def variables(q):
        r, _sha, e = find(q)
        if refused := e or not_authed(q):
            return refused
        if q.method != "GET":
            b = await q.json()
            if q.method == "DELETE":
                r["variables"].pop(b["key"], None)
            else:
                r["variables"][b["key"]] = b["value"]
            s.put(r)
        return JSONResponse({key: {"value": value} for key, value in r["variables"].items()})

    async def create(q):
        if refused := not_authed(q):
            return refused
        b = await q.json()
        kind = b.get("type") or "model"
        rid = f"{b.get('organization') or 'tester'}/{b['name']}"
        url = f"{q.base_url}{PREFIX[kind]}{rid}"
        with s.lock:
            if s.get(kind, rid):
                return JSONResponse({"error": "You already created this repo", "url": url}, 409)
            r = {
                "kind": kind,
                "id": rid,
                "private": bool(b.get("private") or b.get("visibility") == "private"),
                "sdk": b.get("sdk"),
                "refs": {},
                "tags": {},
                "commits": {},
            }
            tree = {}
            if kind == "space":
                r["variables"] = {each["key"]: each["value"] for each in b.get("variables") or []}
                # As the Hub does: a Space has a page from the first commit on.
                tree["README.md"] = stored(SPACE_README.format(title=b["name"], sdk=b["sdk"]).encode())
            new_commit(r, "main", tree, "initial commit")
        return JSONResponse({"url": url, "name": rid, "id": rid})

    async def delete(q):
        b = await q.json()
        p = s.path(b.get("type") or "model", f"{b.get('organization') or 'tester'}/{b['name']}")
        if not p.exists():
            return err(404, "Repository not found", "RepoNotFound")
        p.unlink()
        return JSONResponse({})

    async def whoami(q):
        if user(q) is None:
            return err(401, "Invalid credentials in Authorization header")
        role = "write" if user(q) == "tester" else "read"
        return JSONResponse(
            {
                "type": "user",
                "name": user(q),
                "fullname": user(q).title(),
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": {"displayName": "t", "role": role}},
            }
        )

    async def validate_yaml(q):
        return JSONResponse({"errors": [], "warnings": []})

    async def preupload(q):
        r, sha, e = find(q)
        if e:
            return e
        tree = r["commits"][sha]["tree"]
        out = []
        for f in (await q.json())["files"]:
            lfs = f["path"].endswith(LFS_SUFFIX) or f["size"] > LFS_MIN
            out.append(
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if lfs else "regular",
                    "shouldIgnore": False,
                    **({"oid": tree[f["path"]].get("lfs") or tree[f["path"]]["oid"]} if f["path"] in tree else {}),
                }
            )
        return JSONResponse({"files": out})

    async def lfs_batch(q):
        if refused := not_authed(q):
            return refused
        objs = []
        for o in (await q.json())["objects"]:
            d = {"oid": o["oid"], "size": o["size"]}
            if not (s.root / "lfs" / o["oid"]).exists():
                d["actions"] = {
                    "upload": {"href": f"{q.base_url}_lfs/{o['oid']}"},
                    "verify": {"href": f"{q.base_url}_lfs_verify"},
                }
            objs.append(d)
        return JSONResponse({"transfer": "basic", "objects": objs}, media_type="application/vnd.git-lfs+json")

    async def lfs_put(q):
        oid = q.path_params["oid"]
        t = s.root / "lfs" / (oid + f".{time.time_ns()}")
        h = hashlib.sha256()
        with open(t, "wb") as f:
            async for c in q.stream():
                f.write(c)
                h.update(c)
        if h.hexdigest() != oid:
            t.unlink()
            return err(400, "sha256 mismatch")
        os.replace(t, s.root / "lfs" / oid)
        return Response()

    async def lfs_verify(q):
        b = await q.json()
        p = s.root / "lfs" / b["oid"]
        return Response() if p.exists() and p.stat().st_size == b["size"] else err(404, "missing")

    async def commit(q):
        if refused := not_authed(q):
            return refused
        body = (await q.body()).decode()
        with s.lock:
            r, sha, e = find(q)
            if e:
                return e
            branch = q.path_params["rev"]
            tree = dict(r["commits"][sha]["tree"])
            title = ""
            for item in map(json.loads, filter(None, body.split("\n"))):
                v = item["value"]
                if item["key"] == "header":
                    title = v["summary"]
                    if v.get("parentCommit") and v["parentCommit"] != sha:
                        return err(412, "A commit has happened since. Please refresh and try again.")
                elif item["key"] == "file":
                    tree[v["path"]] = stored(base64.b64decode(v["content"]))
                elif item["key"] == "lfsFile":
                    p = s.root / "lfs" / v["oid"]
                    if not p.exists():
                        return err(400, f"LFS object {v['oid']} was not uploaded")
                    tree[v["path"]] = {
                        "oid": git_oid(lfs_pointer(v["oid"], p.stat().st_size)),
                        "size": p.stat().st_size,
                        "lfs": v["oid"],
                    }
                elif item["key"] == "deletedFile":
                    if tree.pop(v["path"], None) is None:
                        return err(404, "A file with this name doesn't exist", "EntryNotFound")
                elif item["key"] == "deletedFolder":
                    tree = {k: x for k, x in tree.items() if not k.startswith(v["path"].rstrip("/") + "/")}
                elif item["key"] == "copyFile":
                    tree[v["path"]] = r["commits"].get(v.get("srcRevision"), {"tree": tree})["tree"][v["srcPath"]]
            oid = new_commit(r, branch, tree, title)
        return JSONResponse(
            {
                "success": True,
                "commitOid": oid,
                "commitUrl": f"{q.base_url}{PREFIX[r['kind']]}{r['id']}/commit/{oid}",
                "hookOutput": "",
            }
        )

    def info_of(r, sha):
        tree = r["commits"][sha]["tree"]
        card = {}
        if "README.md" in tree:
            m = re.match(r"^---\n(.*?)\n---", s.blob(tree["README.md"]).read_text(), re.S)
            if m:
                import yaml

                card = yaml.safe_load(m[1]) or {}
        d = {
            "_id": "x",
            "id": r["id"],
            "sha": sha,
            "private": r["private"],
            "author": r["id"].split("/")[0],
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": list(card.get("tags") or []),
            "lastModified": r["commits"][sha]["date"],
            "createdAt": r["commits"][sha]["date"],
            "siblings": [
                {
                    "rfilename": k,
                    "size": v["size"],
                    "blobId": v["oid"],
                    **({"lfs": {"sha256": v["lfs"], "size": v["size"], "pointerSize": 134}} if v.get("lfs") else {}),
                }
                for k, v in sorted(tree.items())
            ],
            "cardData": card,
        }
        if r["kind"] == "model":
            d.update(
                {
                    k2: card[k]
                    for k, k2 in (("library_name", "library_name"), ("pipeline_tag", "pipeline_tag"))
                    if k in card
                },
                modelId=r["id"],
            )
        if r["kind"] == "space":
            d["sdk"] = r["sdk"]
        return d

    async def info(q):
        r, sha, e = find(q)
        return e or JSONResponse(info_of(r, sha))

    async def listing(q):
        kind = q.url.path.rsplit("/", 1)[-1].rstrip("s")
        p = q.query_params
        rs = [
            info_of(r, r["refs"]["main"])
            for r in s.all(kind)
            if (p.get("search") or "") in r["id"] and r["id"].startswith(p.get("author") or "")
        ]
        return JSONResponse(
            [d for d in rs if all(t in d["tags"] + [d.get("library_name")] for t in p.getlist("filter"))]
        )

    def entry(path, v):
        return {
            "type": "file",
            "oid": v["oid"],
            "size": v["size"],
            "path": path,
            **({"lfs": {"oid": v["lfs"], "size": v["size"], "pointerSize": 134}} if v.get("lfs") else {}),
        }

    async def tree(q):
        r, sha, e = find(q)
        if e:
            return e
        base = q.path_params.get("path", "").strip("/")
        base = base + "/" if base else ""
        rec = q.query_params.get("recursive", "").lower() in ("1", "true")
        files = {k: v for k, v in r["commits"][sha]["tree"].items() if k.startswith(base)}
        if base and not files:
            return err(404, f"{base} does not exist on {sha}", "EntryNotFound")
        out, seen = [], set()
        for k, v in sorted(files.items()):
            parts = k[len(base) :].split("/")
            for i in range(1, len(parts)):
                d = base + "/".join(parts[:i])
                if d not in seen and (rec or i == 1):
                    seen.add(d)
                    out.append({"type": "directory", "oid": hashlib.sha1(d.encode()).hexdigest(), "size": 0, "path": d})
            if rec or len(parts) == 1:
                out.append(entry(k, v))
        return JSONResponse(out)

    async def paths_info(q):
        r, sha, e = find(q)
        if e:
            return e
        t = r["commits"][sha]["tree"]
        out = []
        ct = q.headers.get("content-type", "")
        paths = (await q.json())["paths"] if "json" in ct else (await q.form()).getlist("paths")
        for p in [paths] if isinstance(paths, str) else paths:
            if p in t:
                out.append(entry(p, t[p]))
            elif any(k.startswith(p.rstrip("/") + "/") for k in t):
                out.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": p})
        return JSONResponse(out)

    async def refs(q):
        r, _sha, e = find(q)
        return e or JSONResponse(
            {
                "branches": [{"name": k, "ref": f"refs/heads/{k}", "targetCommit": v} for k, v in r["refs"].items()],
                "tags": [{"name": k, "ref": f"refs/tags/{k}", "targetCommit": v} for k, v in r["tags"].items()],
                "converts": [],
            }
        )

    async def commits(q):
        r, sha, e = find(q)
        if e:
            return e
        out = []
        while sha:
            c = r["commits"][sha]
            out.append(
                {"id": sha, "title": c["title"], "message": "", "date": c["date"], "authors": [{"user": "tester"}]}
            )
            sha = c["parent"]
        return JSONResponse(out)

    async def tag(q):
        name = q.path_params.pop("rev") if q.method == "DELETE" else None
        r, sha, e = find(q)
        if e:
            return e
        if name:
            r["tags"].pop(name, None)
        else:
            b = await q.json()
            if b["tag"] in r["tags"]:
                return err(409, "Tag already exists")
            r["tags"][b["tag"]] = sha
        s.put(r)
        return JSONResponse({})

    async def branch(q):
        name = q.path_params.pop("rev")
        r, sha, e = find(q)
        if e:
            return e
        if q.method == "DELETE":
            r["refs"].pop(name, None)
        else:
            if name in r["refs"]:
                return err(409, "Reference already exists")
            start = (await q.json()).get("startingPoint") if await q.body() else None
            r["refs"][name] = r["refs"].get(start, start) or sha
        s.put(r)
        return JSONResponse({})

    async def resolve(q):
        r, sha, e = find(q)
        if e:
            return e
        v = r["commits"][sha]["tree"].get(q.path_params["path"])
        if v is None:
            return Response(
                "Entry not found",
                404,
                {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": sha},
            )
        etag = v.get("lfs") or v["oid"]
        resp = FileResponse(s.blob(v), media_type="application/octet-stream")
        h = {"X-Repo-Commit": sha, "ETag": f'"{etag}"'}
        if v.get("lfs"):
            h |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(v["size"])}
        resp.headers.update(h)
        return resp

    routes = []
    api = "/api/{kind}/{ns}/{name}"
    routes += [
        Route("/api/repos/create", create, methods=["POST"]),
        Route("/api/repos/delete", delete, methods=["DELETE"]),
        Route("/api/whoami-v2", whoami),
        Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
        Route("/_lfs/{oid}", lfs_put, methods=["PUT"]),
        Route("/_lfs_verify", lfs_verify, methods=["POST"]),
        Route("/{kind}/{ns}/{name}.git/info/lfs/objects/batch", lfs_batch, methods=["POST"]),
        Route("/{ns}/{name}.git/info/lfs/objects/batch", lfs_batch, methods=["POST"]),
        Route(api + "/preupload/{rev}", preupload, methods=["POST"]),
        Route(api + "/commit/{rev}", commit, methods=["POST"]),
        Route(api + "/tree/{rev}", tree),
        Route(api + "/tree/{rev}/{path:path}", tree),
        Route(api + "/paths-info/{rev}", paths_info, methods=["POST"]),
        Route(api + "/refs", refs),
        Route(api + "/commits/{rev}", commits),
        Route(api + "/tag/{rev}", tag, methods=["POST", "DELETE"]),
        Route(api + "/branch/{rev}", branch, methods=["POST", "DELETE"]),
        Route(api + "/variables", variables, methods=["GET", "POST", "DELETE"]),
        Route(api + "/revision/{rev}", info),
        Route(api, info),
        *[Route(f"/api/{k}s", listing) for k in PREFIX],
        Route("/{kind}/{ns}/{name}/resolve/{rev}/{path:path}", resolve, methods=["GET", "HEAD"]),
        Route("/{ns}/{name}/resolve/{rev}/{path:path}", resolve, methods=["GET", "HEAD"]),
    ]
    app = Starlette(routes=routes)

    async def logged(scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        st = {}

        async def snd(m):
            if m["type"] == "http.response.start":
                st["s"] = m["status"]
            await send(m)

        sent = dict(scope["headers"]).get(b"authorization")
        fault = next((each for each in faults if each.strikes(scope["method"], scope["path"])), None)
        try:
            if fault is not None and fault.status is not None:
                await JSONResponse({"error": "out of order"}, fault.status, fault.headers)(scope, receive, snd)
            elif sent is not None and sent.decode().removeprefix("Bearer ") not in TOKENS:
                await err(401, "Invalid credentials in Authorization header")(scope, receive, snd)
            else:
                await app(scope, receive, snd if fault is None else await struck(fault, snd))
        finally:
            remember(scope, st)

    async def struck(fault, send):
        while fault.held:
            await asyncio.sleep(0.02)
        left = fault.cut

        async def broken(m):
            nonlocal left
            if m["type"] == "http.response.body":
                body = m.get("body", b"")
                if left is not None and len(body) >= left:
                    await send({**m, "body": body[:left], "more_body": True})
                    raise CutError
                left = None if left is None else left - len(body)
                if fault.corrupt and body and not m.get("more_body"):
                    m = {**m, "body": body[:-1] + bytes([body[-1] ^ 1])}
            # A server that knows a shorter way to send a file would go past this.
            await send(m)

        return broken

    def remember(scope, st):
        log.append((scope["method"], scope["path"], st.get("s")))
        if os.environ.get("MINIHUB_LOG"):
            with open(os.environ["MINIHUB_LOG"], "a") as f:
                f.write(f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {st.get('s')}\n")

    logged.log = log
    logged.faults = faults
    return logged


class running:  # noqa: N801 (used like a function)
    """with running(tmp_path) as url: ..."""

    def __init__(self, root, port=0):
        self.root, self.port = root, port

    def __enter__(self):
        import socket

        import uvicorn

        sock = socket.socket()
        sock.bind(("127.0.0.1", self.port))
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self.app = create_app(self.root)
        self.faults, self.log = self.app.faults, self.app.log
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="critical", lifespan="off"))
        self.t = threading.Thread(target=self.server.run, kwargs={"sockets": [sock]}, daemon=True)
        self.t.start()
        while not self.server.started:
            time.sleep(0.01)
        return self.url

    def __exit__(self, *a):
        for fault in self.faults:
            fault.release()
        self.server.should_exit = True
        self.t.join(5)


if __name__ == "__main__":
    import sys

    import uvicorn

    uvicorn.run(create_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
