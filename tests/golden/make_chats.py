"""Conversations with tools, rendered by Hugging Face transformers: tests/golden/chats.json.

    python tests/golden/make_chats.py

The templates are written for this test and use what chat templates of the field use of Jinja: tojson with its options, namespaces, macros, loop
controls, slices, tests, Python's methods, generation blocks, strftime_now and raise_exception. Written with transformers 5.24.0 and jinja2 3.1.6.
"""

import json
import pathlib

import transformers
from transformers.utils.chat_template_utils import render_jinja_template

TEMPLATES = {
    "tags": """{%- set ns = namespace(first_user=-1, calls=0) %}
{%- for m in messages %}
    {%- if m.role == 'user' and ns.first_user < 0 %}{% set ns.first_user = loop.index0 %}{% endif %}
{%- endfor %}
{%- if tools %}
<|sys|>{{ messages[0].content.strip() if messages[0].role == 'system' }}
Functions:
{%- for tool in tools %}
    {{- '\\n' ~ (tool | tojson) }}
{%- endfor %}

<|end|>
{%- endif %}
{%- for m in messages %}
    {%- if m.role == 'system' and tools %}{% continue %}{% endif %}
    {%- if m.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}<|user|>{% endif %}
        {{- '\\n[result]' + m.content + '[/result]' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|end|>{% endif %}
    {%- elif m.tool_calls is defined and m.tool_calls %}
<|assistant|>{{ m.content or '' }}
        {%- for call in m.tool_calls %}
            {%- if call.function is defined %}{% set call = call.function %}{% endif %}
            {%- set ns.calls = ns.calls + 1 %}
            {{- '<call>{"name": "' ~ call.name }}", "arguments": {{ call.arguments | tojson }}}</call>
        {%- endfor %}<|end|>
    {%- else %}
<|{{ m.role }}|>{% generation %}{{ m.content | trim }}{% endgeneration %}<|end|>
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{{ ns.first_user }}/{{ ns.calls }}{% endif %}
""",
    "headers": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{% set date_string = strftime_now('%Y') | length ~ ' digits' %}{% else %}{% set date_string = 'none' %}{% endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '[h]system[/h]' + date_string + ' ' + system_message }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- '\\n\\n' }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '[h]' + message['role'] + '[/h]' + message['content'] | trim + eos_token }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{ raise_exception('One call at a time, got ' ~ message.tool_calls | length) }}{% endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '[h]assistant[/h]' ~ call.name ~ '(' }}
        {%- for name, value in call.arguments | items %}
            {{- name + '=' + (value | string if value is string or value is number else value | tojson) }}{{ ', ' if not loop.last }}
        {%- endfor %}
        {{- ')' ~ '{"name": "' ~ call.name ~ '", "parameters": ' }}{{ call.arguments | tojson(sort_keys=true, separators=(',', ':')) }}{{ '}' ~ eos_token }}
    {%- else %}
        {{- '[h]tool[/h]' }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}{{ message.content | tojson }}
        {%- else %}{{ message.content }}{% endif %}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '[h]assistant[/h]' }}{% endif %}
