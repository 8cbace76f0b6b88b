"""What the dashboards are made of: queries, panels and their places. The rest of this folder says what is shown."""

LOKI, PROMETHEUS = {"type": "loki", "uid": "loki"}, {"type": "prometheus", "uid": "prometheus"}
FLOW = "flowtel.tcp.flow."
# How many connections or attempts a record stands for: folded ones are many.
N = '| label_format n="{{or .flowtel_fold_count 1}}" | unwrap n'
FAR = '| source_address!~"${loopback:raw}"'
DESTINATION = "destination_address, destination_port, flowtel_destination_dns_names"


def stream(event, more=""):
    """Records of an event, of the chosen hosts and without loopback."""
    return f'{{service_name="flowtel", host_name=~"$host", event_name="{event}"}} {FAR}{" " + more if more else ""}'


def begins(more=""): return stream(FLOW + "begin", f'| flowtel_flow_direction="outgoing"{" " + more if more else ""}')
def ends(more=""): return stream(FLOW + "end", f'| flowtel_flow_direction="outgoing"{" " + more if more else ""}')
def failed(more=""): return stream(FLOW + "failed", more)


def loki(expr, legend="", instant=False, ref="A"):
    return {"refId": ref, "datasource": LOKI, "editorMode": "code", "expr": expr, "queryType": "instant" if instant else "range", "legendFormat": legend}


def prometheus(expr, legend="", ref="A"):
    return {"refId": ref, "datasource": PROMETHEUS, "editorMode": "code", "expr": expr, "legendFormat": legend, "range": True}


def panel(kind, title, about, targets, w, h, unit=None, options=None, custom=None, overrides=(), transformations=(), thresholds=None, **defaults):
    targets = targets if isinstance(targets, list) else [targets]
    field = {"custom": custom or {}} | ({"unit": unit} if unit else {}) | ({"thresholds": thresholds} if thresholds else {}) | defaults
    made = {"type": kind, "title": title, "description": about, "datasource": targets[0]["datasource"], "gridPos": {"w": w, "h": h, "x": 0, "y": 0},
            "targets": targets, "fieldConfig": {"defaults": field, "overrides": list(overrides)}, "options": options or {}}
    return made | ({"transformations": list(transformations)} if transformations else {})


def graph(title, about, targets, w=12, h=8, unit="short", bars=False):
    custom = {"drawStyle": "bars", "fillOpacity": 60, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}} if bars else {"fillOpacity": 10, "lineWidth": 1}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return panel("timeseries", title, about, targets, w, h, unit, {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}, custom, min=0)


def number(title, about, target, bad=None, w=6, h=4, unit="short"):
    """One number; red from `bad` on."""
    steps = [{"value": None, "color": "green" if bad is not None else "text"}] + ([{"value": bad, "color": "red"}] if bad is not None else [])
    options = {"reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""}, "colorMode": "background" if bad is not None else "value",
               "graphMode": "none", "textMode": "value", "justifyMode": "auto", "orientation": "auto", "wideLayout": True, "showPercentChange": False,
               "percentChangeColorMode": "standard"}
    return panel("stat", title, about, target, w, h, unit, options, thresholds={"mode": "absolute", "steps": steps})


def table(title, about, targets, columns, w=12, h=9, units=None, links=None):
    """`columns`: field → heading, in their order; the values of targets A, B, … are `Value #A`, …"""
    targets = targets if isinstance(targets, list) else [targets]
    names = {(f if len(targets) > 1 or f != "Value #A" else "Value #A"): heading for f, heading in columns.items()}
    overrides = [{"matcher": {"id": "byName", "options": names[f]}, "properties": [{"id": "unit", "value": u}]} for f, u in (units or {}).items()]
    overrides += [{"matcher": {"id": "byName", "options": names[f]}, "properties": [{"id": "links", "value": [{"title": title_, "url": url}]}]}
                  for f, (title_, url) in (links or {}).items()]
    organize = {"excludeByName": {"Time": True}, "indexByName": {f: i for i, f in enumerate(names)}, "renameByName": names}
    steps = [{"id": "merge", "options": {}}] if len(targets) > 1 else []
    return panel("table", title, about, targets, w, h, options={"showHeader": True, "cellHeight": "sm", "frameIndex": 0}, custom={"align": "auto", "filterable": True, "inspect": False},
                 overrides=overrides, transformations=steps + [{"id": "organize", "options": organize}])


def lines(title, about, expr, w=24, h=14):
    options = {"showTime": True, "wrapLogMessage": False, "sortOrder": "Descending", "enableLogDetails": True, "dedupStrategy": "none",
               "showLabels": False, "showCommonLabels": False, "showLogContextToggle": False, "prettifyLogMessage": False}
    return panel("logs", title, about, loki(expr), w, h, options=options) | {"fieldConfig": {"defaults": {}, "overrides": []}}


# === variables

def hosts():
    return {"name": "host", "label": "Host", "type": "query", "datasource": LOKI, "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".+",
            "query": {"label": "host_name", "refId": "hosts", "stream": '{service_name="flowtel"}', "type": 1}, "current": {"text": ["All"], "value": ["$__all"]}}


def loopback():
    hide, show = "127[.].*|::1", "none"
    return {"name": "loopback", "label": "Loopback", "type": "custom", "multi": False, "includeAll": False, "query": f"hidden : {hide}, shown : {show}",
            "current": {"text": "hidden", "value": hide},
            "options": [{"text": "hidden", "value": hide, "selected": True}, {"text": "shown", "value": show, "selected": False}]}


def words(name, label, about):
    """A field to type a regular expression into."""
    return {"name": name, "label": label, "description": about, "type": "textbox", "query": ".*", "current": {"text": ".*", "value": ".*"},
            "options": [{"text": ".*", "value": ".*", "selected": True}]}


# === the dashboard

def dashboard(uid, title, about, panels, variables, since="now-1h", refresh="1m"):
    x = y = row = 0
    for i, p in enumerate(panels):
        place = p["gridPos"]
        if x + place["w"] > 24: x, y, row = 0, y + row, 0
        place["x"], place["y"], p["id"] = x, y, i + 1
        x, row = x + place["w"], max(row, place["h"])
    link = {"title": "flowtel", "type": "dashboards", "tags": ["flowtel"], "asDropdown": False, "icon": "external link", "includeVars": False, "keepTime": True,
            "targetBlank": False, "tooltip": "", "url": ""}
    return {"uid": uid, "title": title, "description": about, "tags": ["flowtel"], "schemaVersion": 41, "version": 1, "editable": True, "graphTooltip": 1,
            "refresh": refresh, "time": {"from": since, "to": "now"}, "timezone": "browser", "annotations": {"list": []}, "links": [link],
            "templating": {"list": variables}, "panels": panels}
