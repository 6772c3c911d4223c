// Records of turns, as the page shows them: with the times of the turn, and with buttons. The file
// has neither. Times come with the output while its kernel lives, or from its metadata where the
// setting `record_times` keeps them there.

const SETTLE = 1500; // ms for which a button says what it did
const ANSWER = "pre, div:has(:is(p, ul, ol, pre, table, blockquote, h1, h2, h3, h4, h5, h6, hr))";
const CODE = ":scope > div pre, :scope > pre[tabindex]";

const STYLE = `
.kimi-record-end { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0.2em 1em; }
.kimi-record-code { position: relative; }
.kimi-record-buttons { display: flex; gap: 0.5em; }
.kimi-record-end > .kimi-record-buttons { margin-left: auto; }
.kimi-record-code > .kimi-record-buttons { position: absolute; top: 0.5em; right: 0.5em; font-size: 80%; }
.kimi-record-buttons > button {
  padding: 0.2em 0.8em;
  border: 1px solid rgba(127, 127, 127, 0.6);
  border-radius: 4px;
  background: var(--jp-layout-color1);
  color: inherit;
  font: inherit;
  line-height: 1.4;
  cursor: pointer;
}
.kimi-record-buttons > button:hover { background: var(--jp-layout-color2); }
.kimi-record-buttons > button:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: -2px;
}
.kimi-record-into { display: none; }
.jp-Notebook .kimi-record-into { display: inline-block; }
`;

const whole = (seconds) => {
  const n = Math.floor(seconds);
  return n < 60 ? `${n} s` : `${Math.floor(n / 60)} min ${String(n % 60).padStart(2, "0")} s`;
};

const duration = (seconds) =>
  seconds < 0.0995
    ? `${Math.max(1, Math.round(1000 * seconds))} ms`
    : seconds < 9.95
      ? `${seconds.toFixed(1)} s`
      : whole(seconds + 0.5);

const count = (number) => Math.round(number).toLocaleString("en");

const number = (value) => (Number.isFinite(value) && value > 0 ? value : 0);

/** Return the panels that fold right below an element. */
const panels = (element) => [...(element?.children ?? [])].filter((e) => e.tagName === "DETAILS");

/** Write how long reasoning and tool calls took. */
const showParts = (element, entries) => {
  if (!Array.isArray(entries)) return;
  panels(element).forEach((panel, i) => {
    const entry = entries[i];
    const title = panel.querySelector(":scope > summary");
    if (Array.isArray(entry)) {
      const lanes = panel.querySelector(":scope > div");
      panels(lanes).forEach((lane, j) => showParts(lane.querySelector(":scope > div"), entry[j]));
    } else if (title && entry) {
      showPart(title, number(entry.seconds), number(entry.tokens));
    }
  });
};

const showPart = (title, seconds, tokens) => {
  if (title.textContent === "Reasoning") {
    const took = seconds ? `Reasoned for ${duration(seconds)}` : "Reasoning";
    title.textContent = tokens ? `${took} · ${count(tokens)} tokens` : took;
    return;
  }
  const word = title.querySelector(":scope > code ~ span")?.nextSibling; // after the mark
  if (word?.nodeType !== Node.TEXT_NODE || !seconds || word.data.includes("recorded")) return;
  word.data = word.data
    .replace(/^\s*done/, (said) => `${said} in ${duration(seconds)}`)
    .replace(/^\s*(?:failed|stopped)/, (said) => `${said} after ${duration(seconds)}`);
};

/** Return what the last line of a record does not say of the turn's tokens and its time. */
const figures = (said, { usage, replayed }, times) => {
  const into = number(usage?.prompt_tokens);
  const out = number(usage?.completion_tokens);
  const seconds = number(times.seconds);
  const tokens = [
    into ? `${count(into)} tokens in` : "",
    out ? `${count(out)} tokens out` : "",
    replayed && (into || out) ? `recorded${/, in part(?:,|$)/.test(replayed) ? " in part" : ""}` : "",
  ];
  return [...(said.includes("tokens in") ? [] : tokens), seconds ? duration(seconds) : ""]
    .filter(Boolean)
    .map((figure) => ` · ${figure.replaceAll(" ", "\u00a0")}`);
};

