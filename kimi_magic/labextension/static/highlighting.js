// Colours of a `%%kimi` cell: its line as options, its prompt as Markdown, `{{ … }}` as code. An
// editor gets the language in front of its own one, for as long as its text is such a cell. So
// neither the cell nor its MIME type changes, and completion asks the kernel.

const MOST_ABOVE = 100; // lines of comments that may stand above `%%kimi`
const CELL = /^\s*%%kimi(?=\s|$)/;
const ABOVE = /^\s*(?:#|$)/;

const FENCE = /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})/;
const OPTION = /^--?[^\W\d][\w-]*/;
const QUOTED = /^(?:"[^"]*"?|'[^']*'?)/;
const NUMBER = /^\d[\d_.]*/;
const STRING = /^(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)/;

// None of them reaches into an expression or past the next mark of its kind: lines may be long.
const INLINE = [
  [/^`(?:[^`{]|\{(?!\{))+`/, "monospace"],
  [/^\*\*(?:[^*{]|\{(?!\{))+\*\*/, "strong"],
  [/^\*(?![*\s])[^*{]*[^*{\s]\*(?!\*)/, "emphasis"],
  [/^_(?![_\s])[^_{]*[^_{\s]_(?!\w)/, "emphasis"],
  [/^\[[^[\]{]*\]\([^()\s{]*\)/, "link"],
  [/^https?:\/\/[^\s{]+/, "link"],
];

/** Tell if a text is a `%%kimi` cell. */
const isCell = (doc) => {
  let above = 0;
  for (const line of doc.iterLines()) {
    if (CELL.test(line)) return true;
    if (!ABOVE.test(line) || ++above > MOST_ABOVE) return false;
  }
  return false;
};

const startState = () => ({
  ...{ part: "above", raw: false }, // above, options, prompt
  ...{ fence: "", heading: false }, // of the Markdown
  ...{ inside: false, depth: 0 }, // of an expression, and braces open in it
});

const beginLine = (state) => {
  state.heading = false;
  if (state.part === "options") state.part = "prompt";
};

const above = (stream, state) => {
  if (stream.match(CELL)) {
    state.part = "options";
    return "keyword";
  }
  stream.skipToEnd();
  return "comment";
};

const options = (stream, state) => {
  if (stream.eatSpace()) return null;
  if (stream.match(QUOTED)) return "string";
  if (stream.match("<<")) return "operator";
  const begins = /\s/.test(stream.string[stream.pos - 1] ?? " ");
  if (begins && stream.peek() === "#") {
    stream.skipToEnd();
    return "comment";
  }
  if (begins && stream.match(OPTION)) {
    if (stream.current() === "--raw") state.raw = true;
    return "attributeName";
  }
  if (begins && stream.match(/^\d[\d_.]*(?=\s|$)/)) return "number";
  if (!stream.eatWhile(/[^\s"'<]/)) stream.next();
  return null;
};

const expression = (stream, state) => {
  if (stream.eatSpace()) return null;
  if (state.depth === 0 && stream.match("}}")) {
    state.inside = false;
    return "operator";
  }
  if (stream.match(STRING)) return "string";
  if (stream.match(NUMBER)) return "number";
  if (stream.match(/^[^\W\d]\w*/)) return "variableName";
  const next = stream.next();
  if (next === "{") state.depth++;
  if (next === "}" && state.depth > 0) state.depth--;
  return "operator";
};

const prompt = (stream, state) => {
  const begins = stream.sol();
  let text = state.fence ? "monospace" : state.heading ? "heading" : null;
  if (!state.raw) {
    if (stream.match("\\{{")) return text;
    if (stream.match("{{")) {
      Object.assign(state, { inside: true, depth: 0 });
      return "operator";
    }
  }
  const fence = begins && stream.match(FENCE);
  if (fence) {
    if (!state.fence) state.fence = fence[1];
    else if (fence[1].startsWith(state.fence) && stream.match(/^\s*$/, false)) state.fence = "";
    stream.match(/^[^\\{]*/);
    return "monospace";
  }
  if (!text && begins) {
    if (stream.match(/^ {0,3}>/)) return "quote";
    state.heading = !!stream.match(/^ {0,3}#{1,6}\s/, false);
    if (state.heading) text = "heading";
  }
  if (!text) for (const [pattern, name] of INLINE) if (stream.match(pattern)) return name;
  // A styled text is taken as a whole: the CodeMirror of JupyterLab 4.2 merges no neighbours.
  if (!stream.match(text ? /^[^\\{]+/ : /^(?:\w+|[^\w\\{`*_[]+)/)) stream.next();
  return text;
};

const token = (stream, state) => {
  if (stream.sol()) beginLine(state);
  if (state.part === "above") return above(stream, state);
  if (state.part === "options") return options(stream, state);
  return (state.inside ? expression : prompt)(stream, state);
};

/** Make the plugin that colours cells. */
export const plugin = async (shared) => {
  const { EditorExtensionRegistry, IEditorExtensionRegistry } =
    await shared("@jupyterlab/codemirror");
  const { StreamLanguage, language } = await shared("@codemirror/language");
  const { Prec } = await shared("@codemirror/state");
  const kimi = StreamLanguage.define({ name: "kimi", startState, token, blankLine: beginLine });
  const plain = StreamLanguage.define({ token: (stream) => stream.skipToEnd() ?? null });
  const cells = [
    // The editor takes the first of its languages, and parses anew only if that is another one.
    Prec.highest(language.computeN(["doc"], ({ doc }) => (isCell(doc) ? [kimi] : []))),
    Prec.lowest(language.of(plain)), // it fails with a provider of languages and no language
  ];
  return {
    id: "kimi-magic:highlighting",
    description: "Colours %%kimi cells as prompts instead of as Python.",
    autoStart: true,
    optional: [IEditorExtensionRegistry],
    activate: (_, registry) =>
      registry?.addExtension({
        name: "kimi-magic:highlighting",
        factory: ({ model }) =>
          model?.type === "code" ? EditorExtensionRegistry.createImmutableExtension(cells) : null,
      }),
  };
};
