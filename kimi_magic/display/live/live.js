// Draws a turn while it happens. The kernel sends small operations (timeline.py and page.py list
// them). Text reaches the page as text nodes, and the only HTML is what the kernel made safe: in a
// trusted notebook nothing is sanitised.

const BLOCK = 2048; // characters in a block with a layout of its own
const MAX_BLOCK = 4 * BLOCK; // a block is cut here even within a line
const ROWS = 16; // rows of an argument that are seen without scrolling
const SETTLE = 400; // ms for which a form that is new or has moved takes no clicks
const PRINTED = 20000; // characters of what a call prints that are seen while it runs
const LATEST = 120; // characters of a trajectory's latest line
const UNSURE = 2000; // ms without a word from the kernel until the hint at its menu is shown
const MOUNT = "application/vnd.jupyter.widget-view+json";
const COPY_ANSWER = "Copy the answer";
const COPY_CODE = "Copy the code";
const NEW_CELL = "Put the code into a new cell";
const TYPED_IN = "input, textarea, select, [contenteditable=true]";
const CONTINUABLE = /^(?:OL|UL|LI|BLOCKQUOTE|P|PRE|H\d)$/;

/**
 * @typedef {object} Segment
 * @property {"reasoning" | "answer" | "notice" | "tool"} kind
 * @property {string[]} text pieces of the text as they came; Markdown has only a tail
 * @property {number} length in code points
 * @property {string} blocks HTML of the finished blocks
 * @property {number} to end of the text in them
 * @property {string} tail the text after that
 * @property {{html: string, to: number} | null} drawn the last drawing of the tail's beginning
 * @property {string} thought HTML of finished reasoning
 * @property {boolean} plain an answer that is not Markdown
 * @property {boolean} keep stays unfolded when it ends
 * @property {boolean | null} open the reader's choice, null before there is one
 * @property {string} state of a tool call
 * @property {{call: string, html: string, edited: boolean} | null} run
 * @property {{html: string, seconds: number, shows: boolean, recorded: boolean} | null} result
 * @property {{text: string, line: string} | null} printed by a call that is under way
 * @property {string} cut note on text that is not kept
 */

const now = () => performance.now() / 1000;

/** Count code points, as offsets do; the length of a string counts UTF-16 units. */
const codePoints = (text) => {
  let count = text.length;
  for (let i = 0; i < text.length; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00) count--;
  }
  return count;
};

/** Drop the first `count` code points. */
const skip = (text, count) => {
  let i = 0;
  for (; count > 0 && i < text.length; count--) i += text.codePointAt(i) > 0xffff ? 2 : 1;
  return text.slice(i);
};

/** Keep the last lines of what was printed. */
const lastLines = (text) => {
  if (text.length <= 2 * PRINTED) return text;
  const last = text.slice(-PRINTED);
  return last.slice(last.indexOf("\n") + 1);
};

/** Return true if nothing covers the middle of an element. */
const inSight = (element) => {
  const { left, top, width, height } = element.getBoundingClientRect();
  const there = document.elementFromPoint(left + width / 2, top + Math.min(height / 2, 20));
  return !!there && (element.contains(there) || !!element.labels?.[0]?.contains(there));
};

/** Estimate the tokens of a text: in most languages a token is about four bytes of UTF-8. */
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

/** Make an element that holds a text, a node, or several. */
const make = (tag, name, content = "") => {
  const element = document.createElement(tag);
  if (name) element.className = `kimi-${name}`;
  if (content) element.append(...[content].flat());
  return element;
};

const button = (text, act, name = "button") => {
  const element = make("button", name, text);
  element.type = "button";
  element.setAttribute("data-lm-suppress-shortcuts", "true"); // or Lab's Enter would edit the cell
  element.addEventListener("click", act);
  return element;
};

/** Parse HTML that the kernel made safe. DOMParser runs no script and loads no image. */
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
    const area = document.createElement("textarea"); // only secure contexts have a clipboard
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

/** The state of a turn in the browser: a fold over operations. */
class Turn {
  head = "";
  state = "";
  /** @type {Segment[]} */ segments = [];
  usage = { steps: 0, in: 0, out: 0 };
  /** @type {{text: string, title: string, usage: string} | null} */ tape = null; // that answers come from
  /** @type {{text: string, details: string[]} | null} */ sent = null; // what went along
  began = now();
  cut = ""; // note on segments that are not kept
  waits = now(); // since the last change of state
  fresh = { tokens: 0, began: 0, last: 0 }; // estimate for the current step
  clicks = false; // they reach the kernel
  cell = ""; // id of the cell that runs
  next = 0; // number of the next message
  lost = false; // a message did not arrive
  asked = false; // the whole was asked for
  /** @type {Map<number, Turn>} */ lanes = new Map(); // trajectories by their numbers
  lanesAt = 0; // segments before them
  /** @type {{text: string, groups: [string, number[]][]} | null} */ vote = null;
  /** @type {HTMLElement | null} */ copier = null; // the button that waits for the answer's text
  /** @type {Replay | null} */ replay = null;
  /** @type {string} */ mount = ""; // of a replay, the id of its widget
  /** @type {number | null} */ time = null; // of a replay, in seconds of the turn

  now() {
    return this.time ?? now();
  }

  /** Apply an operation; returns it for drawing, or null if its segment is unknown. */
  apply(op) {
    if (op.lane) return this.applyIn(op);
    const segment = this.segments[op.segment];
    if (op.segment !== undefined && !segment && op.op !== "segment") {
      this.lost = true;
      return null;
    }
    CHANGES[op.op]?.(this, segment, op); // a newer kernel side may send others
    return op.op in CHANGES ? op : null;
  }

  /** Apply an operation of a trajectory. */
  applyIn({ lane: number, ...op }) {
    const lane = this.lanes.get(number);
    if (lane) lane.time = this.time;
    const known = lane?.apply(op);
    this.lost ||= !lane || lane.lost;
    return known ? { ...known, lane: number } : null;
  }

  beginLanes(count) {
    this.lanesAt = this.segments.length;
    for (let number = 1; number <= count; number++) this.lanes.set(number, new Turn());
  }

  segment(op, text = "") {
    const { age = 0, to = 0, blocks = "", tokens = 0, state = "", seconds = null } = op;
    const { run = null, result = null, form = null, open = null, cut = "", printed = null } = op;
    const { thought = "", drawn = null } = op;
    return {
      ...{ kind: op.kind, title: op.title, plain: op.plain, keep: op.keep, done: !!op.done },
      ...{ tokens, state, seconds, run, result, form, open, blocks, to, cut, printed, thought },
      drawn,
      began: this.now() - age,
      ...{ text: [text], length: codePoints(text), tail: skip(text, to) },
    };
  }

