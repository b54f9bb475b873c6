"""What a module's C source offers: its directives and its variables.

The tables are read as the compiler for one version of nginx sees them:
#if is obeyed, with the macros that a header defines for that version.
"""

import re

#: What nginx is configured with when its proxy is complete.
BUILT_WITH = {"NGX_HTTP_SSL": 1, "NGX_HTTP_CACHE": 1, "NGX_PCRE": 1}

COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|/\*.*?\*/', re.DOTALL)
ENTRY = re.compile(r'\{\s*ngx_string\("(\w+)"\),\s*([A-Z0-9_|\s]+),')
VARIABLE = re.compile(r'\{\s*ngx_string\("(\w+)"\),')

CONTEXTS = {
    "NGX_HTTP_MAIN_CONF": "http",
    "NGX_HTTP_SRV_CONF": "server",
    "NGX_HTTP_LOC_CONF": "location",
    "NGX_HTTP_LIF_CONF": "if in location",
    "NGX_HTTP_LMT_CONF": "limit_except",
    "NGX_HTTP_UPS_CONF": "upstream",
}


def number(version):
    """1022001 for (1, 22, 1)."""
    major, minor, patch = version
    return major * 1000000 + minor * 1000 + patch


def macros(header, nginx_version, **more):
    """The macros that a header defines as whole numbers.

    `more` are those that the headers of a relative of nginx define.
    """
    found = {**BUILT_WITH, "nginx_version": nginx_version, **more}
    preprocess(header, found)
    return found


def preprocess(text, defined):
    """The lines that #if, #ifdef, #else leave; adds to `defined`."""
    kept, levels, past = [], [], []
    for line in COMMENT.sub(r"\1", text).replace("\\\n", "").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word in ("#if", "#ifdef", "#ifndef"):
            if word != "#if":
                rest = f"{'!' if word == '#ifndef' else ''}defined {rest}"
            levels.append(holds(rest, defined))
            past.append(levels[-1])
        elif word in ("#elif", "#else"):
            levels[-1] = not past[-1] and (word == "#else"
                                           or holds(rest, defined))
            past[-1] |= levels[-1]
        elif word == "#endif":
            levels.pop()
            past.pop()
        elif all(levels):
            macro = re.fullmatch(r"#define (\w+)\s+(\w+)", line.strip())
            if macro and macro[2].isdigit():
                defined[macro[1]] = int(macro[2])
            elif macro and macro[2] in defined:
                defined[macro[1]] = defined[macro[2]]
            kept.append(line)
    return "\n".join(kept)


def holds(condition, defined):
    """Whether the condition of an #if is true; unknown names are 0."""
    condition = re.sub(r"defined\s*\(?\s*(\w+)\s*\)?",
                       lambda name: str(int(name[1] in defined)), condition)
    condition = re.sub(r"[A-Za-z_]\w*",
                       lambda name: str(defined.get(name[0], 0)), condition)
    condition = re.sub(r"!(?!=)", " not ", condition)
    condition = condition.replace("&&", " and ").replace("||", " or ")
    return bool(eval(condition, {"__builtins__": {}}))


def _tables(text, kind, defined):
    text = preprocess(text, dict(defined))
    pattern = rf"^(?:static )?{kind}\s+\w+\[\] = \{{$(.*?)^\}};"
    for table in re.finditer(pattern, text, re.DOTALL | re.MULTILINE):
        yield table[1]


def directives(text, defined):
    """name -> (set of contexts, set of flags for the arguments)."""
    found = {}
    for table in _tables(text, "ngx_command_t", defined):
        for name, flags in ENTRY.findall(table):
            flags = set(re.findall(r"\w+", flags))
            found[name] = ({CONTEXTS[flag] for flag in flags & set(CONTEXTS)},
                           flags - set(CONTEXTS))
    return found


def variables(text, defined):
    """The names of the variables, without the dollar sign."""
    return {name for table in _tables(text, "ngx_http_variable_t", defined)
            for name in VARIABLE.findall(table)}