""",
    "brackets": """{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- if tools is not defined %}{% set tools = none %}{% endif %}
{%- set users = turns | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for m in turns %}
    {%- if m["role"] == "user" %}
        {%- if tools is not none and (m == users[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val | tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{% if not loop.last %}{{ ", " }}{% else %}{{ "]" }}{% endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system is defined %}{{- "[INST]" + system + "\\n\\n" + m["content"] + "[/INST]" }}
        {%- else %}{{- "[INST]" + m["content"] + "[/INST]" }}{% endif %}
    {%- elif m.tool_calls is defined and m.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for call in m.tool_calls %}
            {%- set out = call.function | tojson %}
            {{- out[:-1] }}
            {%- if call.id is not defined or call.id | length != 9 %}{{ raise_exception("ids have nine characters") }}{% endif %}
            {{- ', "id": "' + call.id + '"}' }}{{ ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif m["role"] == "assistant" %}
        {{- " " + m["content"] | trim + eos_token }}
    {%- elif m["role"] in ["tool", "tool_results"] %}
        {{- '[RESULT] {"content": ' + m.content | string + ', "call_id": "' + m.tool_call_id + '", "name": ' + m.name | tojson + '}[/RESULT]' }}
    {%- else %}{{ raise_exception("unknown role " + m["role"]) }}{% endif %}
{%- endfor %}
""",
    "signatures": """{%- macro kind(schema, depth=0) -%}
    {%- if schema.enum is defined -%}{{ schema.enum | map('tojson') | join(' | ') }}
    {%- elif schema.type == 'array' -%}{{ kind(schema['items'] if schema['items'] else {}, depth + 1) }}[]
    {%- elif schema.type == 'object' and schema.properties -%}
        {{- '{' }}{% for name, part in schema.properties | dictsort %}{{ name }}{{ '?' if name not in (schema.required or []) }}: {{ kind(part, depth + 1) }}{{ '; ' if not loop.last }}{% endfor %}{{ '}' -}}
    {%- elif schema.type is string -%}{{ {'integer': 'number'}.get(schema.type, schema.type) }}
    {%- elif schema.type is iterable -%}{{ schema.type | join('|') }}
    {%- else -%}any{%- endif -%}
{%- endmacro -%}
{%- for tool in tools or [] %}
function {{ tool.function.name | upper }}({{ kind(tool.function.parameters) if tool.function.parameters is defined else '' }}); // {{ tool.function.description | default('none') | replace('\\n', ' ') | capitalize }}
{% endfor %}
{%- for m in messages if m.role != 'system' %}
{%- if loop.index > 4 %}{% break %}{% endif %}
{{ loop.index }}:{{ m.role[0] }}:{{ m.content.split(' ')[0] }}{{ '!' * loop.length if loop.first }}{{ m.content.startswith('It') }}
{%- endfor %}
{{ messages | map(attribute='role') | join(',') }}|{{ (messages | last).content[::-1] | length }}|{{ messages | rejectattr('role', 'in', ['user', 'tool']) | list | length }}
""",
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather <now> & \"here\",\nin °C",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "città, 日本"},
                    "days": {"type": "integer", "minimum": 0, "maximum": 14},
                    "unit": {"enum": ["c", "f", None, 1.5, 1e-7, 2e20, True]},
                    "spots": {"type": "array", "items": {"type": "object", "properties": {"z": {"type": "number"}, "a": {}}, "required": ["a"]}},
                    "empty": {"type": ["string", "null"], "default": [], "examples": {}},
                },
                "required": ["place"],
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]


def call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": " Be brief. "}
USER = {"role": "user", "content": "It rains in <Oslo> & 'Rom'?"}
CALLING = {"role": "assistant", "content": "", "tool_calls": [call("abcdefgh1", "weather", {"place": "Oslo \"N\"", "days": 2, "at": [1.0, -0.5], "deep": {"x": None}})]}
RESULT = {"role": "tool", "content": '{"rain": true}', "tool_call_id": "abcdefgh1", "name": "weather"}
TWO = {"role": "assistant", "content": "", "tool_calls": [call("abcdefgh2", "now", {}), call("abcdefgh3", "weather", {"place": "Ålesund"})]}
ANSWER = {"role": "assistant", "content": " It rains. "}
THANKS = {"role": "user", "content": "Thanks\nand now?"}

CHATS = {
    "plain": ([SYSTEM, USER, ANSWER, THANKS], None),
    "tools": ([SYSTEM, USER], TOOLS),
    "no system": ([USER], TOOLS),
    "a call": ([SYSTEM, USER, CALLING, RESULT], TOOLS),
    "answered": ([USER, CALLING, RESULT, ANSWER, THANKS], TOOLS),
    "two calls": ([USER, TWO, {**RESULT, "tool_call_id": "abcdefgh2"}, {**RESULT, "tool_call_id": "abcdefgh3"}], TOOLS[1:]),
    "a bad id": ([USER, {**CALLING, "tool_calls": [call("short", "now", {})]}, RESULT], TOOLS),
}

cases = []
for template_name, template in TEMPLATES.items():
    for chat_name, (messages, tools) in CHATS.items():
        case = {"name": f"{template_name}, {chat_name}", "template": template_name, "messages": messages, "tools": tools}
        try:
            texts, _ = render_jinja_template([messages], tools=tools, chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
            case["text"] = texts[0]
        except Exception as error:  # what the template refuses
            case["error"] = str(error)
        cases.append(case)

out = {"transformers": transformers.__version__, "templates": TEMPLATES, "cases": cases}
pathlib.Path(__file__).with_name("chats.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
for case in cases:
    print(case["name"], "->", case.get("error") or len(case["text"]))