  begin(op) {
    this.lost ||= op.segment !== this.segments.length;
    this.segments[op.segment] = this.segment(op);
  }

  endStep(usage) {
    this.usage = usage;
    this.fresh = { tokens: 0, began: 0, last: 0 };
  }

  finishBlock(segment, { to, html }) {
    this.count(Math.max(0, to - segment.length) / 4); // its text was not sent
    const tail = skip(segment.tail, to - segment.to);
    const [length, blocks] = [Math.max(segment.length, to), segment.blocks + html];
    Object.assign(segment, { tail, length, blocks, to, drawn: null });
  }

  append(segment, op) {
    let { text } = op;
    if (segment.length !== op.at) {
      this.lost = true;
      text = ` […] ${text}`;
    }
    segment.length = op.at + codePoints(op.text);
    if (segment.kind === "answer" && !segment.plain) segment.tail += text;
    else segment.text.push(text);
    op.text = text;
    if (segment.kind !== "notice") this.count(tokensOf(text));
  }

  count(tokens) {
    const { fresh } = this;
    fresh.last = this.now();
    fresh.began ||= fresh.last;
    fresh.tokens += tokens;
  }

  reset({ head, state, usage, segments, cut, age, waits, ...more }) {
    const { lanes = {}, lanes_at = 0, vote = null, tape = null, sent = null } = more;
    const before = this.segments;
    Object.assign(this, { head, state, usage, cut, lost: false, asked: false });
    Object.assign(this, { lanesAt: lanes_at, vote, tape, sent });
    for (const [number, whole] of Object.entries(lanes)) {
      const lane = this.lanes.get(+number) ?? new Turn();
      lane.reset(whole);
      this.lanes.set(+number, lane);
    }
    this.began = this.now() - age;
    this.waits = this.now() - waits;
    this.segments = segments.map((segment, i) => {
      const open = before[i]?.open ?? segment.open;
      return { ...this.segment(segment, segment.text), open };
    });
  }

  /** Forget everything, for a replay that begins anew. */
  clear() {
    const usage = { steps: 0, in: 0, out: 0 };
    this.lanes.clear();
    this.time = 0;
    this.reset({ head: "", state: "", usage, segments: [], cut: "", age: 0, waits: 0 });
    this.fresh = { tokens: 0, began: 0, last: 0 };
  }

  /** Tokens in a second of the current step; 0 where that cannot be told yet. */
  get speed() {
    const streamed = this.fresh.last - this.fresh.began;
    return streamed > 1 ? this.fresh.tokens / streamed : 0;
  }

  get rate() {
    const speed = this.all((turn) => (turn.state.endsWith("…") ? turn.speed : 0));
    return speed ? `${count(speed)}/s` : "";
  }

  /** Sum up over the turn and its trajectories. */
  all(figure) {
    return [this, ...this.lanes.values()].reduce((sum, turn) => sum + figure(turn), 0);
  }

  /** The last line of what has come. */
  get latest() {
    const { kind, text = [], tail = "", plain } = this.segments.at(-1) ?? {};
    if (kind === "tool") return "";
    const end = kind === "answer" && !plain ? tail : text.slice(-200).join("");
    return end.slice(-2 * LATEST).trim().split("\n").at(-1).slice(-LATEST);
  }

  /** The tape that answers come from, a trajectory's included. */
  get played() {
    return this.tape ?? [...this.lanes.values()].find((lane) => lane.tape)?.tape ?? null;
  }

  figures() {
    const { usage } = this;
    const estimated = this.all((turn) => turn.fresh.tokens);
    const out = this.all((turn) => turn.usage.out) + estimated;
    const into = this.all((turn) => turn.usage.in);
    return [
      this.head,
      usage.steps ? `step ${usage.steps + 1}` : "",
      into ? `${count(into)} tokens in` : "",
      out ? `${estimated ? "≈ " : ""}${count(out)} tokens out` : "",
      this.played && (into || out) ? this.played.usage : "",
      this.rate,
      whole(this.now() - this.began),
    ].filter(Boolean);
  }
}

/** The changes that operations make: the whole turn, the operation's segment, the operation. */
const CHANGES = {
  reset: (turn, _, op) => turn.reset(op),
  head: (turn, _, op) => Object.assign(turn, { head: op.text }),
  tape: (turn, _, op) => Object.assign(turn, { tape: op }),
  sent: (turn, _, op) => Object.assign(turn, { sent: op }),
  state: (turn, _, op) => Object.assign(turn, { state: op.text, waits: turn.now() }),
  usage: (turn, _, op) => turn.endStep(op),
  lanes: (turn, _, op) => turn.beginLanes(op.count),
  vote: (turn, _, op) => Object.assign(turn, { vote: op }),
  clicks: (turn, _, op) => Object.assign(turn, { clicks: true, cell: op.cell ?? "" }),
  cut: (turn, segment, op) => Object.assign(segment ?? turn, { cut: op.text }),
  segment: (turn, _, op) => turn.begin(op),
  append: (turn, segment, op) => turn.append(segment, op),
  block: (turn, segment, op) => turn.finishBlock(segment, op),
  thought: (_, segment, op) => Object.assign(segment, { thought: op.html }),
  open: (_, segment, op) => Object.assign(segment, { drawn: op }),
  ask: (_, segment) => Object.assign(segment, { state: "asked" }),
  form: (_, segment, op) => Object.assign(segment, { form: op }),
  run: (turn, segment, op) =>
    Object.assign(segment, { state: "running", began: turn.now(), run: op, form: null }),
  print: (_, segment, op) => {
    const before = op.clears ? "" : (segment.printed?.text ?? "");
    segment.printed = { text: lastLines(before + op.text), line: op.line };
  },
  result: (_, segment, op) => {
    const run = segment.run ?? op.given ?? null;
    Object.assign(segment, { state: op.state, seconds: op.seconds, result: op, form: null, run, printed: null });
  },
  tokens: (_, segment, op) => Object.assign(segment, { tokens: op.tokens }),
  done: (_, segment, op) =>
    Object.assign(segment, { done: true, seconds: segment.seconds ?? op.seconds }),
};

/** Text that grows in blocks with `contain: content`: the browser lays out the last one alone. In
 *  one node 50,000 tokens kept the main thread busy for 12 s instead of 5 s. */
