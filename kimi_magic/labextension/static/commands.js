// Ask, Fix and Explain as commands. Each writes an ordinary cell below the active one, which the
// user could have typed. The toolbar button and the entries of the menu Run are in commands.json:
// settings can move or hide them.

const NAMES = /^[^\W\d]\w*(?:\s*,\s*[^\W\d]\w*)*$/;
const LOAD = "%load_ext kimi_magic\n";

const COMMANDS = {
  "kimi-magic:ask": ["Ask Kimi", "Insert a %%kimi cell below, for a question of yours"],
  "kimi-magic:fix": [
    "Fix the Last Error with Kimi",
    "Ask Kimi why the last cell failed, and for a corrected one (%kimi fix)",
  ],
  "kimi-magic:explain": [
    "Explain the Cell with Kimi",
    "Ask Kimi what the active cell does (%kimi explain)",
  ],
};

/** Return the variables that are selected in a cell, as `%%kimi -v` takes them; "" for none. */
const selectedNames = (cell) => {
  const state = cell?.editor?.editor?.state; // CodeMirror's
  if (!state || cell.model.type !== "code") return "";
  const { from, to } = state.selection.main;
  const text = state.sliceDoc(from, to).trim();
  return NAMES.test(text) ? text.replaceAll(/\s/g, "") : "";
};

/** Insert a code cell; returns its widget. */
const insert = ({ content: notebook, context }, index, source) => {
  const cell = { cell_type: "code", source, metadata: { trusted: true } }; // as Lab's own new cells
  context.model.sharedModel.insertCell(index, cell);
  return notebook.widgets[index];
};

/** Insert a code cell below the active one, and make it the active one. */
const insertBelow = (panel, source) => {
  const notebook = panel.content;
  const index = notebook.activeCell ? notebook.activeCellIndex + 1 : notebook.widgets.length;
  const cell = insert(panel, index, source);
  notebook.deselectAll();
  notebook.activeCellIndex = index;
  notebook.scrollToItem(index).catch(() => {});
  return cell;
};

const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

/** Tell if a kernel has the magics. Completion leaves no trace in it, as running code would. */
const isLoaded = async (kernel) => {
  const { content } = await kernel.requestComplete({ code: "%%kimi", cursor_pos: 6 });
  if (content.status !== "ok") throw new Error("The kernel was interrupted.");
  return content.matches.includes("%%kimi");
};

/** Return the number under which a kernel has run a source; 0 if it has not. */
const numberOf = async (kernel, { executionCount: number, source }) => {
  if (!number) return 0;
  const range = { hist_access_type: "range", session: 0, start: number, stop: number + 1 };
  const { content } = await kernel.requestHistory({ ...range, raw: true, output: false });
  return content.history?.[0]?.[2] === source.replace(/\n+$/, "") ? number : 0;
};

