"""``/``: a page for people. It reads ``/models`` every two seconds; no asset comes from elsewhere.

Where the gateway wants an API key, the page asks for it once and keeps it in the tab's ``sessionStorage``.
"""

from __future__ import annotations

from aiohttp import web

from modelium.gateway.http.describing import Reply, describes
from modelium.gateway.http.pages import headers_of_page
from modelium.values import State, Tone

_COLOURS = {
    Tone.INCOMING: "var(--dim)",
    Tone.REFUSED: "#d33",
    Tone.RESTING: "var(--dim)",
    Tone.COMING: "#c77d00",
    Tone.GOOD: "#2a9d4a",
    Tone.GOING: "#c77d00",
    Tone.BROKEN: "#d33",
}
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; }
p { margin: .2rem 0; color: var(--dim); }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 500; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { min-width: 10rem; max-width: 24rem; overflow-wrap: anywhere; }
td.reason { color: var(--dim); max-width: 30rem; overflow-wrap: anywhere; }
.state { font-weight: 600; }
STATES
progress { width: 12rem; vertical-align: middle; }
form { margin: 1rem 0; } input { font: inherit; width: 24rem; }
""".replace("STATES", "\n".join(f".{state} {{ color: {_COLOURS[state.tone]}; }}" for state in State))

_SCRIPT = """
const size = bytes => {
  if (bytes == null) return "";
  const units = ["B", "KiB", "MiB", "GiB"];  /* as modelium/sizes.py */
  let unit = 0;
  while (bytes >= 1023.5 && unit < 3) { bytes /= 1024; unit++; }
  return bytes.toFixed(unit === 3 ? 1 : 0) + " " + units[unit];
};
const span = s => {
  if (s == null) return "";
  return s < 90 ? s.toFixed(0) + " s" : s < 5400 ? (s / 60).toFixed(0) + " min" : (s / 3600).toFixed(1) + " h";
};
const cell = (text, kind) => {
  const td = document.createElement("td");
  td.textContent = text ?? "";
  if (kind) td.className = kind;
  return td;
};
document.getElementById("host").textContent = location.host;
const ask = document.getElementById("ask"), field = document.getElementById("key");
ask.onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("modelium-key", field.value.trim());
  field.value = "";
  refresh();
};
async function refresh() {
  const triton = document.getElementById("triton");
  try {
    const key = sessionStorage.getItem("modelium-key");
    const answer = await fetch("/models", key ? {headers: {Authorization: "Bearer " + key}} : {});
    const reply = await answer.json();
    ask.hidden = answer.status !== 401;
    if (!ask.hidden) {  /* until the form is sent there is nothing to repeat */
      sessionStorage.removeItem("modelium-key");
      triton.textContent = key ? "This API key is not known here." : "This Modelium wants an API key.";
      for (const place of ["devices", "models"]) document.getElementById(place).replaceChildren();
      field.focus();
      return;
    }
    const ray = {asleep: " · Ray sleeps until a model needs it", up: " · Ray " + reply.ray.version,
                 down: " · Ray is down. " + reply.ray.detail}[reply.ray.state] ?? "";
    triton.textContent = (reply.triton.up ? "Triton " + reply.triton.version : "Triton is down. " + reply.triton.detail) + ray;
    document.getElementById("devices").replaceChildren(...reply.devices.map(device => {
      const line = document.createElement("p"), bar = document.createElement("progress");
      bar.max = device.total_bytes; bar.value = device.used_bytes;
      line.append(bar, ` ${device.name}: ${size(device.used_bytes)} used of ${size(device.total_bytes)}, ` +
                       `models may take ${size(device.budget_bytes)}` +
                       (device.leaked_bytes ? `, ${size(device.leaked_bytes)} leaked: unloads did not bring it back` : ""));
      return line;
    }));
    if (reply.nursery) {
      const line = document.createElement("p"), nursery = reply.nursery;
      line.textContent = `nursery (libraries imported once for all models): ${size(nursery.held_bytes || null)} ` +
        (nursery.importing.length ? `importing them for ${nursery.importing.join(" and ")}; loads wait for it`
                                  : `ready, shared with ${nursery.children} of the models' processes`);
      document.getElementById("devices").append(line);
    }
    document.getElementById("models").replaceChildren(...reply.models.map(model => {
      const row = document.createElement("tr");
      const memory = size(model.held_bytes ?? model.measured_bytes ?? model.estimated_bytes);
      const runtime = (model.runtime ?? "") + (model.replicas > 1 ? " × " + model.replicas : "");
      row.append(cell(model.label + (model.pinned ? " (pinned)" : ""), "name"), cell(model.state, "state " + model.state),
        cell(model.profile?.task), cell(runtime), cell((model.devices ?? []).join(", ") || model.device),
        cell((model.held_bytes == null && memory ? "~" : "") + memory, "number"), cell(model.qps.toFixed(2), "number"),
        cell(span(model.idle_s), "number"), cell(model.waiting || "", "number"),
        cell([model.reason, model.waits_for ? "waits for " + model.waits_for : "", model.context].filter(Boolean).join("; "),
             "reason"));
      return row;
    }));
  } catch (error) {
    triton.textContent = "Modelium does not answer: " + error;
  }
  setTimeout(refresh, 2000);
}
refresh();
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Modelium</title>
<style>STYLE</style>
</head>
<body>
<h1>Modelium</h1>
<p id="triton"></p>
<form id="ask" hidden>
<label>API key <input id="key" type="password" autocomplete="off" spellcheck="false" required></label> <button>Show</button>
</form>
<div id="devices"></div>
<table>
<thead><tr><th>Model</th><th>State</th><th>Task</th><th>Runtime</th><th>Device</th><th>Memory</th><th>Requests/s</th><th>Idle</th>
<th>Waiting</th><th>Why</th></tr></thead>
<tbody id="models"></tbody>
</table>
<p>Ask a model: <code>curl -d '{"inputs": "Hello"}' http://<span id="host"></span>/predict/NAME</code>.
<a href="/docs">All routes</a></p>
<script>SCRIPT</script>
</body>
</html>
""".replace("STYLE", _STYLE).replace("SCRIPT", _SCRIPT)


_HEADERS = headers_of_page(_SCRIPT, _STYLE)


@describes("The web page.", gives=Reply(content_type="text/html", says="it asks for the rest itself"))
async def show_page(_request: web.Request) -> web.Response:
    """``GET /``: the page, which asks for the rest itself."""
    return web.Response(text=_PAGE, content_type="text/html", headers=_HEADERS)
