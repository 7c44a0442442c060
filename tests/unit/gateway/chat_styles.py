"""Chat templates in the styles of the families that people serve, and with everything that Jinja can do in one."""

# ruff: noqa: E501

from __future__ import annotations

STYLES = {
    "chatml": """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""",
    "llama 2": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set said = messages[0]['content'] %}
{% else %}{% set rest = messages %}{% set said = false %}{% endif %}
{% for message in rest %}{% if loop.index0 == 0 and said != false %}{% set content = '<<SYS>>' ~ said ~ '<</SYS>>' ~ message.content %}
{% else %}{% set content = message['content'] %}{% endif %}
{% if message.role == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}{{ content | trim }}{{ eos_token }}{% endif %}
{% endfor %}""",
    "llama 3": """{{- bos_token }}{%- set date = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- if not tools is none %}{{- "Tools: " }}{% for t in tools %}{{ t | tojson(indent=4) }}{{ "\\n\\n" }}{% endfor %}{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", "parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}
    {%- endif %}
{%- endfor %}{{ date[:0] }}""",
    "namespace": """{% set ns = namespace(found=false, text='') %}{% for m in messages | reverse %}
{% if not ns.found and m.role == "user" %}{% set ns.found = true %}{% set ns.text = ns.text ~ loop.revindex ~ m.content %}{% endif %}
{% endfor %}{{ ns.text }}""",
    "macro": """{% macro render(m, depth=0) -%}<{{ m.role }} {{ depth }}>{{ m.content | upper }}{%- endmacro %}
{% for m in messages %}{{ render(m, loop.index) }}{{ "," if not loop.last }}{% endfor %}""",
    "loop controls": """{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{% if loop.index > 4 %}{% break %}
{% endif %}{{ loop.cycle('a', 'b') }}{{ m.content }}{% else %}nothing{% endfor %}""",
    "generation": """{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% set x = 1 %}{{ m.content }}{{ x }}{% endgeneration %}
{% else %}{{ m.content }}{% endif %}{% endfor %}{{ x is defined }}""",
    "filters": """{{ messages | map(attribute='role') | join(', ') }}|{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ tools | map(attribute='function') | map(attribute='name') | list }}|{{ "%s-%03d" | format("a", 7) }}|{{ "x" | center(9) }}|
{{ "abc" | replace("b", "<>") }}|{{ {"b": 1, "a": [true, none]} | tojson(sort_keys=true, separators=(",", ":")) }}|{{ "a\\nb" | indent(2) }}""",
    "python": """{{ "a,b".split(",")[-1] }}{{ "=" * 5 }}{{ [1, 2] + [3] }}{{ "%s!" % "x" }}{{ 2 ** 5 }}{{ "{} {}".format("p", 1) }}
{{ messages[1].content.strip().startswith("Hi") }}{{ range(3) | list }}{{ dict(a=1).items() | list }}{{ "q".ljust(3) }}|{{ messages[0].get("name", "none") }}""",
    "documents": """{% for d in documents %}{{ loop.index }}. {{ d.title }}: {{ d.text }}
{% endfor %}{% for key, value in documents[0] | dictsort %}{{ key }}={{ value }};{% endfor %}{{ thinking | default(false) }}""",
    "recursive": """{% for part in [{"c": [{"c": [], "n": 2}], "n": 1}] recursive %}{{ part.n }}{{ loop.depth }}({{ loop(part.c) }}){% endfor %}""",
    "call block": """{% macro box(kind) %}[{{ kind }}:{{ caller() }}]{% endmacro %}{% for m in messages %}{% call box(m.role) %}{{ m.content }}
{% endcall %}{% endfor %}{% filter upper %}done{% endfilter %}{% set text %}  kept  {% endset %}{{ text }}""",
    "whitespace": "  {% if true %}\n    a\n  {% endif %}\n\n{# comment #}\n{{ 'b' }}\n   {%- if true -%}\n  c  \n{%+ endif %}\n\n",
}  # fmt: skip
