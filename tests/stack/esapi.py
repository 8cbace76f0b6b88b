"""Asks an Elasticsearch or an OpenSearch; and the commands of docs/elastic.md, with what each must find."""
import collections, datetime, json, os, re, subprocess, time, urllib.error, urllib.request

from records import BEGIN, END, FAILED, HELLO, flat, loopback, weight, within
from stand import ROOT, equal

STREAM, ECS = "logs-flowtel.otel-default", "logs-flowtel-default"
PAGE = ROOT / "docs/elastic.md"


class Elastic:
    def __init__(self, base): self.base = base

    def ask(self, path, body=None, method=None, ok=(200,)):
        request = urllib.request.Request(f"{self.base}/{path}", None if body is None else json.dumps(body).encode(),
                                         {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as r: return json.load(r)
        except urllib.error.HTTPError as e:
            text = e.read().decode()
            assert e.code in ok, f"HTTP {e.code}: {text}"
            return json.loads(text)

    def count(self, stream=STREAM): return self.ask(f"{stream}/_count", ok=(404, 503)).get("count", 0)

    def settle(self, want, stream=STREAM, seconds=300):
        until = time.time() + seconds
        while self.count(stream) != want and time.time() < until: time.sleep(0.5)
        return self.count(stream)

    def documents(self, stream, fields):
        """All documents: id → fields."""
        found, after = {}, None
        while True:
            body = {"size": 1000, "sort": ["_doc"], "_source": False, "fields": fields, "track_total_hits": False} | ({"search_after": after} if after else {})
            hits = self.ask(f"{stream}/_search", body)["hits"]["hits"]
            if not hits: return found
            for h in hits: found[h["_id"]] = h.get("fields", {})
            after = hits[-1]["sort"]


def setup(base, **more):
    return subprocess.run(["bash", ROOT / "config/elastic/setup.sh"], env=os.environ | {"ELASTICSEARCH": base} | more, text=True, capture_output=True)


def stamp(nanoseconds):
    """As Elasticsearch writes a stamp of date_nanos: without the zeros at its end, but with milliseconds."""
    second, rest = divmod(nanoseconds, 10**9)
    digits = f"{rest:09d}".rstrip("0").ljust(3, "0")
    return datetime.datetime.fromtimestamp(second, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S") + f".{digits}Z"


def commands():
    """What each command of the page is for, the command, and the output beside it."""
    return re.findall(r"^\*\*([^*\n]+)\.\*\*(?:(?!^\*\*).)*?^```sh elastic\n(.*?)\n```\n(?:\n```text\n(.*?)\n```\n)?", PAGE.read_text(), re.S | re.M)


def write(outputs):
    """Puts what was answered beside each command."""
    left = iter(outputs)
    PAGE.write_text(re.sub(r"(^```sh elastic\n.*?\n```\n)(?:\n```text\n.*?\n```\n)?", lambda m: f"{m[1]}\n```text\n{next(left)}\n```\n", PAGE.read_text(), flags=re.S | re.M))


def run(base, command):
    done = subprocess.run(["bash", "-euc", command], env=os.environ | {"ES": base}, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


# === what is taken of an answer; the page shows the same

def hits(answer): return answer["hits"]["total"]["value"]


def buckets(answer):
    """Key → number: of the sub-aggregation where there is one, else of documents."""
    def number(b):
        inner = [v for v in b.values() if isinstance(v, dict)]
        return inner[0].get("value_as_string", inner[0]["value"]) if inner else b["doc_count"]
    return {b["key"]: number(b) for b in next(iter(answer["aggregations"].values()))["buckets"]}


def single(answer): return next(iter(answer["aggregations"].values()))["value"]


def longest(answer): return [h["fields"]["flowtel.flow.duration"][0] for h in answer["hits"]["hits"]]


def percentile(answer): return round(answer["aggregations"]["handshake"]["values"]["95.0"], 3) # it is an estimate


def shown(taken):
    """As the page shows it: the first five."""
    if isinstance(taken, dict):
        rows = [f"{v if isinstance(v, str) else f'{v:g}':>10}  {k}" for k, v in taken.items()]
        return "\n".join(rows[:5] + ([f"… {len(rows)} rows"] if len(rows) > 5 else []))
    if isinstance(taken, list): return "\n".join(f"{v:>10g}" for v in taken[:5])
    return f"{taken:g}"


# === what must come

def expectations(records):
    """Each command of docs/elastic.md, in its order: what to take of its answer, and what that must be."""
    rows = flat(records)
    out = [f for f in rows if f.get("flowtel.flow.direction") == "outgoing"]
    far = [f for f in out if not loopback(f)]
    begins, ends, failed = ([f for f in far if f["event"] == e] for e in (BEGIN, END, FAILED))
    refused = [f for f in failed if f["error.type"] == "refused"]
    def add(rows, key, value):
        total = collections.Counter()
        for f in rows: total[f[key]] += value(f)
        return dict(total)
    first = {}
    for f in begins: first[f["destination.address"]] = min(f["time"], first.get(f["destination.address"], 1 << 63))
    shakes = sorted(f["flowtel.tcp.handshake.duration"] for f in begins)
    return [
        (hits, sum(within(f, "destination", "93.184.0.0/16") for f in begins)),
        (hits, sum("github.com" in f.get("flowtel.destination.dns.names", []) for f in out if f["event"] == BEGIN)),
        (buckets, add(refused, "process.executable.name", weight)),
        (buckets, add(begins, "process.executable.name", weight)),
        (buckets, add(ends, "destination.address", lambda f: f["flowtel.source.bytes"])),
        (buckets, add([f for f in far if "flowtel.delta.source.bytes" in f], "destination.address", lambda f: f["flowtel.delta.source.bytes"])),
        (buckets, add([f for f in far if f["event"] == HELLO], "flowtel.tls.server_name", lambda f: 1)),
        (percentile, lambda got: abs(got - shakes[int(len(shakes) * 0.95)]) < 0.02),
        (longest, sorted((f["flowtel.flow.duration"] for f in ends), reverse=True)[:10]),
        (buckets, {k: stamp(v // 10**6 * 10**6) for k, v in first.items()}), # aggregations count milliseconds
        (hits, sum("flowtel.destination.dns.names" not in f for f in begins)),
        (single, 7.0),
        (single, len({f["log.record.uid"] for f in rows})),
    ]


def ask_all(check, base, records, page=True):
    """Runs each command of the page; returns what the page should show."""
    asked, wanted, outputs = commands(), expectations(records), []
    check("each command of docs/elastic.md has its expectation", lambda: equal(len(asked), len(wanted)))
    for (what, command, output), (take, must) in zip(asked, wanted):
        def test():
            got = take(run(base, command))
            # Stamps of the page are of another hour than those of this run.
            outputs.append(re.sub(r"\d{4}-\d\d-\d\dT\d\d:", "2026-11-28T20:", shown(got)))
            if callable(must): return equal(must(got), True)
            equal(got, must)
        check(f"docs: {what}", test)
        if page: check("  … and its output is the page's", lambda: equal(re.sub("T..:..:..", "", outputs[-1]), re.sub("T..:..:..", "", output)))
    return outputs
