// A page that was loaded while a cell runs asks the kernel for its widgets, and gets no answer before
// the kernel is idle. But it makes a widget that the kernel announces of its own accord: this one,
// which puts the missing one into its place.
const MOUNT = "application/vnd.jupyter.widget-view+json";

/** The runs of cells that this page has not seen from the beginning. */
const runs = (globalThis[Symbol.for("kimi_magic.late")] ??= new Set());

/** Find the cell, and in it the output that shows the widget or else the latest record. */
const find = (cells, { cell, id }) => {
  let found = null;
  for (let i = 0; i < (cells?.length ?? 0); i++) {
    const { id: its, outputs } = cells.get(i);
    let record = -1;
    for (let j = 0; j < (outputs?.length ?? 0); j++) {
      const { data, metadata } = outputs.get(j);
      if (data?.[MOUNT]?.model_id === id) return { outputs, mount: j, record };
      if (metadata?.kimi_magic) record = j;
    }
    if (outputs && cell && its === cell) found = { outputs, mount: -1, record };
  }
  return found;
};

/** Send by the control channel, which a busy kernel reads, in the place of the shell's. */
const redirect = (comm, kernel, id) => {
  comm.send = (data, _callbacks, metadata = {}) => {
    const msg_id = Array.from({ length: 4 }, () => Math.random().toString(36).slice(2)).join("");
    const { clientId: session, username } = kernel;
    const date = new Date().toISOString();
    const header = { msg_id, msg_type: "comm_msg", session, username, date, version: "5.3" };
    const content = { comm_id: id, data };
    const message = { header, parent_header: {}, metadata, content, channel: "control", buffers: [] };
    kernel.sendControlMessage(message, false, true);
    return msg_id;
  };
};

export default {
  async initialize({ model }) {
    const manager = model.widget_manager;
    const { kernel, context } = manager ?? {};
    const missing = model.get("missing");
    const { id, run, data, state } = missing;
    const isOpen = manager?.has_model?.(id);
    const before = kernel?.sendControlMessage && find(context?.model?.cells, missing);
    // A page that was there from the beginning shows it.
    if (!before || (isOpen && (!runs.has(run) || before.mount >= 0))) return;
    if (isOpen) {
      const known = await manager.get_model(id);
      redirect(known.comm, kernel, id);
      known.set("late", true);
    } else {
      const comm = await manager._create_comm("jupyter.widget", id);
      redirect(comm, kernel, id);
      const names = { model_name: state._model_name, model_module: state._model_module };
      const options = { ...names, model_module_version: state._model_module_version };
      await manager.new_model({ ...options, model_id: id, comm }, { ...state, late: true });
    }
    const { outputs, mount, record } = find(context.model.cells, missing);
    const at = mount >= 0 || runs.has(run) ? mount : record; // the record is of an earlier run
    runs.add(run);
    const output = (data) => ({ output_type: "display_data", data, metadata: {} });
    if (at < 0) outputs.add(output(data));
    else {
      // The renderer that says "Loading widget…" must go: used again, it cannot be removed later.
      outputs.set(at, output({ "text/plain": "" }));
      outputs.set(at, output(data));
    }
  },
};
