"""Renders chat templates with Jinja2 as Hugging Face transformers does: tests/tests/jinja2.rs.

    jinja_templates.py < CASES > TEXTS

CASES is a JSON list of objects with `template` and what a template is given, TEXTS a list of texts, or null where the template fails. The clock stands
still: a template that reads it is rendered with `now`, seconds after 1970 began.
"""

import datetime
import json
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what to train on."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(lineno)

    @staticmethod
    def _same(caller):
        return caller()


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def environment(now):
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    day = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    environment.globals["strftime_now"] = day.strftime
    return environment


def render(case):
    variables = {"documents": None, **case["variables"]}
    try:
        template = environment(case["now"]).from_string(case["template"])
        return template.render(**variables)
    except Exception as error:  # whatever Python makes of it, the template gives no text
        if case.get("why"):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    json.dump([render(case) for case in json.load(sys.stdin)], sys.stdout)