class Growing {
  last = null;
  constructor(element) {
    this.element = element;
  }

  append(text) {
    while (text) {
      if (!this.last) {
        this.last = document.createTextNode("");
        this.element.append(make("div", "block", this.last));
      }
      const left = BLOCK - this.last.length;
      let cut = text.indexOf("\n", Math.max(left, 0));
      if (cut < 0 && this.last.length + text.length > MAX_BLOCK) {
        cut = text.lastIndexOf(" ", MAX_BLOCK - this.last.length);
        if (cut < 0) cut = text.indexOf(" ");
      }
      if (cut < 0) {
        this.last.appendData(text);
        return;
      }
      // Blocks are lines of their own: the line break or space at the cut is the block's end.
      this.last.appendData(text.slice(0, cut + 1));
      text = text.slice(cut + 1);
      this.last = null;
    }
  }
}

/** The drawing of a segment, whatever its kind. */
class Shown {
  constructor(drawing, segment, index, element) {
    Object.assign(this, { drawing, segment, index, element });
  }
  /** Let the text grow in this element. */
  growIn(element) {
    this.growing = new Growing(element);
    this.growing.append(this.segment.text.join(""));
  }
  grow(text) {
    this.growing.append(text);
  }
  draw(op) {
    if (op.op === "append") this.grow(op.text);
    if (op.op === "cut") this.cut();
  }
  /** Show the note on text that is not kept. */
  cut() {
    if (!this.segment.cut && !this.more) return;
    this.more ??= this.place(make("div", "cut"));
    this.more.textContent = this.segment.cut;
  }
  place(more) {
    return (this.panel ?? this.element).appendChild(more);
  }
  tick() {}
}

class Notice extends Shown {
  constructor(drawing, segment, index) {
    super(drawing, segment, index, make("div", "segment kimi-notice"));
    this.grow(segment.text.join(""));
  }
  grow(text) {
    this.element.append(text);
  }
}

/** A segment that folds: open while it grows, then closed, unless the reader chose. */
class Folding extends Shown {
  constructor(drawing, segment, index, kind) {
    super(drawing, segment, index, make("details", `segment kimi-${kind}`));
    this.summary = make("summary", "summary");
    this.panel = make("div", kind === "tool" ? "inside" : "panel");
    this.element.append(this.summary, this.panel);
    // "toggle" fires for our own folding too; a click, which keys make as well, is the reader's.
    this.summary.addEventListener("click", () => {
      segment.open = !this.element.open;
      drawing.send({ open: [index, segment.open] });
    });
  }
  fold(open) {
    this.element.open = this.segment.open ?? open;
  }
}

class Reasoning extends Folding {
  constructor(drawing, segment, index) {
    super(drawing, segment, index, "reasoning");
    this.panel.tabIndex = 0; // or keys could not scroll it
    this.growIn(this.panel);
    this.render();
    this.fold(segment.keep || !segment.done);
    this.tick();
  }
  /** Put finished reasoning as HTML in the place of its text. */
  render() {
    if (!this.segment.thought) return;
    const { panel } = this;
    const read = panel.scrollTop / (panel.scrollHeight || 1);
    const thought = make("div", "thought", nodes(this.segment.thought));
    panel.replaceChildren(...[thought, this.more].filter(Boolean));
    panel.scrollTop = read * panel.scrollHeight;
    this.drawing.typeset(thought);
  }
  get atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.panel;
    return scrollHeight - scrollTop - clientHeight < 8;
  }
  grow(text) {
    const follow = this.element.open && this.atEnd;
    super.grow(text);
    if (follow) this.panel.scrollTop = this.panel.scrollHeight;
  }
  draw(op) {
    super.draw(op);
    if (op.op === "thought") this.render();
    // A reader who has scrolled up is reading: leave it open.
    if (op.op === "done") this.fold(this.segment.keep || !this.atEnd);
    if (op.op !== "append") this.tick();
  }
  tick() {
    const { done, seconds, began, tokens } = this.segment;
    const known = tokens ? ` · ${count(tokens)} tokens` : "";
    const text = done
      ? `Reasoned for ${duration(seconds)}${known}`
      : `Reasoning…${clock(this.drawing.turn.now() - began)}`;
    if (this.summary.textContent !== text) this.summary.textContent = text;
  }
}

class Tool extends Folding {
  constructor(drawing, segment, index) {
    super(drawing, segment, index, "tool");
    this.name = make("code", "", segment.title);
    this.state = make("span", "note");
    this.given = make("pre", "arguments");
    this.gives = this.form = this.prints = null;
    this.summary.append(this.name, this.state);
    this.panel.append(this.given);
    this.growIn(this.given);
    this.element.open = segment.open ?? true;
    if (segment.run) this.run();
    if (segment.form) this.ask();
    if (segment.printed) this.print(true);
    if (segment.result) this.finish();
    this.tick();
  }
  place(more) {
    this.given.after(more);
    return more;
  }
  draw(op) {
    super.draw(op);
    if (op.op === "run" || op.given) this.run();
    if (op.op === "form") this.ask();
    if (op.op === "print") this.print(op.clears, op.text);
    if (op.op === "result") this.finish();
    if (op.op !== "append") this.tick();
  }
  /** Show what the call prints: finished lines, and the line under way. */
  print(anew, text) {
    const { printed } = this.segment;
    if (!this.prints) {
      this.prints = make("pre", "printed");
      this.prints.tabIndex = 0; // or keys could not scroll it
      this.lines = document.createTextNode("");
      this.line = document.createTextNode("");
      this.prints.append(this.lines, this.line);
      this.panel.append(this.prints);
      anew = true;
    }
    const { scrollHeight, scrollTop, clientHeight } = this.prints;
    const follow = scrollHeight - scrollTop - clientHeight < 8;
    if (anew || this.lines.length + text.length !== printed.text.length) this.lines.data = printed.text;
    else this.lines.appendData(text);
    this.line.data = printed.line;
    if (follow) this.prints.scrollTop = this.prints.scrollHeight;
  }
  run() {
    this.name.textContent = this.segment.run.call;
    this.given.replaceChildren(nodes(this.segment.run.html));
    this.uncover();
    this.form?.remove();
    this.form = null;
  }
  ask() {
    const { segment } = this;
    if (this.form?.number === segment.form.number) {
      this.form.say(segment.form.wrong);
      return;
    }
    this.form?.remove();
    this.form = new Form(segment, (answer) => this.drawing.send(answer));
    this.given.hidden = true;
    this.given.after(this.form.element);
    this.form.watch(this.drawing.body);
    this.element.open = true;
  }
  /** Show the arguments, unless the summary has them all. */
  uncover() {
    this.given.hidden = !(this.segment.run?.html ?? true);
  }
  finish() {
    this.form?.remove();
    this.prints?.remove();
    this.prints = null;
    this.uncover();
    this.gives ??= make("div", "result");
    this.gives.replaceChildren(nodes(this.segment.result.html));
    this.panel.append(this.gives);
    this.fold(this.segment.result.shows);
  }
  tick() {
    const { state, began, seconds, run, result } = this.segment;
    const notes = {
      running: ` · running…${clock(this.drawing.turn.now() - began)}`,
      asked: " · waits for your answer",
      done: ` · ✓\u00a0done in ${duration(seconds ?? 0)}`,
      failed: ` · ✗\u00a0failed after ${duration(seconds ?? 0)}`,
      declined: " · ⊘\u00a0declined",
      stopped: ` · ■\u00a0stopped${seconds ? ` after ${duration(seconds)}` : ""}`,
    };
    let note = notes[state] ?? "";
    if (result?.recorded) note = `${note.replace(/ (?:in|after) .*/, "")} · recorded result`;
    const text = (run?.edited ? " · arguments changed" : "") + note;
    this.element.dataset.state = state;
    if (this.state.textContent === text) return;
    const [before, mark = "", after = ""] = text.split(/([✓✗⊘■])/);
    this.state.replaceChildren(before, make("span", "mark", mark), after);
  }
}

