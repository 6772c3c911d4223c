// The module of each turn's widget. live.js and live.css are in the trait "script" of the first
// one; the page keeps them, and for later turns the kernel leaves the trait empty. A page that has
// not seen the first one asks for it.
const VERSION = "{version}";
const scripts = (globalThis[Symbol.for("kimi_magic.scripts")] ??= {});

const unpack = async (packed) => {
  const inflated = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const { script, style } = JSON.parse(await new Response(inflated).text());
  const element = document.createElement("style");
  element.textContent = style;
  document.head.append(element);
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  try {
    return (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
  }
};

const receive = (model) =>
  new Promise((resolve) => {
    let done = false;
    const look = () => {
      const packed = model.get("script");
      done ||= packed?.byteLength > 0;
      if (done) resolve(packed);
      return done;
    };
    const ask = (pause) => {
      if (done || scripts[VERSION] || pause > 8000) return;
      model.send({ script: true });
      setTimeout(ask, pause, 2 * pause);
    };
    if (look()) return;
    model.on("change:script", look);
    ask(250);
  });

export default () => {
  let view, loaded;
  return {
    // Nothing is awaited here: anywidget holds the kernel's messages back until this returns, also
    // the one with the script.
    initialize({ model }) {
      const early = [];
      const keep = (message) => early.push(message);
      model.on("msg:custom", keep);
      const load = async () => {
        scripts[VERSION] ??= await unpack(await receive(model));
        model.off("msg:custom", keep);
        view = scripts[VERSION]();
        view.initialize({ model, early });
      };
      loaded = load();
    },
    async render(props) {
      await loaded;
      return view.render(props);
    },
  };
};
