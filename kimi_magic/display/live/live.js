// Draws a turn while it happens. The kernel sends small operations (timeline.py and page.py list
// them); text reaches the page as text nodes, HTML only as the kernel made it safe.

const BLOCK = 2048; // characters in a block that is laid out for itself
const LONGEST = 4 * BLOCK; // where a block is cut although its line goes on
const ROWS = 16; // lines of an argument that are seen without scrolling
const SETTLES = 400; // ms in which a form that has just come takes no clicks
const UNSURE = 2000; // ms without a word from the kernel until the reader is told of the menu
const MOUNT = "application/vnd.jupyter.widget-view+json";

/**
 * @typedef {object} Part
 * @property {"reasoning" | "answer" | "notice" | "tool"} kind
 * @property {string} title
 * @property {string[]} text as it came, in pieces; of Markdown there is only a tail
 * @property {number} length in code points
 * @property {string} blocks HTML of what is finished
 * @property {number} to where that ends
 * @property {string} tail the text after that
 * @property {{html: string, to: number} | null} drawn the tail's beginning as it stood
 * @property {boolean} done
 * @property {boolean} plain whether an answer is no Markdown
 * @property {boolean} keep whether it stays open when it ends
 * @property {boolean | null} open what the reader chose, null before
 * @property {number} began
 * @property {number | null} seconds
 * @property {number} tokens
 * @property {string} state of a tool call
 * @property {{call: string, html: string, edited: boolean} | null} run
 * @property {{html: string, seconds: number, shows: boolean} | null} result
 * @property {object | null} form
 * @property {string} cut how much of its text is not kept
 */

const COPY_ANSWER = "Copy the answer";
const COPY_CODE = "Copy the code";
const GOES_ON = /^(?:OL|UL|LI|BLOCKQUOTE|P|PRE|H\d)$/;

const now = () => performance.now() / 1000;

/** Offsets count code points, a JavaScript string counts UTF-16 units. */
const codePoints = (text) => {
  let count = text.length;
  for (let i = 0; i < text.length; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00) count--;
  }
  return count;
};

/** The text without its first `count` code points. */
const skip = (text, count) => {
  let i = 0;
  for (; count > 0 && i < text.length; count--) i += text.codePointAt(i) > 0xffff ? 2 : 1;
  return text.slice(i);
};

/** About as many tokens as a text has: a token is some four bytes of UTF-8 in most languages. */
const tokensOf = (text) => {
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : 3;
  }
  return bytes / 4;
};

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

const clock = (seconds) => (seconds < 1 ? "" : ` ${whole(seconds)}`);

const count = (number) => Math.round(number).toLocaleString("en");

const make = (tag, name, text = "") => {
  const element = document.createElement(tag);
  if (name) element.className = `kimi-${name}`;
  if (text) element.textContent = text;
  return element;
};

const button = (text, act, name = "button") => {
  const element = make("button", name, text);
  element.type = "button";
  element.setAttribute("data-lm-suppress-shortcuts", "true"); // Lab's Enter would edit the cell
  element.addEventListener("click", act);
  return element;
};

