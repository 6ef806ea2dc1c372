# A YAML or JSON document as "path=value" lines: mappings give keys, lists give numbers from 1, joined by "/".
# Knows block and flow collections, comments and plain, single and double quoted scalars on one line. Does not know
# anchors, tags, and scalars of several lines.

function trim(text) {
    sub(/^[ \t]+/, "", text)
    sub(/[ \t]+$/, "", text)
    return text
}

# The value of a scalar that fills a line: without quotes, without the comment behind it.
function scalar(text,    quote, end) {
    text = trim(text)
    quote = substr(text, 1, 1)
    if (quote == "\"" || quote == "'") {
        end = index(substr(text, 2), quote)
        return end ? substr(text, 2, end - 1) : text
    }
    sub(/[ \t]+#.*$/, "", text)
    return text
}

function emit(path, value) { print path "=" value }

function join(path, key) { return path == "" ? key : path "/" key }

# Flow collections: FLOW is what is still to be read.
function skip() { sub(/^[ \t]+/, "", FLOW) }

function take(count,    text) {
    text = substr(FLOW, 1, count)
    FLOW = substr(FLOW, count + 1)
    return text
}

function token(stop,    quote, end) {
    skip()
    quote = substr(FLOW, 1, 1)
    if (quote == "\"" || quote == "'") {
        take(1)
        end = index(FLOW, quote)
        if (!end) end = length(FLOW) + 1
        quote = take(end - 1)
        take(1)
        return quote
    }
    match(FLOW, stop)
    return trim(take(RSTART ? RSTART - 1 : length(FLOW)))
}

function flow(path,    count, key, opening) {
    skip()
    opening = substr(FLOW, 1, 1)
    if (opening != "[" && opening != "{") {
        emit(path, token("[],}]"))
        return
    }
    take(1)
    for (skip(); FLOW != "" && FLOW !~ /^[]}]/; skip()) {
        if (opening == "{") {
            key = token(":([ \t]|$)|[,}]")
            skip()
            if (FLOW ~ /^:/) take(1)
            flow(join(path, key))
        } else {
            flow(join(path, ++count))
        }
        skip()
        if (FLOW ~ /^,/) take(1)
    }
    take(1)
}

function value(path, text) {
    if (text ~ /^[[{]/) {
        FLOW = text
        flow(path)
    } else {
        emit(path, scalar(text))
    }
}

# Block collections: a stack of the open keys and list items.
function push(indent, path, item) {
    DEPTH++
    INDENT[DEPTH] = indent
    PATH[DEPTH] = path
    ITEM[DEPTH] = item
}

function block(indent, text,    width, key, path) {
    while (text == "-" || text ~ /^- /) {
        # A list may stand at the indent of the key that holds it.
        while (DEPTH && (INDENT[DEPTH] > indent || (INDENT[DEPTH] == indent && ITEM[DEPTH]))) DEPTH--
        path = join(PATH[DEPTH], ++COUNT[PATH[DEPTH]])
        push(indent, path, 1)
        match(text, /^-[ ]*/)
        indent += RLENGTH
        text = substr(text, RLENGTH + 1)
        if (text == "") return
        if (text !~ /^- / && !match(text, KEY)) {
            value(path, text)
            return
        }
    }
    while (DEPTH && INDENT[DEPTH] >= indent) DEPTH--
    if (!match(text, KEY)) return
    width = RLENGTH
    key = substr(text, 1, width)
    sub(/:[ \t]*$/, "", key)
    path = join(PATH[DEPTH], scalar(key))
    push(indent, path, 0)
    text = substr(text, width + 1)
    if (text != "" && text !~ /^#/) value(path, text)
}

BEGIN { KEY = "^(\"[^\"]*\"|'[^']*'|[A-Za-z0-9_.-]+):([ \t]+|$)" }

{ sub(/\r$/, "") }
WHOLE == "" && /^[ \t]*(#.*)?$/ { next }
WHOLE != "" || (!DEPTH && /^[ \t]*[{]/) { WHOLE = WHOLE " " $0; next }
/^(---|\.\.\.)/ { next }
{
    match($0, /^ */)
    block(RLENGTH, substr($0, RLENGTH + 1))
}

END { if (WHOLE != "") value("", trim(WHOLE)) }
