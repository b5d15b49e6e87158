"""A small Hugging Face Hub on this machine, so that pushing and loading can be tested without the network.

Repositories are plain folders, ROOT/datasets/ORG/NAME, ROOT/models/ORG/NAME and ROOT/spaces/ORG/NAME: a test can
prepare one by writing files, and look at what was pushed (ROOT/lfs holds what was uploaded to LFS). Only the newest
state is kept; its commit id is computed from the files, so it changes when they do. Programs that talk to it need
`hub.environment` before they import anything of Hugging Face, and an HF_HOME of their own:

    with FakeHub(tmp_path / "hub") as hub:
        environment = os.environ | hub.environment | {"HF_HOME": str(tmp_path / "cache")}
        subprocess.run([sys.executable, "-c", "..."], env=environment, check=True)
        assert (hub.folder("datasets", "lab/galaxies") / "README.md").is_file()

It answers (TYPE is datasets, models or spaces; outside /api, models have no TYPE/), and to all else 404:

    GET  /api/whoami-v2     POST /api/repos/create     POST /api/validate-yaml
    GET  /api/TYPE/REPO     GET  /api/TYPE/REPO/revision/REV     GET  /api/TYPE/REPO/tree/REV[/PATH]
    POST /api/TYPE/REPO/paths-info/REV     POST /api/TYPE/REPO/preupload/REV     POST /api/TYPE/REPO/commit/REV
    POST /TYPE/REPO.git/info/lfs/objects/batch     PUT  /lfs/OID     GET and HEAD /TYPE/REPO/resolve/REV/PATH

There are no branches, tags, pull requests, private repositories or Xet storage. With an exception that does no harm
(load_dataset looks up the name datasets-server.127.0.0.1, in vain), nothing goes out to the network.
"""

import base64
import functools
import hashlib
import json
import math
import re
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".bin", ".gz", ".jpeg", ".jpg", ".npz", ".parquet", ".png", ".pt", ".safetensors", ".tar", ".zip")
STATUS = {"busy": 429, "broken": 500}  # trouble -> what is answered
LFS_BYTES = 10 << 20  # larger files go to LFS whatever their name
# Both give: type, repository, action, revision, path
API = re.compile(r"/api/(datasets|models|spaces)/([^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)(?:/(.+))?)?")
WEB = re.compile(
    r"/(?:(datasets|spaces)/)?([^/]+/[^/]+?)(?:/|\.git/info/lfs/objects/)(resolve|batch)(?:/([^/]+)/(.+))?"
)