/** Make a button; `act` does something, and returns what the button says of it. */
const button = (text, name, act) => {
  const element = document.createElement("button");
  element.type = "button";
  element.setAttribute("data-lm-suppress-shortcuts", "true"); // or Lab's Enter would edit the cell
  const say = (said, label = said) => {
    element.textContent = said;
    element.ariaLabel = label;
  };
  say(text, name);
  element.addEventListener("click", async () => {
    say(await act());
    setTimeout(say, SETTLE, text, name);
  });
  return element;
};

const inRow = (...buttons) => {
  const row = document.createElement("span");
  row.className = "kimi-record-buttons";
  row.append(...buttons);
  return row;
};

const copyButton = (text, name) => {
  const element = button("Copy", name, async () => {
    try {
      await navigator.clipboard.writeText(text);
      return "Copied";
    } catch {
      const area = document.createElement("textarea"); // only secure contexts have a clipboard
      area.value = text;
      element.after(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      element.focus();
      return done ? "Copied" : "Not allowed";
    }
  });
  return element;
};

const cellButton = (text, tracker) => {
  const element = button("New cell", "Put the code into a new cell", () => {
    const panel = tracker.find(({ content }) => content.node.contains(element));
    const index = panel?.content.widgets.findIndex(({ node }) => node.contains(element)) ?? -1;
    if (index < 0) return "No cell";
    const cell = { cell_type: "code", source: text.replace(/\n$/, ""), metadata: {} };
    panel.context.model.sharedModel.insertCell(index + 1, cell);
    return "Inserted";
  });
  element.className = "kimi-record-into";
  return element;
};

const addToCode = (code, tracker) => {
  const text = code.textContent;
  const frame = document.createElement("div");
  frame.className = "kimi-record-code";
  code.replaceWith(frame);
  const copies = copyButton(text, "Copy the code");
  frame.append(code, tracker ? inRow(cellButton(text, tracker), copies) : inRow(copies));
};

/** Return the answer as it was written; as it is seen, where somebody else wrote the file. */
const answerOf = ({ data, trusted }, { answer }, seen) => {
  const text = data["text/plain"];
  if (!trusted || typeof text !== "string" || !Array.isArray(answer)) return seen;
  return [...text].slice(...answer).join("") || seen; // positions count code points
};

/** Add times and buttons to a record that has just been drawn. */
const complete = (node, model, tracker) => {
  const facts = model.metadata?.kimi_magic;
  const root = node.firstElementChild;
  const last = root?.lastElementChild;
  if (!facts || last?.tagName !== "DIV") return;
  // No public name leads to what came with an output and is not saved.
  const times = model._raw?.transient?.kimi_magic ?? facts.times ?? {};
  showParts(root, times.folded);

  const seen = [...root.children].filter((element) => element.matches(ANSWER)).at(-1);
  const answer = answerOf(model, facts, seen?.textContent ?? "");
  for (const code of root.querySelectorAll(CODE)) addToCode(code, tracker);
  const said = document.createElement("span");
  said.append(...last.childNodes);
  const [line] = said.childNodes;
  if (line?.nodeType === Node.TEXT_NODE) {
    line.data = line.data.trimEnd() + figures(line.data, facts, times).join("");
    if (line.nextSibling) line.data += " ";
  }
  last.classList.add("kimi-record-end");
  last.append(said);
  if (seen && answer) last.append(inRow(copyButton(answer, "Copy the answer")));
};

/** Make the plugin that completes records. */
export const plugin = async (shared) => {
  const { IRenderMimeRegistry } = await shared("@jupyterlab/rendermime");
  const { INotebookTracker } = await shared("@jupyterlab/notebook");

  const activate = (_, rendermime, tracker) => {
    const factory = rendermime.getFactory("text/html");
    if (!factory) return;
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    const createRenderer = (options) => {
      const renderer = factory.createRenderer(options);
      const render = renderer.renderModel.bind(renderer);
      renderer.renderModel = async (model) => {
        await render(model);
        try {
          complete(renderer.node, model, tracker);
        } catch (error) {
          console.debug("kimi-magic:", error); // the record is whole without it
        }
      };
      return renderer;
    };
    rendermime.addFactory({ ...factory, createRenderer }, rendermime.getRank?.("text/html"));
  };

  return {
    id: "kimi-magic:records",
    description: "Shows the times of a turn with its record, and buttons that copy.",
    autoStart: true,
    requires: [IRenderMimeRegistry],
    optional: [INotebookTracker],
    activate,
  };
};