/** HTML that the kernel made safe, as nodes. */
const nodes = (html) => {
  const fragment = document.createDocumentFragment();
  fragment.append(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
  return fragment;
};

const label = (element, text, name = text) => {
  element.textContent = text;
  element.ariaLabel = name;
};

const copy = async (text, element, name) => {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // http pages have no clipboard
    area.value = text;
    element.after(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    element.focus();
  }
  label(element, done ? "Copied" : "Not allowed");
  setTimeout(label, 1500, element, "Copy", name);
};

/** The turn as the browser knows it: a fold over operations. */
class Turn {
  head = "";
  state = "";
  /** @type {Part[]} */ parts = [];
  usage = { steps: 0, in: 0, out: 0 };
  began = now();
  cut = ""; // which parts are not kept
  waits = now(); // since when the state is what it is
  fresh = { tokens: 0, began: 0, last: 0 }; // of the step under way, by estimate
  clicks = false; // whether clicks reach the kernel
  next = 0; // the number of the next message
  lost = false; // something did not arrive
  asked = false; // for the whole
  /** @type {HTMLElement | null} */ copier = null; // the button that waits for the answer's text

  /** Take one operation and say what is left to draw of it, null where its part is unknown. */
  apply(op) {
    const part = this.parts[op.part];
    if (op.part !== undefined && !part && op.op !== "part") {
      this.lost = true;
      return null;
    }
    switch (op.op) {
      case "reset":
        this.reset(op);
        break;
      case "head":
        this.head = op.text;
        break;
      case "state":
        this.state = op.text;
        this.waits = now();
        break;
      case "usage":
        this.usage = op;
        this.fresh = { tokens: 0, began: 0, last: 0 };
        break;
      case "part":
        this.lost ||= op.part !== this.parts.length;
        this.parts[op.part] = this.part(op);
        break;
      case "append":
        this.append(part, op);
        break;
      case "block":
        part.tail = skip(part.tail, op.to - part.to);
        this.count(Math.max(0, op.to - part.length) / 4); // its text was not sent
        part.length = Math.max(part.length, op.to);
        Object.assign(part, { blocks: part.blocks + op.html, to: op.to, drawn: null });
        break;
      case "open":
        part.drawn = op;
        break;
      case "cut":
        (part ?? this).cut = op.text;
        break;
      case "run":
        Object.assign(part, { state: "running", began: now(), run: op, form: null });
        break;
      case "ask":
        part.state = "asked";
        break;
      case "form":
        part.form = op;
        break;
      case "result":
        Object.assign(part, { state: op.state, seconds: op.seconds, result: op, form: null });
        part.run ??= op.given ?? null;
        break;
      case "tokens":
        part.tokens = op.tokens;
        break;
      case "done":
        part.done = true;
        part.seconds ??= op.seconds;
        break;
      case "clicks":
        this.clicks = true;
        break;
      default:
        return null; // a newer kernel side may say more
    }
    return op;
  }

  part(op, text = "") {
    const { age = 0, to = 0, blocks = "", tokens = 0, state = "", seconds = null } = op;
    const { run = null, result = null, form = null, open = null, cut = "" } = op;
    return {
      ...{ kind: op.kind, title: op.title, plain: op.plain, keep: op.keep, done: !!op.done },
      ...{ tokens, state, seconds, run, result, form, open, blocks, to, cut, drawn: null },
      began: now() - age,
      ...{ text: [text], length: codePoints(text), tail: skip(text, to) },
    };
  }

  append(part, op) {
    let { text } = op;
    if (part.length !== op.at) {
      this.lost = true;
      text = ` […] ${text}`;
    }
    part.length = op.at + codePoints(op.text);
    if (part.kind === "answer" && !part.plain) part.tail += text;
    else part.text.push(text);
    op.text = text;
    this.count(tokensOf(text));
  }

  count(tokens) {
    const { fresh } = this;
    fresh.last = now();
    fresh.began ||= fresh.last;
    fresh.tokens += tokens;
  }

  reset({ head, state, usage, parts, cut, age, waits }) {
    const before = this.parts;
    Object.assign(this, { head, state, usage, cut, lost: false, asked: false });
    this.began = now() - age;
    this.waits = now() - waits;
    this.parts = parts.map((part, i) => {
      const open = before[i]?.open ?? part.open;
      return { ...this.part(part, part.text), open };
    });
  }

  figures() {
    const { usage, fresh } = this;
    const out = usage.out + fresh.tokens;
    const streamed = fresh.last - fresh.began;
    return [
      this.head,
      usage.steps ? `step ${usage.steps + 1}` : "",
      usage.in ? `${count(usage.in)} tokens in` : "",
      out ? `${fresh.tokens ? "≈ " : ""}${count(out)} tokens out` : "",
      streamed > 1 ? `${count(fresh.tokens / streamed)}/s` : "",
      whole(now() - this.began),
    ].filter(Boolean);
  }
}

/** Text that only grows, in blocks, so that the browser lays out the last one alone. */
class Growing {
  constructor(element) {
    this.element = element;
    this.last = null;
  }

  append(text) {
    while (text) {
      if (!this.last) {
        this.last = document.createTextNode("");
        const block = make("div", "block");
        block.append(this.last);
        this.element.append(block);
      }
      const room = BLOCK - this.last.length;
      let cut = text.indexOf("\n", Math.max(room, 0));
      if (cut < 0 && this.last.length + text.length > LONGEST) {
        cut = text.lastIndexOf(" ", LONGEST - this.last.length);
        if (cut < 0) cut = text.indexOf(" ");
      }
      if (cut < 0) {
        this.last.appendData(text);
        return;
      }
      // The line break or space at the cut becomes the block's own end.
      this.last.appendData(text.slice(0, cut + 1));
      text = text.slice(cut + 1);
      this.last = null;
    }
  }
}

/** One part as it is drawn: what is common to all kinds. */
class Shown {
  constructor(drawing, part, index, element) {
    Object.assign(this, { drawing, part, index, element });
  }
  /** Take an operation on this part. */
  draw(op) {
    if (op.op === "append") this.grow(op.text);
    if (op.op === "cut") this.cut();
  }
  /** Say how much more there is than is kept. */
  cut() {
    if (!this.part.cut) return;
    this.more ??= this.place(make("div", "cut"));
    this.more.textContent = this.part.cut;
  }
  place(more) {
    return (this.panel ?? this.element).appendChild(more);
  }
  tick() {}
}

class Notice extends Shown {
  constructor(drawing, part, index) {
    super(drawing, part, index, make("div", "part kimi-notice"));
    this.grow(part.text.join(""));
  }
  grow(text) {
    this.element.append(text);
  }
}

/** What can be folded: open while it grows, then closed, unless the reader chose. */
class Folding extends Shown {
  constructor(drawing, part, index, kind) {
    super(drawing, part, index, make("details", `part kimi-${kind}`));
    this.summary = make("summary", "summary");
    this.panel = make("div", kind === "tool" ? "inside" : "panel");
    this.element.append(this.summary, this.panel);
    // "toggle" fires for our own folding too; a click (or a key) is the reader's.
    this.summary.addEventListener("click", () => {
      part.open = !this.element.open;
      drawing.send({ open: [index, part.open] });
    });
  }
  fold(open) {
    this.element.open = this.part.open ?? open;
  }
}

class Reasoning extends Folding {
  constructor(drawing, part, index) {
    super(drawing, part, index, "reasoning");
    this.panel.tabIndex = 0; // keys scroll it
    this.growing = new Growing(this.panel);
    this.growing.append(part.text.join(""));
    this.fold(part.keep || !part.done);
    this.tick();
  }
  get atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.panel;
    return scrollHeight - scrollTop - clientHeight < 8;
  }
  grow(text) {
    const follow = this.element.open && this.atEnd;
    this.growing.append(text);
    if (follow) this.panel.scrollTop = this.panel.scrollHeight;
  }
  draw(op) {
    super.draw(op);
    // Who has scrolled up is reading.
    if (op.op === "done") this.fold(this.part.keep || !this.atEnd);
    if (op.op !== "append") this.tick();
  }
  tick() {
    const { done, seconds, began, tokens } = this.part;
    const known = tokens ? ` · ${count(tokens)} tokens` : "";
    const text = done
      ? `Reasoned for ${duration(seconds)}${known}`
      : `Reasoning…${clock(now() - began)}`;
    if (this.summary.textContent !== text) this.summary.textContent = text;
  }
}