/** Write the question for a cell that has not run in this kernel. */
const quoted = (source) => {
  const fence = "`".repeat(Math.max(2, ...source.match(/`+/g)?.map((run) => run.length) ?? []) + 1);
  return `%%kimi --raw\nExplain what this cell does.\n\n${fence}python\n${source}\n${fence}`;
};

/** Make the plugin with the commands. */
export const plugin = async (shared) => {
  const { ICommandPalette } = await shared("@jupyterlab/apputils");
  const { CodeCell } = await shared("@jupyterlab/cells");
  const { INotebookTracker, NotebookActions } = await shared("@jupyterlab/notebook");
  const { Menu } = await shared("@lumino/widgets");

  const run = (panel, cells) =>
    NotebookActions.runCells(panel.content, cells, panel.sessionContext);

  const ask = async (panel) => {
    const names = selectedNames(panel.content.activeCell);
    const cell = insertBelow(panel, names ? `%%kimi -v ${names}\n` : "%%kimi\n");
    panel.activate();
    await cell.ready;
    await painted(); // the palette and the notebook move the focus later, too
    panel.content.mode = "edit";
    cell.editor?.setCursorPosition({ line: 1, column: 0 });
    cell.editor?.focus();
    const { kernel } = panel.sessionContext.session ?? {};
    if (!kernel || (await isLoaded(kernel)) || cell.isDisposed) return;
    const index = panel.content.widgets.indexOf(cell);
    // Not as the notebook runs cells: that would take the focus from someone who is writing.
    await CodeCell.execute(insert(panel, index, LOAD.trim()), panel.sessionContext);
  };

  /** Insert a cell at once, complete it when the kernel has told what it needs, and run it. */
  const insertAndRun = async (panel, draft, complete) => {
    const cell = insertBelow(panel, draft);
    const { sharedModel } = cell.model;
    panel.activate();
    panel.content.mode = "command";
    const { kernel } = panel.sessionContext.session ?? {};
    const cells = [cell];
    if (kernel) {
      const [loaded, source] = await Promise.all([isLoaded(kernel), complete(kernel)]);
      if (cell.isDisposed || sharedModel.source !== draft) return; // the user was faster
      sharedModel.setSource(loaded || source.startsWith("%%") ? source : LOAD + source);
      if (!loaded && source.startsWith("%%")) {
        cells.unshift(insert(panel, panel.content.widgets.indexOf(cell), LOAD.trim()));
      }
    }
    await run(panel, cells);
  };

  const fix = (panel) => insertAndRun(panel, "%kimi fix", async () => "%kimi fix");

  const explain = (panel) => {
    const { model } = panel.content.activeCell ?? {};
    const { executionCount } = model ?? {};
    const source = model?.type === "code" ? model.sharedModel.source : "";
    return insertAndRun(panel, "%kimi explain", async (kernel) => {
      if (!source.trim()) return "%kimi explain"; // the cell that ran last
      const number = await numberOf(kernel, { executionCount, source });
      return number ? `%kimi explain ${number}` : quoted(source);
    });
  };

  const isPython = (panel) => ["", "python"].includes(panel?.model?.defaultKernelLanguage);

  const activate = ({ commands }, tracker, palette) => {
    if (!tracker) return; // pages of Notebook 7 that show no notebook
    const actions = { "kimi-magic:ask": ask, "kimi-magic:fix": fix, "kimi-magic:explain": explain };
    for (const [name, [label, caption]] of Object.entries(COMMANDS)) {
      commands.addCommand(name, {
        ...{ label, caption },
        isEnabled: () => isPython(tracker.currentWidget),
        execute: async () => {
          try {
            await actions[name](tracker.currentWidget);
          } catch (error) {
            console.debug("kimi-magic:", error); // the kernel was restarted, or its cells cancelled
          }
        },
      });
      palette?.addItem({ command: name, category: "Kimi" });
    }
    const menu = new Menu({ commands });
    let focused = null; // before the menu had the focus
    menu.title.label = "Kimi";
    menu.aboutToClose.connect(() => focused?.focus());
    for (const command of Object.keys(COMMANDS)) menu.addItem({ command });
    commands.addCommand("kimi-magic:open-menu", {
      ...{ label: "Kimi", caption: "Ask, fix or explain with Kimi" },
      execute: () => {
        const bar = tracker.currentWidget?.toolbar.node;
        const item = bar?.querySelector("[data-jp-item-name='kimi']") ?? bar; // or it has no room
        const { left = 0, bottom = 0 } = item?.getBoundingClientRect() ?? {};
        focused = document.activeElement;
        menu.open(left, bottom);
        menu.activateNextItem();
      },
    });
    tracker.currentChanged.connect(() => commands.notifyCommandChanged());
  };

  return {
    id: "kimi-magic:commands",
    description: "Commands, a toolbar button and menu entries: Ask, Fix and Explain.",
    autoStart: true,
    optional: [INotebookTracker, ICommandPalette],
    activate,
  };
};
