// The door for JupyterLab and Notebook 7, which load this file as the container of a prebuilt
// extension: https://webpack.js.org/concepts/module-federation. It is written by hand, because a
// container is two functions, and everything that the plugins need is shared by the front end.

"use strict";

{
  let scope = {}; // shared modules, by name and version

  const newer = (a, b) => a.localeCompare(b, "en", { numeric: true }) > 0;

  /** Take a shared module: the version that is in use, or else the newest. */
  const shared = async (name) => {
    const versions = scope[name] ?? {};
    const [first, ...others] = Object.keys(versions);
    if (!first) throw new Error(`${name} is not shared`);
    const best = others.reduce((best, other) => {
      const [a, b] = [!!versions[best].loaded, !!versions[other].loaded];
      return a === b ? (newer(other, best) ? other : best) : a ? best : other;
    }, first);
    versions[best].loaded = 1; // or a later consumer might take another version of a singleton
    return (await versions[best].get())();
  };

  /** Make a plugin; none where the front end lacks a module of its. */
  const make = async (module) => {
    try {
      return [await (await module).plugin(shared)];
    } catch (error) {
      console.debug("kimi-magic:", error);
      return [];
    }
  };

  (window._JUPYTERLAB ??= {})["kimi-magic"] = {
    init(shareScope) {
      scope = shareScope;
    },
    async get() {
      const modules = [
        import("./highlighting.js"),
        import("./commands.js"),
        import("./records.js"),
      ];
      const plugins = (await Promise.all(modules.map(make))).flat();
      return () => ({ __esModule: true, default: plugins });
    },
  };
}