class Tool extends Folding {
  constructor(drawing, part, index) {
    super(drawing, part, index, "tool");
    this.name = make("code", "", part.title);
    this.state = make("span", "note");
    this.summary.append(this.name, this.state);
    this.given = make("pre", "arguments");
    this.panel.append(this.given);
    this.gives = null;
    this.form = null;
    this.growing = new Growing(this.given);
    this.growing.append(part.text.join(""));
    this.element.open = part.open ?? true;
    if (part.run) this.run();
    if (part.form) this.ask();
    if (part.result) this.finish();
    this.tick();
  }
  grow(text) {
    this.growing.append(text);
  }
  place(more) {
    this.given.after(more);
    return more;
  }
  draw(op) {
    super.draw(op);
    if (op.op === "run" || op.given) this.run();
    if (op.op === "form") this.ask();
    if (op.op === "result") this.finish();
    if (op.op !== "append") this.tick();
  }
  run() {
    this.name.textContent = this.part.run.call;
    this.given.replaceChildren(nodes(this.part.run.html));
    this.given.hidden = false;
    this.form?.remove();
    this.form = null;
  }
  ask() {
    const { part } = this;
    if (this.form?.number === part.form.number) {
      this.form.say(part.form.wrong);
      return;
    }
    this.form?.remove();
    this.form = new Form(part, (answer) => this.drawing.send(answer));
    this.given.hidden = true;
    this.given.after(this.form.element);
    this.element.open = true;
  }
  finish() {
    this.form?.remove();
    this.given.hidden = false;
    this.gives ??= make("div", "result");
    this.gives.replaceChildren(nodes(this.part.result.html));
    this.panel.append(this.gives);
    this.fold(this.part.result.shows);
  }
  tick() {
    const { state, began, seconds, run } = this.part;
    const notes = {
      running: ` · running…${clock(now() - began)}`,
      asked: " · waits for your answer",
      done: ` · ${duration(seconds ?? 0)}`,
      failed: ` · failed after ${duration(seconds ?? 0)}`,
    };
    const text = (run?.edited ? " · arguments changed" : "") + (notes[state] ?? "");
    if (this.state.textContent !== text) this.state.textContent = text;
  }
}

