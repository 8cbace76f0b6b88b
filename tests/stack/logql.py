"""Asks a Loki, and takes the queries of docs/loki.md from the page together with the output that stands beside each."""
import json, re, urllib.error, urllib.parse, urllib.request

from records import HOUR
from stand import ROOT

PAGE = ROOT / "docs/loki.md"
BLOCK = re.compile(r"```logql\n(.*?)\n```\n(?:\n```text\n(.*?)\n```\n)?", re.S)


class Loki:
    """Asks as of `now` (nanoseconds), so that answers are the same however long a test takes."""
    def __init__(self, base, now): self.base, self.now = base, now

    def ask(self, query, kind="query", **more):
        more = {"query": query, "limit": 5000} | ({"time": self.now} if kind == "query" else {"start": self.now - HOUR, "end": self.now}) | more
        try:
            with urllib.request.urlopen(f"{self.base}/loki/api/v1/{kind}?{urllib.parse.urlencode(more)}", timeout=120) as r:
                return json.load(r)["data"]["result"]
        except urllib.error.HTTPError as e:
            raise AssertionError(f"HTTP {e.code}: {e.read().decode().strip()}") from None

    def lines(self, query):
        """Time and line of the records that a query for lines finds, the newest first."""
        found = [(int(t), line) for s in self.ask(query, "query_range") for t, line, *_ in s["values"]]
        return sorted(found, reverse=True)

    def table(self, query):
        """A metric query's answer: label values, sorted by the labels' names, and number."""
        return {tuple(v for _, v in sorted(r["metric"].items())): float(r["value"][1]) for r in self.ask(query)}

    def answer(self, query):
        """What a query finds, as docs/loki.md shows it: the table with the largest first, or the number of lines and the newest."""
        if not re.match(r"\s*\{", query):
            rows = sorted(((float(r["value"][1]), sorted(r["metric"].items())) for r in self.ask(query)), key=lambda r: (-r[0], r[1]))
            shown = [f"{number:g}".rjust(8) + "  " + " ".join(f"{k}={v}" for k, v in labels) for number, labels in rows[:5]]
            return "\n".join(line.rstrip() for line in shown + ([f"… {len(rows)} rows"] if len(rows) > 5 else []))
        found = self.lines(query)
        return "\n".join([f"{len(found)} records, the newest:"] + [line for _, line in found[:3]])


def asked():
    """Each query of the page, and the output beside it."""
    return [(q, out) for q, out in BLOCK.findall(PAGE.read_text())]


def write(outputs):
    """Puts what was answered beside each query."""
    left = iter(outputs)
    PAGE.write_text(BLOCK.sub(lambda m: f"```logql\n{m[1]}\n```\n\n```text\n{next(left)}\n```\n", PAGE.read_text()))


def stock(query):
    """The query for a Loki whose settings make no label of event_name."""
    return re.sub(r'\{service_name="flowtel", (event_name=~?"[^"]+")\}', r'{service_name="flowtel"} | \1', query)
