// Draws a turn while it happens. The kernel sends small operations (timeline.py lists them); text
// reaches the page as text nodes only.

const BLOCK = 2048; // characters in a block that is laid out for itself
const LONGEST = 4 * BLOCK; // where a block is cut although its line goes on

/** @typedef {{kind: string, title: string, text: string[], length: number, done: boolean,
 *    open: boolean | null}} Part  `open` is what the reader chose, null before */

/** Offsets count code points, a JavaScript string counts UTF-16 units. */
const codePoints = (/** @type {string} */ text) => {
  let count = text.length;
  for (let i = 0; i < text.length; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00) count--;
  }
  return count;
};

const make = (/** @type {string} */ tag, /** @type {string} */ name, text = "") => {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
};

/** The turn as the browser knows it: a fold over operations. */
class Turn {
  head = "";
  state = "";
  /** @type {Part[]} */ parts = [];
  lost = false; // something did not arrive
  asked = false; // for the whole
  began = Date.now();

  /** Take one operation and say what is left to draw of it, null where its part is unknown. */
  apply(op) {
    const part = this.parts[op.part];
    switch (op.op) {
      case "reset":
        Object.assign(this, { head: op.head, state: op.state, asked: false, lost: false });
        this.parts = op.parts.map((p, i) => ({
          ...p,
          text: [p.text],
          length: codePoints(p.text),
          open: this.parts[i]?.open ?? null,
        }));
        return op;
      case "head":
        this.head = op.text;
        return op;
      case "state":
        this.state = op.text;
        return op;
      case "part":
        this.lost ||= op.part !== this.parts.length;
        this.parts[op.part] = { ...op, text: [], length: 0, done: false, open: null };
        return op;
      case "append":
        if (!part) break;
        if (part.length !== op.at) {
          this.lost = true;
          op.text = ` […] ${op.text}`;
          part.length = op.at - codePoints(" […] ");
        }
        part.text.push(op.text);
        part.length += codePoints(op.text);
        return op;
      case "done":
        if (!part) break;
        part.done = true;
        return op;
      default:
        return null; // a newer kernel side may say more
    }
    this.lost = true;
    return null;
  }
}

/** Text that only grows, in blocks, so that the browser lays out the last one alone. */
class Growing {
  constructor(/** @type {HTMLElement} */ element) {
    this.element = element;
    this.last = null;
  }

  append(/** @type {string} */ text) {
    while (text) {
      if (!this.last) {
        const block = make("div", "kimi-block");
        this.last = block.appendChild(document.createTextNode(""));
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

/** One drawing of a turn; a notebook can show the same widget in several places. */
class Drawing {
  constructor(/** @type {Turn} */ turn, /** @type {HTMLElement} */ el) {
    this.turn = turn;
    this.root = make("div", "kimi-turn");
    this.state = make("span", "kimi-state");
    this.state.setAttribute("role", "status");
    this.state.setAttribute("aria-live", "polite");
    this.clock = make("span", "kimi-clock");
    this.clock.setAttribute("aria-hidden", "true");
    this.head = make("span", "kimi-head");
    const heading = make("div", "kimi-heading");
    const dot = make("span", "kimi-dot");
    dot.setAttribute("aria-hidden", "true");
    heading.append(dot, this.state, this.clock, this.head);
    this.body = make("div", "kimi-parts");
    this.end = make("div", "kimi-end");
    this.root.append(this.body, heading, this.end);
    el.append(this.root);
    this.drawAll();
    this.inSight = false;
    this.observer = new IntersectionObserver((entries) => {
      this.inSight = entries[entries.length - 1].isIntersecting;
    });
    this.observer.observe(this.end);
    this.timer = setInterval(() => this.drawClock(), 1000);
  }

  drawAll() {
    this.body.replaceChildren();
    this.drawn = [];
    this.drawHeading();
    this.turn.parts.forEach((part, i) => {
      this.addPart(i);
      this.drawn[i].text.append(part.text.join(""));
      if (part.done) this.finish(i);
    });
  }

  drawHeading() {
    this.state.textContent = this.turn.state;
    this.head.textContent = this.turn.head;
  }

  drawClock() {
    const seconds = Math.round((Date.now() - this.turn.began) / 1000);
    this.clock.textContent = seconds < 3 ? "" : `${seconds} s`;
  }

  draw(op) {
    if (op.op === "reset") this.drawAll();
    else if (op.op === "part") this.addPart(op.part);
    else if (op.op === "append") this.grow(this.drawn[op.part], op.text);
    else if (op.op === "done") this.finish(op.part);
    else this.drawHeading();
  }

  addPart(/** @type {number} */ i) {
    const part = this.turn.parts[i];
    if (part.kind === "reasoning" || part.kind === "tool") {
      const details = make("details", `kimi-part kimi-${part.kind}`);
      const summary = make("summary", "kimi-summary", part.kind === "tool" ? "Tool " : "Reasoning");
      if (part.kind === "tool") summary.append(make("code", "kimi-name", part.title));
      details.open = part.open ?? !part.done;
      // "toggle" fires for our own folding too; a click (or a key) is the reader's.
      summary.addEventListener("click", () => (part.open = !details.open));
      const panel = make("div", "kimi-panel");
      details.append(summary, panel);
      this.body.append(details);
      this.drawn[i] = { element: details, panel, text: new Growing(panel), part };
    } else {
      const element = make("div", `kimi-part kimi-${part.kind}`);
      this.body.append(element);
      this.drawn[i] = { element, panel: null, text: new Growing(element), part };
    }
  }

  grow({ panel, text }, more) {
    const atEnd = panel && panel.scrollHeight - panel.scrollTop - panel.clientHeight < 8;
    text.append(more);
    if (atEnd) panel.scrollTop = panel.scrollHeight;
  }

  finish(i) {
    const { element, part } = this.drawn[i];
    if (element.tagName === "DETAILS" && part.open === null) element.open = false;
  }

  /** Keep the end in sight where it was in sight before. */
  follow() {
    if (this.inSight) this.end.scrollIntoView({ block: "nearest" });
  }

  remove() {
    clearInterval(this.timer);
    this.observer.disconnect();
  }
}

export default () => {
  const turn = new Turn();
  /** @type {Set<Drawing>} */ const drawings = new Set();

  const hear = (model) => (message) => {
    for (const op of message?.ops ?? []) {
      const known = turn.apply(op);
      if (known) for (const drawing of drawings) drawing.draw(known);
    }
    if (turn.lost && !turn.asked) {
      turn.asked = true;
      model.send({ resync: true });
    }
    for (const drawing of drawings) drawing.follow();
  };

  return {
    // Messages that come before a listener is attached are lost, and render() comes late.
    initialize({ model }) {
      model.on("msg:custom", hear(model));
    },
    render({ el }) {
      const drawing = new Drawing(turn, el);
      drawings.add(drawing);
      return () => {
        drawings.delete(drawing);
        drawing.remove();
      };
    },
  };
};