/** Asks whether a call may be made; its arguments can be changed. */
class Form {
  constructor({ title, form }, send) {
    this.number = form.number;
    this.element = make("form", "form");
    this.element.setAttribute("data-lm-suppress-shortcuts", "true");
    this.element.setAttribute("aria-label", `May ${title} run?`);
    this.element.addEventListener("submit", (event) => event.preventDefault());
    this.fields = form.fields.map(([name, value, whole]) => {
      const label = make("label", "field");
      const area = make("textarea", "input");
      const lines = value.split("\n").length;
      const hidden = lines > ROWS ? ` · ${count(lines)} lines: scroll to see all` : "";
      area.value = value;
      area.readOnly = !whole;
      area.rows = Math.min(lines, ROWS);
      area.spellcheck = false;
      area.addEventListener("input", () => (this.always.disabled = this.changed(form)));
      label.append(make("span", "", name + hidden), area);
      this.element.append(label);
      return area;
    });
    this.wrong = make("div", "wrong");
    this.wrong.setAttribute("role", "alert");
    const answer = (say) => () => {
      this.enable(false);
      this.wrong.textContent = "";
      const fields = this.fields.map((area) => area.value);
      send({ answer: { number: this.number, say, fields } });
    };
    this.always = button("Run, and do not ask again in this chat", answer("chat"));
    this.buttons = [
      button("Run", answer("once"), "button kimi-main"),
      this.always,
      button("Do not run", answer("no")),
    ];
    const row = make("div", "row");
    row.append(...this.buttons);
    this.element.append(this.wrong, row);
    this.enable(false); // a click may be on its way to what stood here before
    setTimeout(() => this.say(form.wrong), SETTLES);
  }
  changed(form) {
    return this.fields.some((area, i) => area.value !== form.fields[i][1]);
  }
  enable(on) {
    for (const element of [...this.buttons, ...this.fields]) element.disabled = !on;
  }
  say(wrong) {
    this.wrong.textContent = wrong ?? "";
    this.enable(true);
    this.always.disabled = !!wrong;
  }
  remove() {
    this.element.remove();
  }
}

/** Finished blocks as HTML, then the open one: as it last stood, and the text since. */
class Answer extends Shown {
  constructor(drawing, part, index) {
    super(drawing, part, index, make("div", "answer"));
    this.open = make("div", "open");
    this.element.append(this.open);
    this.add(part.blocks);
    this.reopen();
  }
  grow(text) {
    const mayEnd = this.inCode
      ? /```|~~~/.test(this.rest?.data.slice(-2) + text)
      : text.includes("\n");
    if (this.rest && !mayEnd) this.rest.appendData(text);
    else this.reopen();
  }
  draw(op) {
    super.draw(op);
    if (op.op === "block") this.add(op.html);
    if (op.op === "block" || op.op === "open") this.reopen();
  }
  add(html) {
    if (!html) return;
    const added = nodes(html);
    for (const code of added.querySelectorAll("pre")) withCopy(code);
    const elements = [...added.children];
    this.open.before(added);
    for (const element of elements) this.drawing.typeset(element);
  }
  reopen() {
    const { drawn, tail, to } = this.part;
    this.open.replaceChildren(drawn ? nodes(drawn.html) : "");
    let rest = drawn ? skip(tail, drawn.to - to) : tail;
    this.rest = null;
    this.inCode = false;
    if (drawn) {
      // Into the paragraph, the item or the code that goes on, up to where that seems to end.
      let place = this.open;
      while (GOES_ON.test(place.lastElementChild?.tagName) && place.tagName !== "PRE") {
        place = place.lastElementChild;
      }
      if (place !== this.open) {
        const end = rest.match(place.tagName === "PRE" ? /^ {0,3}(?:```|~~~).*$/m : /\n[ \t]*\n/);
        this.write(place, end ? rest.slice(0, end.index) : rest);
        this.inCode = !end && place.tagName === "PRE";
        if (!end) return;
        rest = rest.slice(end.index + end[0].length);
      }
    }
    if (rest.trim()) this.write(this.open.appendChild(make("p", "")), rest.trimStart());
  }
  write(place, text) {
    this.rest = document.createTextNode(text);
    place.appendChild(make("span", "rest")).append(this.rest);
  }
}