class FakeHub:
    """The Hub, answering at `url` while the `with` block runs. `requests` lists (method, path without query)."""

    def __init__(self, root):
        self.root, self.requests, self.lock = Path(root), [], threading.Lock()
        self.lfs_suffixes = LFS_SUFFIXES  # with () all small files are regular, and uploads need no LFS and no Xet
        self.heal()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.environment = {"HF_ENDPOINT": self.url, "HF_TOKEN": "hf_fake", "NO_PROXY": "127.0.0.1"}
        self.environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self.environment |= {"HF_UPDATE_DOWNLOAD_COUNTS": "0"}  # else datasets asks Amazon

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def folder(self, kind, repo):
        return self.root / kind / repo

    def address(self, folder):
        return f"{self.url}/{folder.relative_to(self.root).as_posix().removeprefix('models/')}"

    def fail(self, after, status=403, times=math.inf):
        """Let `after` more writes (LFS files, commits) work, then refuse `times`.

        403 ends an upload at once. Clients try 5xx again, five times within 23 s: use those with `times`.
        """
        self.failure = [after, status, times]

    def trouble(self, kind, after=0, times=math.inf):
        """Let `after` more requests of any kind be answered well, then the next `times` not: "busy" (429), "broken" (500), "slow", or
        "half": the connection ends in the middle of an answer.
        """
        self.troubles = [after, kind, times]

    def next_trouble(self):
        """The trouble of this request, or None."""
        with self.lock:
            after, kind, times = self.troubles
            self.troubles = [max(after - 1, 0), kind, times if after else times - 1]
        return kind if not after and times > 0 else None

    def heal(self):
        self.fail(after=math.inf)
        self.trouble("", times=0)

    def refusal(self):
        """The status to refuse this write with, or None."""
        with self.lock:
            after, status, times = self.failure
            self.failure = [max(after - 1, 0), status, times if after else times - 1]
        return status if not after and times > 0 else None

    def is_lfs(self, path, size):
        return size > LFS_BYTES or (size > 0 and path.endswith(self.lfs_suffixes))

    def files(self, folder):
        """{path: what the Hub tells about this file} for all files of a repository."""
        files = {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            path, content = file.relative_to(folder).as_posix(), file.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            files[path] = {"type": "file", "path": path, "size": len(content), "oid": blob}
            if self.is_lfs(path, len(content)):
                sha256 = hashlib.sha256(content).hexdigest()
                files[path]["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        return files

    def commit_id(self, folder):
        listing = [(path, file["oid"]) for path, file in self.files(folder).items()]
        return hashlib.sha1(json.dumps(listing).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, hub, *arguments):
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def reply(self, body=b"", status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.is_half else body)
        self.close_connection |= self.is_half

    def refuse(self, status, message, **headers):
        self.reply({"error": message}, status, X_Error_Message=message, **headers)

    def answer(self):
        url, body = urlsplit(self.path), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append((self.command, url.path))
        trouble = self.hub.next_trouble()
        self.is_half = trouble == "half"
        if trouble in STATUS:
            return self.refuse(STATUS[trouble], "The fake Hub was told to be in trouble", Retry_After=1)
        if trouble == "slow":
            time.sleep(0.5)
        if re.search("/(create|preupload|batch|commit)(/|$)", url.path) and "Authorization" not in self.headers:
            return self.refuse(401, "Invalid username or password.")
        if url.path == "/api/whoami-v2":
            return self.reply({"type": "user", "name": "tester", "orgs": []})
        if url.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if url.path == "/api/repos/create":
            return self.create(json.loads(body))
        if self.command == "PUT" and url.path.startswith("/lfs/"):
            return self.lfs_put(url.path.removeprefix("/lfs/"), body)
        if not (route := API.fullmatch(url.path) or WEB.fullmatch(url.path)):
            return self.refuse(404, f"The fake Hub does not know {url.path}")
        kind, repo, action, revision, path = (unquote(part or "") for part in route.groups())
        folder = self.hub.folder(kind or "models", repo)
        if not folder.is_dir():
            return self.refuse(404, "Repository not found", X_Error_Code="RepoNotFound")
        commit = self.hub.commit_id(folder)
        if revision not in ("", "main", commit):
            return self.refuse(404, f"Invalid rev id: {revision}", X_Error_Code="RevisionNotFound")
        match action:
            case "" | "revision":
                return self.info(folder, repo, commit)
            case "tree":
                return self.tree(folder, path, parse_qs(url.query).get("recursive") == ["true"])
            case "paths-info":
                return self.paths_info(folder, parse_qs(body.decode()).get("paths", []))
            case "resolve":
                return self.resolve(folder, path, commit)
            case "preupload":
                return self.preupload(folder, json.loads(body)["files"])
            case "batch":
                return self.lfs_batch(json.loads(body)["objects"])
            case "commit":
                return self.commit(folder, [json.loads(line) for line in body.splitlines()])
        return self.refuse(404, f"The fake Hub does not know {action}")

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def create(self, wish):
        kind, repo = wish.get("type", "model") + "s", f"{wish.get('organization') or 'tester'}/{wish['name']}"
        folder = self.hub.folder(kind, repo)
        url = self.hub.address(folder)
        if kind == "spaces" and not wish.get("sdk"):
            return self.refuse(400, "A Space needs an sdk")
        if folder.is_dir():
            return self.reply({"error": f"You already created this {kind[:-1]} repo", "url": url}, 409)
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("".join(f"*{s} filter=lfs -text\n" for s in self.hub.lfs_suffixes))
        return self.reply({"url": url})

    def info(self, folder, repo, commit):
        card = (folder / "README.md").read_text() if (folder / "README.md").is_file() else ""
        found = dict(re.findall(r"^(pipeline_tag|library_name|sdk): *(\S+)$", card, re.M))
        siblings = [{"rfilename": path} for path in self.hub.files(folder)]
        self.reply({"_id": "0", "id": repo, "sha": commit, "private": False, "siblings": siblings, **found})

    def tree(self, folder, path, recursive):
        if not (folder / path).is_dir():
            return self.refuse(404, f"{path} does not exist", X_Error_Code="EntryNotFound")
        return self.paths_info(folder, (folder / path).glob("**/*" if recursive else "*"))

    def paths_info(self, folder, paths):
        entries = self.hub.files(folder)
        for path in [PurePosixPath(path) for path in entries]:
            for parent in map(str, path.parents[:-1]):
                entries[parent] = {"type": "directory", "path": parent, "oid": "0" * 40}
        paths = sorted((folder / path).relative_to(folder).as_posix() for path in paths)
        self.reply([entries[path] for path in paths if path in entries])

    def resolve(self, folder, path, commit):
        if not (file := self.hub.files(folder).get(path)):
            return self.refuse(404, f"{path} does not exist", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content, etag = (folder / path).read_bytes(), f'"{file.get("lfs", file)["oid"]}"'
        headers = {"ETag": etag, "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
        if "lfs" in file:
            headers |= {"X_Linked_ETag": etag, "X_Linked_Size": len(content)}
        if not (wanted := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))):
            return self.reply(content, **headers)
        first, last = wanted.groups()
        start = int(first) if first else max(len(content) - int(last), 0)
        if not (part := content[start : int(last) + 1 if first and last else None]):
            return self.refuse(416, "Range not satisfiable", Content_Range=f"bytes */{len(content)}")
        return self.reply(part, 206, Content_Range=f"bytes {start}-{start + len(part) - 1}/{len(content)}", **headers)

    def preupload(self, folder, wishes):
        present, answer = self.hub.files(folder), []
        for wish in wishes:
            mode = "lfs" if self.hub.is_lfs(wish["path"], wish["size"]) else "regular"
            answer.append({"path": wish["path"], "uploadMode": mode, "shouldIgnore": False})
            if old := present.get(wish["path"]):  # clients commit only what differs
                answer[-1]["oid"] = old.get("lfs", old)["oid"]
        self.reply({"files": answer})

    def lfs_batch(self, wishes):
        answer = [{"oid": wish["oid"], "size": wish["size"]} for wish in wishes]
        for wish in answer:
            if not (self.hub.root / "lfs" / wish["oid"]).is_file():  # what is here is not uploaded again
                wish["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wish['oid']}"}}
        self.reply({"transfer": "basic", "objects": answer})

    def lfs_put(self, oid, body):
        if status := self.hub.refusal():
            return self.refuse(status, "The fake Hub was told to fail")
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, f"The content is not that of {oid}")
        (self.hub.root / "lfs").mkdir(parents=True, exist_ok=True)
        (self.hub.root / "lfs" / oid).write_bytes(body)
        return self.reply()

    def commit(self, folder, lines):
        if status := self.hub.refusal():
            return self.refuse(status, "The fake Hub was told to fail")
        header, *changes = [(line["key"], line["value"]) for line in lines]
        stored = {value["path"]: self.hub.root / "lfs" / value["oid"] for key, value in changes if key == "lfsFile"}
        if missing := [path for path, file in stored.items() if not file.is_file()]:
            return self.refuse(400, f"LFS files that were not uploaded: {missing}")
        with self.hub.lock:
            if header[1].get("parentCommit") not in (None, self.hub.commit_id(folder)):
                return self.refuse(412, "There was another commit since")
            for key, value in changes:
                target = folder / value["path"]
                if key == "deletedFolder":
                    shutil.rmtree(target)
                elif key == "deletedFile":
                    target.unlink()
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file = stored.get(value["path"])
                    target.write_bytes(file.read_bytes() if file else base64.b64decode(value["content"]))
            commit = self.hub.commit_id(folder)
        return self.reply({"commitOid": commit, "commitUrl": f"{self.hub.address(folder)}/commit/{commit}"})