/** The question if a call may be made, with its arguments to change. */
class Form {
  constructor({ title, form }, send) {
    this.number = form.number;
    this.moved = this.focused = 0;
    this.element = make("form", "form");
    this.element.setAttribute("data-lm-suppress-shortcuts", "true");
    const isQuestion = !form.lasting; // an MCP server asks for values while its tool runs
    this.element.setAttribute("aria-label", isQuestion ? `A question from ${title}` : `May ${title} run?`);
    this.element.addEventListener("submit", (event) => event.preventDefault());
    this.element.addEventListener("keydown", (event) => this.press(event));
    const name = make("code", "", form.name || title);
    const asked = isQuestion ? [name, ": send these values?"] : ["May ", name, " run with these values?"];
    this.element.append(make("div", "asked", asked));
    if (form.description) {
      const told = make("div", "told", form.description);
      told.tabIndex = 0; // or keys could not scroll it
      this.element.append(told);
    }
    this.fields = form.fields.map((field, i) => this.field(form, field, form.traits?.[i] ?? {}));
    this.wrong = make("div", "wrong");
    this.wrong.setAttribute("role", "alert");
    this.answer = (say) => {
      this.enable(false);
      this.wrong.textContent = "";
      const fields = this.fields.map((field) => field.read());
      send({ answer: { number: this.number, say, fields } });
    };
    // A click, which keys make with no detail, was aimed at what stood here a moment ago.
    const click = (say) => (event) => event.detail && this.isNew(this.moved) || this.answer(say);
    this.always = button(form.lasting, click("chat"));
    const [yes, no, does] = isQuestion ? ["Send", "Do not send", "sends"] : ["Run", "Do not run", "runs"];
    this.run = button(yes, click("once"), "button kimi-main");
    this.buttons = [this.run, ...(isQuestion ? [] : [this.always]), button(no, click("no"))];
    const several = this.fields.some((field) => field.several());
    const keys = `Enter ${does} it${several ? " (Ctrl+Enter in a text of several lines)" : ""}, Escape does not.`;
    const hints = make("div", "told", [form.covers ?? "", "\n", keys]);
    this.element.append(this.wrong, make("div", "row", this.buttons), hints);
    this.enable(false); // a click may be on its way to what stood here before it
    setTimeout(() => this.say(form.wrong), SETTLE);
  }
  /** Add a field; code is highlighted until it is changed. */
  field(form, [name, value, whole], { kind = "", type = "", html = "" }) {
    const hint = make("span", "hint");
    const title = make("span", "", [make("span", "", name), make("span", "hint", type && ` · ${type}`), hint]);
    const input = this.input(kind, value);
    input.readOnly = !whole;
    input.addEventListener("input", () => (this.always.disabled = this.changed(form)));
    const label = make("label", kind === "bool" ? "field kimi-check" : "field", [title, input]);
    const field = { input, read: () => (kind === "bool" ? String(input.checked) : input.value) };
    field.several = () => field.read().includes("\n");
    // Once there is a width: a line may need several rows.
    new ResizeObserver(() => this.fit(input, hint)).observe(input);
    this.element.append(label);
    if (kind !== "code") return field;
    const code = make("pre", "code-shown", nodes(html));
    if (code.textContent !== value) code.textContent = value; // what would run is what is shown
    code.tabIndex = 0;
    code.setAttribute("role", "region");
    code.setAttribute("aria-label", name);
    const edit = button("Edit", () => {
      field.shown = null;
      this.focused = 0; // by the person
      code.replaceWith(label);
      edit.remove();
      input.focus();
    });
    label.replaceWith(code);
    code.before(make("div", "field", make("span", "", [make("span", "", name), hint])));
    new ResizeObserver(() => this.fit(code, hint)).observe(code);
    this.element.append(make("div", "row", edit));
    return Object.assign(field, { shown: code, edit, several: () => !field.shown && input.value.includes("\n") });
  }
  input(kind, value) {
    if (kind === "bool" || kind === "int" || kind === "float") {
      const input = make("input", kind === "bool" ? "" : "input");
      input.type = kind === "bool" ? "checkbox" : "number";
      input.step = kind === "int" ? "1" : "any";
      input.checked = value === "true";
      input.addEventListener("wheel", () => input.blur(), { passive: true }); // it would change it
      if (kind !== "bool") input.value = value;
      if (kind === "bool" || input.value === value) return input; // a browser has no NaN
    }
    const area = make("textarea", "input");
    area.value = value;
    area.rows = 1;
    area.spellcheck = false;
    return area;
  }
  isNew(since) {
    return now() - since < SETTLE / 1000;
  }
  /** Enter approves and Escape declines, if all of the form can be seen and was there before. */
  press(event) {
    const { target, key } = event;
    if ((key !== "Enter" && key !== "Escape") || event.isComposing) return;
    if (key === "Enter") {
      if (target.closest("button")) return; // it is the button's
      const several = target.tagName === "TEXTAREA" && target.value.includes("\n");
      if (event.shiftKey || (several && !event.ctrlKey && !event.metaKey)) {
        if (target.tagName !== "TEXTAREA") return;
        event.preventDefault(); // JupyterLab lets no line break into a text area of an output
        target.setRangeText("\n", target.selectionStart, target.selectionEnd, "end");
        target.dispatchEvent(new Event("input"));
        return;
      }
    }
    event.preventDefault();
    if (event.repeat || this.isNew(Math.max(this.moved, this.focused)) || this.run.disabled) return;
    if (key === "Escape") this.answer("no");
    else if (inSight(this.run)) this.answer("once");
    else this.run.scrollIntoView({ block: "nearest" });
  }
  /** Show all of a value, or say that there is more. */
  fit(area, hint) {
    const more = () => area.scrollHeight > area.clientHeight + 2;
    while (area.clientHeight && more() && area.rows < ROWS) area.rows++;
    hint.textContent = area.clientHeight && more() ? " · scroll to see all" : "";
  }
  /** Note when what stands above the form grows or shrinks: formulas are typeset when they can. */
  watch(body) {
    const place = () => this.element.getBoundingClientRect().top - body.getBoundingClientRect().top;
    let last = place();
    this.watcher = new ResizeObserver(() => {
      if (place() !== last) this.moved = now();
      last = place();
    });
    this.watcher.observe(body);
  }
  changed(form) {
    return this.fields.some((field, i) => field.read() !== form.fields[i][1]);
  }
  enable(on) {
    const edits = this.fields.map((field) => field.edit).filter(Boolean);
    for (const element of [...this.buttons, ...edits]) element.disabled = !on;
    for (const { input } of this.fields) input.disabled = !on;
  }
  say(wrong) {
    this.wrong.textContent = wrong ?? "";
    this.enable(true);
    this.always.disabled = !!wrong;
    this.focus();
  }
  /** Focus the first field, but not away from where somebody types, nor out of sight. */
  focus() {
    const active = document.activeElement;
    const first = this.fields.find((field) => !field.input.readOnly);
    const place = first?.shown ?? first?.input ?? this.run;
    if (this.element.contains(active) || active?.closest(TYPED_IN) || !inSight(place)) return;
    this.before = active;
    this.focused = now();
    place.focus({ preventScroll: true });
  }
  remove() {
    const had = this.element.contains(document.activeElement) || document.activeElement === document.body;
    this.watcher?.disconnect();
    this.element.remove();
    if (had && this.before?.isConnected) this.before.focus({ preventScroll: true });
  }
}