/** Plain text is shown as it comes. */
class Plain extends Shown {
  constructor(drawing, part, index) {
    super(drawing, part, index, make("pre", "plain"));
    this.growing = new Growing(this.element);
    this.grow(part.text.join(""));
  }
  grow(text) {
    this.growing.append(text);
  }
}

const withCopy = (code) => {
  const frame = make("div", "code");
  const text = code.textContent;
  code.replaceWith(frame);
  const press = button("Copy", () => copy(text, press, COPY_CODE), "button kimi-copy");
  label(press, "Copy", COPY_CODE);
  frame.append(code, press);
};

const KINDS = { reasoning: Reasoning, tool: Tool, notice: Notice, answer: Answer };

/** One drawing of a turn; a notebook can show the same widget in several places. */
class Drawing {
  constructor(turn, el, model) {
    Object.assign(this, { turn, model });
    this.root = make("div", "turn jp-RenderedHTMLCommon");
    this.body = make("div", "parts");
    this.cut = make("div", "cut");
    this.dot = make("span", "dot");
    this.state = make("span", "state");
    this.state.setAttribute("role", "status");
    this.clock = make("span", "clock");
    this.figures = make("span", "figures");
    this.buttons = make("span", "row");
    this.copy = button("Copy", () => {
      turn.copier = this.copy;
      this.send({ copy: true }); // of a fast answer the text is not here
    });
    label(this.copy, "Copy", COPY_ANSWER);
    this.stop = button("Stop", () => {
      this.send({ stop: true });
      this.stop.textContent = "Stopping…";
    });
    this.hint = make("span", "hint", "Kernel → Interrupt stops it");
    this.copy.hidden = this.stop.hidden = this.hint.hidden = true;
    this.buttons.append(this.copy, this.stop, this.hint);
    for (const decoration of [this.dot, this.clock]) decoration.ariaHidden = "true";
    const footing = make("div", "footing");
    const doing = make("span", "doing");
    doing.append(this.dot, this.state, this.clock);
    footing.append(doing, this.figures, this.buttons);
    this.end = make("div", "end");
    this.root.append(this.body, this.cut, footing, this.end);
    el.append(this.root);
    this.made = now();
    this.drawAll();
    this.timer = setInterval(() => this.tick(), 500);
  }

  send(content) {
    this.model.send(content);
  }

  drawAll() {
    this.body.replaceChildren();
    /** @type {Shown[]} */ this.shown = [];
    this.turn.parts.forEach((_, i) => this.add(i));
    this.drawFooting();
  }

  draw(op) {
    if (op.op === "reset") this.drawAll();
    else if (op.op === "part") this.add(op.part);
    else if (op.part === undefined) this.drawFooting();
    else this.shown[op.part]?.draw(op);
  }

  add(i) {
    const part = this.turn.parts[i];
    if (!part) return;
    const kind = part.kind === "answer" && part.plain ? Plain : (KINDS[part.kind] ?? Notice);
    this.shown[i] = new kind(this, part, i);
    this.shown[i].cut();
    this.body.append(this.shown[i].element);
  }

  drawFooting() {
    const { turn } = this;
    if (this.state.textContent !== turn.state) this.state.textContent = turn.state;
    if (this.cut.textContent !== turn.cut) this.cut.textContent = turn.cut;
    this.copy.hidden = !turn.clicks || !turn.parts.some((part) => part.kind === "answer");
    this.stop.hidden = !turn.clicks;
    this.hint.hidden = turn.clicks || (now() - this.made) * 1000 < UNSURE;
    const counted = turn.parts.some((part) => !part.done && part.kind !== "notice");
    const waiting = turn.state.endsWith("…") && !counted;
    this.clock.textContent = waiting ? clock(now() - turn.waits) : "";
    const figures = turn.figures().map((figure) => figure.replaceAll(" ", "\u00a0"));
    this.figures.textContent = figures.join(" · ");
  }

