"""``/docs``: one page that lists the routes of ``/openapi.json`` and lets people try one. No asset comes from elsewhere.

It holds nothing itself: it asks for the document as any program does, with the key that the page at ``/`` keeps too. All that
comes from elsewhere is put into it as text.
"""

from __future__ import annotations

from aiohttp import web

from modelium.gateway.http.describing import Reply, describes
from modelium.gateway.http.pages import headers_of_page

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; } h2 { font-size: 1rem; margin: 1.4rem 0 .2rem; color: var(--dim); }
p { margin: .2rem 0; color: var(--dim); }
details { border-bottom: 1px solid var(--line); padding: .3rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
details > :not(summary) { margin-left: 1.2rem; }
.method { display: inline-block; min-width: 4rem; font-weight: 600; }
.says { color: var(--dim); margin-left: .8rem; }
table { border-collapse: collapse; margin: .4rem 0; }
td { padding: .1rem .8rem .1rem 0; vertical-align: top; overflow-wrap: anywhere; }
pre { overflow: auto; max-height: 24rem; border: 1px solid var(--line); padding: .5rem; white-space: pre-wrap; }
form label { display: block; margin: .3rem 0; } input { font: inherit; } textarea { font: 13px monospace; width: 100%; }
"""

_SCRIPT = """
const make = (kind, text, name) => {
  const element = document.createElement(kind);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const byId = id => document.getElementById(id);
const key = () => sessionStorage.getItem("modelium-key");
const withKey = headers => key() ? {...headers, Authorization: "Bearer " + key()} : headers;
let known;
const look = schema => schema?.$ref ? known.components.schemas[schema.$ref.split("/").pop()] : schema;

const kind = (schema, depth = 0) => {
  const seen = look(schema) ?? {};
  const parts = seen.anyOf ?? seen.oneOf;
  if (parts) return [...new Set(parts.map(part => kind(part, depth)))].join(" or ");
  if (seen.const !== undefined) return JSON.stringify(seen.const);
  if (seen.enum) return seen.enum.map(one => JSON.stringify(one)).join(", ");
  if (seen.type === "array") return "list of " + kind(seen.items ?? {}, depth + 1);
  return seen.type ?? "anything";
};
const fields = (schema, required = []) => {
  const seen = look(schema) ?? {};
  if (seen.allOf) return seen.allOf.flatMap(part => fields(part));
  return Object.entries(seen.properties ?? {}).map(([name, field]) =>
    [name, kind(field) + ((seen.required ?? required).includes(name) ? ", needed" : "")]);
};
const rows = pairs => {
  const table = make("table");
  for (const pair of pairs) {
    const row = make("tr");
    row.append(...pair.map(text => make("td", text)));
    table.append(row);
  }
  return table;
};

const form = (path, method, operation) => {
  const tried = make("form"), inputs = [], answer = make("pre"), button = make("button", "Try");
  const field = (name, where) => {
    const label = make("label", name + " "), input = make("input");
    inputs.push({name, where, input});
    label.append(input);
    tried.append(label);
  };
  for (const one of operation.parameters ?? []) if (one.in) field(one.name, one.in);
  const content = Object.entries(operation.requestBody?.content ?? {})[0];
  let body, file;
  if (content) {
    body = make("textarea");
    body.rows = 6;
    body.value = JSON.stringify(content[1].example ?? {}, null, 2);
    tried.append(body);
    if (content[0] === "multipart/form-data") {
      file = make("input");
      file.type = "file";
      tried.append(file);
    }
  }
  answer.hidden = true;
  tried.append(button);
  tried.onsubmit = async event => {
    event.preventDefault();
    answer.hidden = false;
    answer.textContent = "…";
    try {
      let url = path;
      const query = new URLSearchParams();
      for (const {name, where, input} of inputs) {
        if (where === "path") url = url.replace("{" + name + "}", encodeURIComponent(input.value));
        else if (input.value) query.set(name, input.value);
      }
      const options = {method: method.toUpperCase(), headers: withKey({})};
      if (file) {
        options.body = new FormData();
        for (const [name, value] of Object.entries(JSON.parse(body.value))) options.body.append(name, value);
        if (file.files[0]) options.body.append("file", file.files[0]);
      } else if (content) {
        options.body = body.value;
        options.headers["Content-Type"] = content[0];
      }
      const reply = await fetch(url + (query.size ? "?" + query : ""), options);
      const head = reply.status + " " + reply.statusText + "\\n";
      if ((reply.headers.get("Content-Type") ?? "").startsWith("image/")) {
        answer.textContent = head + (await reply.blob()).size + " bytes of a picture";
        return;
      }
      answer.textContent = head;
      if (!reply.body) return;
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) answer.append(piece.value);
    } catch (error) {
      answer.textContent = String(error);
    }
  };
  tried.append(answer);
  return tried;
};

const fill = (place, path, method, operation) => {
  const content = Object.values(operation.requestBody?.content ?? {})[0];
  if (content) place.append(make("h2", "Body"), rows(fields(content.schema)));
  place.append(make("h2", "Answers"), rows(Object.entries(operation.responses).map(([status, one]) =>
    [status, one.description, Object.keys(one.content ?? {}).join(", ")])));
  place.append(make("h2", "Try it"), form(path, method, operation));
};

async function show() {
  const reply = await fetch("/openapi.json", {headers: withKey({})});
  byId("ask").hidden = reply.status !== 401;
  if (reply.status !== 200) {
    sessionStorage.removeItem("modelium-key");
    byId("said").textContent = reply.status === 401 ? "This Modelium wants an API key." : "Modelium answers " + reply.status;
    return;
  }
  known = await reply.json();
  byId("said").textContent = "Version " + known.info.version + ". For programs: /openapi.json";
  const groups = new Map();
  for (const [path, methods] of Object.entries(known.paths))
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      const route = make("details"), head = make("summary");
      head.append(make("span", method.toUpperCase(), "method"), make("code", path), make("span", operation.summary, "says"));
      route.append(head);
      route.addEventListener("toggle", () => fill(route, path, method, operation), {once: true});
      groups.get(tag).push(route);
    }
  const shown = [...groups].flatMap(([tag, routes]) => [make("h2", tag), ...routes]);
  byId("routes").replaceChildren(...shown);
}
byId("ask").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("modelium-key", byId("key").value.trim());
  byId("key").value = "";
  show();
};
show();
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Modelium: routes</title>
<style>STYLE</style>
</head>
<body>
<h1>Modelium: routes</h1>
<p id="said"></p>
<form id="ask" hidden>
<label>API key <input id="key" type="password" autocomplete="off" spellcheck="false" required></label> <button>Show</button>
</form>
<div id="routes"></div>
<script>SCRIPT</script>
</body>
</html>
""".replace("STYLE", _STYLE).replace("SCRIPT", _SCRIPT)

_HEADERS = headers_of_page(_SCRIPT, _STYLE)


@describes("The routes, to be read and tried.", gives=Reply(content_type="text/html", says="it asks for the rest itself"))
async def show_page(_request: web.Request) -> web.Response:
    """``GET /docs``."""
    return web.Response(text=_PAGE, content_type="text/html", headers=_HEADERS)