/** Finished blocks as HTML, then the open one: its last drawing, and the text since. */
class Answer extends Shown {
  constructor(drawing, segment, index) {
    super(drawing, segment, index, make("div", "answer"));
    this.open = make("div", "open");
    this.element.append(this.open);
    this.add(segment.blocks);
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
    for (const code of added.querySelectorAll("pre")) this.withButtons(code);
    const elements = [...added.children];
    this.open.before(added);
    for (const element of elements) this.drawing.typeset(element);
  }
  withButtons(code) {
    const { model, turn } = this.drawing;
    const frame = make("div", "code");
    const text = code.textContent;
    code.replaceWith(frame);
    const press = button("Copy", () => copy(text, press, COPY_CODE));
    label(press, "Copy", COPY_CODE);
    const into = button("New cell", () => label(into, insert(model, turn.cell, text) ? "Inserted" : "No cell"));
    label(into, "New cell", NEW_CELL);
    const can = turn.cell && model.widget_manager?.context?.model?.sharedModel?.insertCell;
    frame.append(code, make("span", "row kimi-copy", can ? [into, press] : [press]));
  }
  reopen() {
    const { drawn, tail, to } = this.segment;
    this.open.replaceChildren(drawn ? nodes(drawn.html) : "");
    let rest = drawn ? skip(tail, drawn.to - to) : tail;
    this.rest = null;
    this.inCode = false;
    if (drawn) {
      // Continue the last paragraph, item or code, up to its likely end.
      let place = this.open;
      while (CONTINUABLE.test(place.lastElementChild?.tagName) && place.tagName !== "PRE") {
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

class Plain extends Shown {
  constructor(drawing, segment, index) {
    super(drawing, segment, index, make("pre", "plain"));
    this.growIn(this.element);
  }
}

const KINDS = { reasoning: Reasoning, tool: Tool, notice: Notice, answer: Answer };

/** The segments of a turn, or of one of its trajectories. */
class Body {
  constructor(turn, model) {
    Object.assign(this, { turn, model });
    this.body = make("div", "segments");
    /** @type {Shown[]} */ this.shown = [];
  }

  send(content) {
    this.model.send(content);
  }

  drawSegments() {
    this.body.replaceChildren();
    this.shown = [];
    this.turn.segments.forEach((_, i) => this.add(i));
  }

  draw(op) {
    if (op.op === "segment") this.add(op.segment);
    else this.shown[op.segment]?.draw(op);
  }

  add(i) {
    const segment = this.turn.segments[i];
    if (!segment) return;
    const { kind, plain } = segment;
    const drawn = kind === "answer" && plain ? Plain : (KINDS[kind] ?? Notice);
    this.shown[i] = new drawn(this, segment, i);
    this.shown[i].cut();
    this.body.append(this.shown[i].element);
  }

  tick() {
    for (const shown of this.shown) shown?.tick();
  }

  /** Typeset maths with the front end's own typesetter, if there is one. */
  typeset(element) {
    if (!element.textContent.includes("$")) return;
    try {
      this.model.widget_manager?.rendermime?.latexTypesetter?.typeset(element);
    } catch {
      // This way in is undocumented: without it dollars stay.
    }
  }
}

/** A trajectory in the strip: a button that says how it stands, and its own time line. */
class Lane extends Body {
  constructor(turn, model, number, open) {
    super(turn, model);
    this.number = number;
    this.name = make("span", "lane-name", String(number));
    this.state = make("span", "lane-state");
    this.latest = make("span", "lane-latest");
    this.button = button([this.name, this.state, this.latest], open, "button kimi-lane");
    this.body.id = `kimi-lane-${Math.random().toString(36).slice(2)}`;
    this.body.setAttribute("role", "region");
    this.body.setAttribute("aria-label", `Trajectory ${number}`);
    this.button.setAttribute("aria-controls", this.body.id);
    this.show(false);
  }

  send(content) {
    super.send({ lane: this.number, ...content });
  }

  show(open) {
    this.open = open;
    this.button.setAttribute("aria-expanded", String(open));
    this.body.hidden = !open;
    if (open) this.drawSegments();
  }

  draw(op) {
    if (op.op === "reset" && this.open) this.drawSegments();
    else if (this.open && op.segment !== undefined) super.draw(op);
  }

  /** Say how it stands; `answer` is what it came to, with a letter for all that agree. */
  describe(answer) {
    const { turn } = this;
    const step = turn.usage.steps ? `step ${turn.usage.steps + 1}` : "";
    const doing = [turn.state || "Waiting…", turn.state.endsWith("…") ? step : "", turn.rate];
    const text = answer ? `${answer[0]} · ${answer[1]}` : doing.filter(Boolean).join(" · ");
    if (this.state.textContent !== text) this.state.textContent = text;
    const latest = answer ? "" : turn.latest;
    if (this.latest.textContent !== latest) this.latest.textContent = latest;
  }

  tick() {
    if (this.open) super.tick();
  }
}

/** The trajectories side by side; a click opens the time line of one below them. */
class Strip {
  constructor(turn, model) {
    this.turn = turn;
    this.row = make("div", "lane-row");
    this.vote = make("div", "vote");
    this.vote.setAttribute("role", "status");
    this.places = make("div", "lane-places");
    this.element = make("div", "segment kimi-lanes", [this.row, this.vote, this.places]);
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "Trajectories");
    /** @type {Map<number, Lane>} */ this.lanes = new Map();
    for (const [number, lane] of turn.lanes) {
      const shown = new Lane(lane, model, number, () => this.toggle(number));
      this.lanes.set(number, shown);
      this.row.append(shown.button);
      this.places.append(shown.body);
    }
    this.describe();
  }

  toggle(number, open = !this.lanes.get(number)?.open) {
    for (const lane of this.lanes.values()) {
      const wanted = open && lane.number === number;
      if (lane.open !== wanted) lane.show(wanted);
    }
  }

  draw(op) {
    const lane = this.lanes.get(op.lane);
    if (op.op === "form" && !lane?.open) this.toggle(op.lane, true); // draws the form as well
    else lane?.draw(op);
  }

  describe() {
    const { vote } = this.turn;
    const text = vote?.text ?? "";
    if (this.vote.textContent !== text) this.vote.textContent = text;
    for (const [number, lane] of this.lanes) {
      const at = vote?.groups.findIndex(([, numbers]) => numbers.includes(number)) ?? -1;
      lane.describe(at < 0 ? null : [String.fromCharCode(65 + (at % 26)), vote.groups[at][0]]);
    }
  }

  tick() {
    this.describe();
    for (const lane of this.lanes.values()) lane.tick();
  }
}

/** A drawing of a turn: Lab can show the same output in several places. */
class Drawing extends Body {
  constructor(turn, el, model) {
    super(turn, model);
    this.cut = make("div", "cut");
    this.dot = make("span", "dot");
    this.state = make("span", "state");
    this.state.setAttribute("role", "status");
    this.clock = make("span", "clock");
    this.figures = make("span", "figures");
    this.tape = make("span", "tape");
    this.copy = button("Copy", () => {
      turn.copier = this.copy;
      this.send({ copy: true }); // text that came as HTML is not here
    });
    label(this.copy, "Copy", COPY_ANSWER);
    this.stop = button("Stop", () => {
      this.send({ stop: true });
      this.stop.textContent = "Stopping…";
    });
    this.hint = make("span", "hint", "Kernel → Interrupt stops it");
    this.copy.hidden = this.stop.hidden = this.hint.hidden = true;
    for (const decoration of [this.dot, this.clock]) decoration.ariaHidden = "true";
    const doing = make("span", "doing", [this.dot, this.state, this.clock]);
    const buttons = make("span", "row", [this.copy, this.stop, this.hint]);
    const footing = make("div", "footing", [doing, this.figures, this.tape, buttons]);
    this.end = make("div", "end");
    this.sent = make("details", "segment kimi-sent");
    const inside = [this.sent, this.body, this.cut, footing, this.end];
    this.root = make("div", "turn jp-RenderedHTMLCommon", inside);
    el.append(this.root);
    this.made = now();
    this.addControls();
    this.drawAll();
    this.timer = setInterval(() => this.tick(), 500);
  }

  drawAll() {
    /** @type {Strip | null} */ this.strip = null;
    this.drawSent();
    this.drawSegments();
    this.addStrip(this.shown[this.turn.lanesAt]?.element ?? null);
    this.drawFooting();
  }

  /** Show what was sent in a line, folded over the same at length. */
  drawSent() {
    const { text = "", details = [] } = this.turn.sent ?? {};
    this.sent.hidden = !text;
    const panel = make("div", "panel", details.map((line) => make("div", "", line)));
    panel.tabIndex = 0; // or keys could not scroll it
    this.sent.replaceChildren(make("summary", "summary", text), panel);
  }

  /** Add the buttons and keys of a replay, if it is one. */
  addControls() {
    const { replay } = this.turn;
    if (!replay || this.controls) return;
    this.controls = new Controls(replay);
    this.root.insertBefore(this.controls.element, this.end);
    this.root.addEventListener("keydown", (event) => this.controls.press(event));
    this.root.setAttribute("data-lm-suppress-shortcuts", "true"); // arrows would choose a cell
    // Notebook 7 asks the element that has the focus first: A would insert a cell.
    this.root.addEventListener("focusin", ({ target }) => {
      /** @type {Element} */ (target).setAttribute("data-lm-suppress-shortcuts", "true");
    });
  }

  addStrip(before) {
    if (this.strip || !this.turn.lanes.size) return;
    this.strip = new Strip(this.turn, this.model);
    this.body.insertBefore(this.strip.element, before);
  }

  draw(op) {
    if (op.lane) this.strip?.draw(op);
    else if (op.op === "reset") this.drawAll();
    else if (op.op === "sent") this.drawSent();
    else if (op.op === "lanes") this.addStrip(null);
    else if (op.op === "vote") this.strip?.describe();
    else if (op.segment === undefined) this.drawFooting();
    else super.draw(op);
  }

  drawFooting() {
    const { turn } = this;
    if (this.state.textContent !== turn.state) this.state.textContent = turn.state;
    if (this.cut.textContent !== turn.cut) this.cut.textContent = turn.cut;
    const { text = "", title = "" } = turn.played ?? {};
    if (this.tape.textContent !== text) this.tape.textContent = text;
    this.tape.title = title;
    this.tape.hidden = !text;
    this.dot.hidden = !!turn.replay;
    this.copy.hidden = !turn.clicks || !!turn.replay || !turn.segments.some((segment) => segment.kind === "answer");
    this.stop.hidden = !turn.clicks || !!turn.replay;
    this.hint.hidden = turn.clicks || (now() - this.made) * 1000 < UNSURE;
    const counted = turn.segments.some((segment) => !segment.done && segment.kind !== "notice");
    const waiting = turn.state.endsWith("…") && !counted;
    this.clock.textContent = waiting ? clock(turn.now() - turn.waits) : "";
    const figures = turn.figures().map((figure) => figure.replaceAll(" ", "\u00a0"));
    this.figures.textContent = figures.join(" · ");
    this.controls?.describe();
  }

  tick() {
    super.tick();
    this.strip?.tick();
    this.drawFooting();
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
    this.root.remove(); // front ends keep the parent element
  }
}

/** A turn that is over, played back moment by moment; its answer is hidden until it is asked for. */
class Replay {
  at = -1;
  shows = false; // the answer
  speed = 1;
  timer = 0;
  /**
   * @param {Turn} turn
   * @param {{ops: object[], seconds: number, pause: number, answer: boolean}[]} moments
   * @param {Set<Drawing>} drawings
   */
  constructor(turn, moments, drawings) {
    Object.assign(this, { turn, moments, drawings });
    const answer = moments.findIndex((moment) => moment.answer);
    this.gate = answer < 0 ? moments.length : answer; // the first moment that shows the answer
    turn.clicks = true;
    turn.clear();
  }

  get last() {
    return (this.shows ? this.moments.length : this.gate) - 1;
  }

  go(to) {
    const wanted = Math.max(0, Math.min(to, this.last));
    const following = [...this.drawings].filter((drawing) => drawing.endInSight);
    const inOne = wanted !== this.at + 1;
    if (wanted < this.at) {
      this.turn.clear();
      this.at = -1;
    }
    while (this.at < wanted) {
      const { ops, seconds } = this.moments[++this.at];
      this.turn.time = seconds;
      for (const op of ops) {
        const known = this.turn.apply({ ...op });
        if (known && !inOne) for (const drawing of this.drawings) drawing.draw(known);
      }
    }
    for (const drawing of this.drawings) {
      if (inOne) drawing.drawAll();
      else drawing.tick();
    }
    for (const drawing of following) drawing.end.scrollIntoView({ block: "nearest" });
  }

  /** Go on by itself, or stop that. */
  play(on = !this.timer) {
    clearTimeout(this.timer);
    this.timer = 0;
    if (on && this.at >= this.last) this.go(0);
    const next = this.moments[this.at + 1];
    if (!on || this.at >= this.last) return;
    const step = () => {
      this.timer = 0;
      const { at } = this;
      this.go(at + 1);
      if (this.at < this.last) this.play(true);
      else for (const drawing of this.drawings) drawing.tick();
    };
    this.timer = setTimeout(step, (1000 * next.pause) / this.speed);
  }

  show(on = !this.shows) {
    this.play(false);
    this.shows = on;
    this.go(on ? this.moments.length : this.gate - 1);
  }
}

const SPEEDS = [0.25, 0.5, 1, 2, 4, 8, 16];

/** The buttons and keys of a replay. */
class Controls {
  constructor(replay) {
    this.replay = replay;
    const act = (change) => () => {
      change();
      this.describe();
    };
    const move = (by) => act(() => this.move(replay.at + by));
    this.back = button("Back", move(-1));
    this.playing = button("Play", act(() => replay.play()));
    this.forward = button("Forward", move(1));
    this.speed = make("select", "button kimi-speed");
    this.speed.setAttribute("aria-label", "Speed");
    for (const speed of SPEEDS) this.speed.append(new Option(`${speed} ×`, String(speed)));
    this.speed.addEventListener("change", () => this.pace(Number(this.speed.value)));
    this.answer = button("", act(() => replay.show()));
    this.answer.hidden = replay.gate === replay.moments.length;
    this.place = make("span", "place");
    this.place.setAttribute("role", "status");
    const keys = make("span", "keys", "Keys: ← → step, space plays, ↑ ↓ speed, A answer");
    const all = [this.back, this.playing, this.forward, this.speed, this.answer, this.place, keys];
    this.element = make("div", "row kimi-replay", all);
    this.element.setAttribute("role", "toolbar");
    this.element.setAttribute("aria-label", "Replay");
    this.element.tabIndex = 0;
    this.describe();
  }

  move(to) {
    this.replay.play(false);
    this.replay.go(to);
  }

  pace(speed) {
    const { replay } = this;
    replay.speed = speed;
    if (replay.timer) replay.play(true);
    for (const drawing of replay.drawings) drawing.tick();
  }

  describe() {
    const { replay } = this;
    const { at, last, shows } = replay;
    const hidden = at === last && !shows && replay.gate < replay.moments.length;
    const end = hidden ? " · the answer is hidden" : "";
    const texts = new Map([
      [this.playing, replay.timer ? "Pause" : "Play"],
      [this.answer, shows ? "Hide the answer" : "Show the answer"],
      [this.place, `${at + 1} of ${last + 1}${end}`],
    ]);
    for (const [element, text] of texts) {
      if (element.textContent !== text) element.textContent = text;
    }
    this.speed.value = String(replay.speed);
  }

  press(event) {
    const { target, key, ctrlKey, altKey, metaKey } = event;
    if (ctrlKey || altKey || metaKey || target.closest("select, input, textarea")) return;
    const { replay } = this;
    const nth = SPEEDS.indexOf(replay.speed);
    const inside = this.element.contains(target); // elsewhere these keys scroll
    const acts = {
      ArrowRight: () => this.move(replay.at + 1),
      ArrowLeft: () => this.move(replay.at - 1),
      a: () => replay.show(),
      ArrowUp: inside && (() => this.pace(SPEEDS[Math.min(nth + 1, SPEEDS.length - 1)])),
      ArrowDown: inside && (() => this.pace(SPEEDS[Math.max(nth - 1, 0)])),
      Home: inside && (() => this.move(0)),
      End: inside && (() => this.move(replay.last)),
      // On a button it is the button's own.
      " ": target === this.element && (() => replay.play()),
    };
    const act = acts[key.length === 1 ? key.toLowerCase() : key];
    if (!act) return;
    event.preventDefault();
    act();
    this.describe();
  }
}

/** Put code into a new cell below the one with this id; false if there is none. */
const insert = (model, id, source) => {
  const { cells, sharedModel } = model.widget_manager?.context?.model ?? {};
  for (let i = 0; i < (cells?.length ?? 0); i++) {
    if (cells.get(i).id !== id) continue;
    const text = source.replace(/\n$/, "");
    sharedModel.insertCell(i + 1, { cell_type: "code", source: text, metadata: {} });
    return true;
  }
  return false;
};

/** The times at which this page first met its notebooks; the scripts of all kernels share it. */
const known = (globalThis[Symbol.for("kimi_magic")] ??= new WeakMap());

/** The runs of cells that this page has not seen from the beginning; late_page.js notes them too. */
const runs = (globalThis[Symbol.for("kimi_magic.late")] ??= new Set());

/** What this page has put into cells: the outputs with their records, and the widgets' ids. */
const placed = (globalThis[Symbol.for("kimi_magic.placed")] ??= new WeakMap());
const isPlaced = new Set();

const asOutput = ({ data, metadata, times }) => {
  const transient = { kimi_magic: times ?? {} }; // not saved; records.js shows them
  return { output_type: "display_data", data, metadata, transient };
};

const setRecord = (outputs, at, record) => {
  outputs.set(at, asOutput(record));
  placed.set(outputs.get(at), record);
};

/** Add a record above those of later turns of its run. */
const addRecord = (outputs, record) => {
  let at = outputs.add(asOutput(record)) - 1;
  for (; at > 0; at--) {
    const above = placed.get(outputs.get(at - 1));
    if (above?.run !== record.run || above.nth < record.nth) break;
    setRecord(outputs, at, above);
  }
  setRecord(outputs, at, record);
};

/**
 * Put the record of a turn that ended while no page listened into its cell; false if none.
 *
 * One of an earlier turn of the cell has a place only where its widget was saved.
 */
const place = (model, record, isEarlier = false) => {
  const { cell, run, mount, age, data } = record;
  const notebook = model.widget_manager?.context;
  const late = model.get("late"); // late_page.js has put the widget into the cell
  if (!late && now() - known.get(notebook) > age) return true; // it was open, and got the record
  const cells = notebook?.model?.cells;
  for (let i = 0; cell && i < (cells?.length ?? 0); i++) {
    const { id, outputs, executionCount, executionState = "idle" } = cells.get(i);
    if (id !== cell || !outputs) continue;
    if (isPlaced.has(mount) || executionState !== "idle") return true; // it runs again
    let [at, saved] = [-1, false];
    for (let j = 0; j < outputs.length; j++) {
      const shown = outputs.get(j);
      if (shown.data?.[MOUNT]?.model_id === mount) at = j; // saved in mid-stream
      // Turns of a cell may have the same record.
      saved ||= shown.data?.["text/html"] === data["text/html"] && !placed.has(shown);
    }
    if (at < 0 && (saved || isEarlier)) return true;
    // The outputs of an earlier run, which this one has cleared: a cell that runs has no number.
    if (at < 0 && executionCount !== null && !runs.has(run)) outputs.clear();
    runs.add(run);
    isPlaced.add(mount);
    if (at < 0) addRecord(outputs, record);
    else setRecord(outputs, at, record);
    return true;
  }
  return false;
};

const saving = new WeakSet(); // cells of which a replay is kept out of the file

/**
 * Save the record alone where a replay is shown: opened again, its widget would be an error.
 *
 * The front end takes the file from the cells' own toJSON at the moment of saving.
 */
const saveRecord = (model, mount) => {
  const cells = model.widget_manager?.context?.model?.cells;
  for (let i = 0; mount && i < (cells?.length ?? 0); i++) {
    const { sharedModel, outputs } = cells.get(i);
    let shows = false;
    for (let j = 0; j < (outputs?.length ?? 0); j++) {
      shows ||= outputs.get(j).data?.[MOUNT]?.model_id === mount;
    }
    if (!shows || saving.has(sharedModel) || !sharedModel?.toJSON) continue;
    saving.add(sharedModel);
    const whole = sharedModel.toJSON.bind(sharedModel);
    sharedModel.toJSON = () => {
      const cell = whole();
      const kept = (output) => {
        const { [MOUNT]: widget, ...data } = output.data ?? {};
        return widget && data["text/html"] ? { ...output, data } : output;
      };
      return cell.outputs ? { ...cell, outputs: cell.outputs.map(kept) } : cell;
    };
  }
};

export default () => {
  const turn = new Turn();
  const page = Math.random().toString(36).slice(2);
  const over = new AbortController();
  let begun = true;
  /** @type {Set<Drawing>} */ const drawings = new Set();

  const hear = (model, message) => {
    const following = [...drawings].filter((drawing) => drawing.endInSight);
    const isFor = message.record && (!message.late || model.get("late"));
    if (isFor && place(model, message.record)) model.send({ placed: true });
    if (message.earlier && model.get("late")) place(model, message.earlier, true);
    if (message.replay && !turn.replay) {
      turn.replay = new Replay(turn, message.replay, drawings);
      turn.mount = message.mount;
      saveRecord(model, turn.mount);
      for (const drawing of drawings) drawing.addControls();
      turn.replay.go(0);
    }
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
      if (op.op === "reset" && !turn.lost && turn.segments.length) continue; // nothing was missed
      if (op.op === "reset") begun = true;
      if (!begun && op.op !== "clicks") continue; // the whole is on its way
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
    // render() is too late for a listener: messages that come before it are lost.
    initialize({ model, early }) {
      begun = !model.get("late"); // or the page was loaded after the turn had begun
      turn.lost = !begun;
      model.on("msg:custom", (message) => hear(model, message));
      for (const message of early) hear(model, message);
      const notebook = model.widget_manager?.context;
      if (notebook && !known.has(notebook)) known.set(notebook, now());
      // The channel may not be open yet, and a message into it is lost: repeat until the answer.
      const ready = (pause) => {
        if (turn.clicks || pause > 8000 || over.signal.aborted) return;
        model.send({ ready: page, late: !!model.get("late") });
        setTimeout(ready, pause, 2 * pause);
      };
      ready(250);
      model.on("change:late", () => ready(250)); // now there is a way
      const leave = () => model.send({ leaving: page });
      addEventListener("pagehide", leave, { signal: over.signal });
    },
    render({ model, el }) {
      const drawing = new Drawing(turn, el, model);
      drawings.add(drawing);
      saveRecord(model, turn.mount);
      return () => {
        drawings.delete(drawing);
        if (!drawings.size) turn.replay?.play(false);
        drawing.remove();
        if (over.signal.aborted && !drawings.size) turn.segments = [];
      };
    },
  };
};