  tick() {
    for (const shown of this.shown) shown?.tick();
    this.drawFooting();
  }

  /** Maths, by the front end's own typesetter where it has one. */
  typeset(element) {
    if (!element.textContent.includes("$")) return;
    try {
      this.model.widget_manager?.rendermime?.latexTypesetter?.typeset(element);
    } catch {
      // An undocumented way in: where it is another, dollars stay.
    }
  }

  get endInSight() {
    const end = this.end.getBoundingClientRect();
    if (!end.width) return false;
    let [top, bottom] = [0, innerHeight];
    for (let up = this.root.parentElement; up; up = up.parentElement) {
      if (up.scrollHeight > up.clientHeight + 1 && getComputedStyle(up).overflowY !== "visible") {
        const box = up.getBoundingClientRect();
        [top, bottom] = [Math.max(top, box.top), Math.min(bottom, box.bottom)];
        break;
      }
    }
    return end.bottom >= top && end.top <= bottom + 1;
  }

  remove() {
    clearInterval(this.timer);
    this.root.remove(); // front ends keep the element that it was drawn into
  }
}

/** Since when this page knows a notebook: the scripts of all turns share it. */
const known = (globalThis[Symbol.for("kimi_magic")] ??= new WeakMap());

const meet = (model) => {
  const notebook = model.widget_manager?.context;
  if (notebook && !known.has(notebook)) known.set(notebook, now());
};

/** Put the record of a turn that ended while no page listened into its cell. */
const place = (model, { cell, mount, age, data, metadata }) => {
  const notebook = model.widget_manager?.context;
  if (now() - known.get(notebook) > age) return true; // it was open, and was given the record
  const cells = notebook?.model?.cells;
  const output = { output_type: "display_data", data, metadata };
  for (let i = 0; cell && i < (cells?.length ?? 0); i++) {
    const { id, outputs } = cells.get(i);
    if (id !== cell || !outputs) continue;
    let at = -1;
    for (let j = 0; j < outputs.length; j++) {
      const saved = outputs.get(j);
      if (saved.data?.["text/html"] === data["text/html"]) return true;
      // The widget as it was saved in mid-stream, or what an earlier run of the cell left.
      if (saved.data?.[MOUNT]?.model_id === mount || saved.metadata?.kimi_magic) at = j;
    }
    if (at < 0) outputs.add(output);
    else outputs.set(at, output);
    return true;
  }
  return false;
};

export default () => {
  const turn = new Turn();
  const page = Math.random().toString(36).slice(2);
  const over = new AbortController();
  /** @type {Set<Drawing>} */ const drawings = new Set();

  const hear = (model, message) => {
    const following = [...drawings].filter((drawing) => drawing.endInSight);
    if (message.record && place(model, message.record)) model.send({ placed: true });
    if (message.copied !== undefined && turn.copier) {
      copy(message.copied, turn.copier, COPY_ANSWER);
      turn.copier = null;
    }
    if (message.here) {
      model.send({ here: true });
      over.abort();
    }
    if (message.number > turn.next) turn.lost = true;
    if (message.number !== undefined) turn.next = message.number + 1;
    for (const op of message.ops ?? []) {
      if (op.op === "reset" && !turn.lost && turn.parts.length) continue; // nothing is missed
      const known = turn.apply(op);
      if (known) for (const drawing of drawings) drawing.draw(known);
    }
    if (turn.lost && !turn.asked) {
      turn.asked = true;
      model.send({ resync: true });
    }
    for (const drawing of following) drawing.end.scrollIntoView({ block: "nearest" });
  };

  return {
    // Messages that come before a listener is attached are lost, and render() comes late.
    initialize({ model }) {
      model.on("msg:custom", (message) => hear(model, message));
      meet(model);
      // The first may wait for a channel that is not there yet: until one is answered, again.
      const ready = (pause) => {
        if (turn.clicks || pause > 8000 || over.signal.aborted) return;
        model.send({ ready: page });
        setTimeout(ready, pause, 2 * pause);
      };
      ready(250);
      const leave = () => model.send({ leaving: page });
      addEventListener("pagehide", leave, { signal: over.signal });
    },
    render({ model, el }) {
      const drawing = new Drawing(turn, el, model);
      drawings.add(drawing);
      return () => {
        drawings.delete(drawing);
        drawing.remove();
        if (over.signal.aborted && !drawings.size) turn.parts = [];
      };
    },
  };
};
