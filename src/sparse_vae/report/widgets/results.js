// The page "All results", <all-results>: every run of the published suites in a table that is filtered and sorted, any
// column against any other, and a run opened. Data: each suite's runs.csv and histories.csv, and measures.json.

import {button, choice, COLOURS, labelled, make} from "./page.js";
import {draw} from "./plots.js";

const FOLDER = new URL("../", import.meta.url);
const FILTERS = ["dataset", "model", "latent_dim", "seed"];
const TITLES = {dataset: "data", model: "model", latent_dim: "J", seed: "seed", run: "run"};
const FIRST = ["mean_squared_error", "explained_variance", "negative_elbo", "active_fraction", "used_dimensions"];
const ROWS = 40; // shown at first
const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross"];
const TERMS = {total: "loss (nats)", reconstruction: "reconstruction (nats)", kl: "KL, as weighted (nats)",
               sparsity: "sparsity (nats)", active_fraction: "share of active dimensions", used_dimensions: "dimensions in use"};

document.head.append(make("link", {rel: "stylesheet", href: new URL("results.css", import.meta.url)}));

// Rows of a CSV table as objects; an empty cell is left out, a number is one.
export const readTable = (text) => {
  const cells = (line) => (line.includes('"')
    ? [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain)
    : line.split(","));
  const [names, ...rows] = text.trim().split(/\r?\n/).map(cells);
  return rows.map((row) => Object.fromEntries(row.flatMap((cell, i) => (
    cell === "" ? [] : [[names[i], Number.isNaN(Number(cell)) ? cell : Number(cell)]]))));
};

// Order of two cells: numbers before texts, those that are not there last.
export const compare = (a, b, down) => {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});
  return down ? -order : order;
};

const fetched = new Map();
const get = (path) => {
  if (!fetched.has(path)) {
    fetched.set(path, fetch(new URL(path, FOLDER)).then((answer) => {
      if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
      return answer.text();
    }));
  }
  return fetched.get(path);
};

const unique = (values) => [...new Set(values)].filter((value) => value !== undefined).sort((a, b) => compare(a, b));

// A panel of one plot in the form that plots.js draws: x and y are fields, title stands above.
const panel = (x, y, mark, {title = "", log = [], tooltip = [], name} = {}) => {
  const axis = (field, label) => ({field, type: "quantitative", title: label,
    scale: log.includes(field) ? {type: "log", nice: false} : {zero: false},
    axis: {tickCount: 5, ...(log.includes(field) ? {format: "~g", labelOverlap: true} : {})}});
  const hover = {name: `near${title}`.replace(/\W/g, ""), select: {type: "point", on: "pointerover", nearest: true, clear: "pointerout"}};
  const point = {mark: {type: "point", filled: true, size: 40}, params: [hover],
    encoding: {tooltip, opacity: {condition: {param: hover.name, empty: false, value: 1}, value: mark === "line" ? 0 : 0.75}}};
  if (name) point.params.push({name: "shown", select: {type: "point", fields: ["name"]}, bind: "legend"});
  return {width: 190, height: mark === "line" ? 120 : 260, title: {text: title, fontSize: 11},
    transform: name ? [{filter: {param: "shown"}}] : [],
    encoding: {x: axis("x", x), y: axis("y", y), ...name},
    layer: mark === "line" ? [{mark: {type: "line", strokeWidth: 1.6}}, point] : [point]};
};

const specification = (concat, values, columns) => ({
  data: {values}, concat, columns, spacing: 24, config: {axis: {labelFlush: false}, view: {stroke: null}}});

// Without the library the tables still answer.
const tryDraw = (target, ...rest) => draw(target, ...rest).catch((error) => {
  console.warn(error);
  target.replaceChildren(make("p", {}, "The plot cannot be drawn here."));
});

class AllResults extends HTMLElement {
  async connectedCallback() {
    this.suites = this.dataset.suites.split(" ");
    const asked = new URLSearchParams(location.hash.slice(1));
    this.state = {suite: this.suites[0], x: "active_fraction", y: "mean_squared_error", sort: "run", log: "", ...Object.fromEntries(asked)};
    if (!this.suites.includes(this.state.suite)) this.state.suite = this.suites[0];
    try {
      this.measures = JSON.parse(await get("measures.json"));
      await this.open();
    } catch (error) {
      console.warn(error);
      this.append(make("p", {role: "alert"}, "The tables cannot be read here. They are for download above."));
    }
  }

  title = (name) => this.measures[name]?.title ?? TITLES[name] ?? name.replaceAll("_", " ");

  shown = (name, value) => {
    if (value === undefined) return "—";
    if (typeof value !== "number") return value;
    const {digits, scale = 1} = this.measures[name] ?? {};
    const text = digits === undefined ? String(value) : (scale * value).toFixed(digits);
    return text.replace(/^-/, "−");
  };

  set(changes) {
    Object.assign(this.state, changes);
    const kept = Object.entries(this.state).filter(([, value]) => value !== undefined && value !== "");
    history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
  }

  async open() {
    const {suite} = this.state;
    const runs = readTable(await get(`${suite}/runs.csv`));
    if (suite !== this.state.suite) return; // another one was chosen meanwhile
    this.runs = runs;
    this.columns = unique(runs.flatMap((run) => Object.keys(run))).filter((name) => !name.startsWith("environment."));
    if (!this.state.dataset && !location.hash) this.state.dataset = String(runs[0].dataset);
    this.numbers = this.columns.filter((name) => runs.some((run) => typeof run[name] === "number"));
    this.all = false;
    const columns = this.state.columns?.split(" ") ?? FIRST;
    this.picked = columns.filter((name) => this.columns.includes(name));
    for (const [axis, otherwise] of [["x", "active_fraction"], ["y", "mean_squared_error"]]) {
      if (!this.numbers.includes(this.state[axis])) this.state[axis] = this.numbers.includes(otherwise) ? otherwise : this.numbers[0];
    }
    this.build();
    this.update();
  }

  build() {
    const {suites, state} = this;
    const select = (label, options, value, onchange, titles = options) => {
      const control = choice(titles, (index) => onchange(options[index]));
      control.value = options.indexOf(value);
      return labelled(label, control);
    };
    const filters = FILTERS.map((name) => {
      const values = ["", ...unique(this.runs.map((run) => run[name])).map(String)];
      if (!values.includes(state[name] ?? "")) delete state[name];
      return select(TITLES[name], values, state[name] ?? "", (value) => { this.set({[name]: value}); this.update(); },
                    ["all", ...values.slice(1)]);
    });
    const text = make("input", {type: "search", value: state.text ?? "", placeholder: "part of a run's name"});
    text.addEventListener("input", () => { this.set({text: text.value}); this.update(); });
    const axes = ["x", "y"].map((axis) => select(axis, this.numbers, state[axis], (name) => { this.set({[axis]: name}); this.plot(); },
                                                 this.numbers.map(this.title)));
    const logs = ["x", "y"].map((axis) => {
      const box = make("input", {type: "checkbox", checked: (state.log ?? "").includes(axis)});
      box.onchange = () => {
        this.set({log: ["x", "y"].filter((each) => (each === axis ? box.checked : (state.log ?? "").includes(each))).join("")});
        this.plot();
      };
      return labelled(`log ${axis}`, box);
    });
    const offered = this.columns.filter((name) => this.measures[name] || !FILTERS.includes(name) && name !== "run");
    const boxes = offered.map((name) => {
      const box = make("input", {type: "checkbox", checked: this.picked.includes(name)});
      box.onchange = () => {
        this.picked = offered.filter((each) => (each === name ? box.checked : this.picked.includes(each)));
        this.set({columns: this.picked.join(" ")});
        this.update();
      };
      return make("label", {title: this.measures[name]?.description ?? "setting"}, box, make("span", {}, this.title(name)));
    });
    this.count = make("p", {role: "status"});
    this.frame = make("div", {class: "results-table", role: "region", tabIndex: 0, "aria-label": "Runs"});
    this.figure = make("div", {class: "plot-frame"});
    this.opened = make("section", {class: "results-run", hidden: true, tabIndex: -1, "aria-label": "One run"});
    this.replaceChildren(
      make("div", {class: "results-controls", role: "group", "aria-label": "Which runs"},
           select("suite", suites, state.suite, (suite) => {
             for (const name of FILTERS) delete state[name];
             this.set({suite, run: undefined});
             this.open();
           }), ...filters, labelled("name", text)),
      this.count,
      make("div", {class: "results-controls", role: "group", "aria-label": "Plot"}, ...axes, ...logs), this.figure,
      make("details", {}, make("summary", {}, "Columns of the table"), make("div", {class: "results-columns"}, ...boxes)),
      this.frame, this.opened);
  }

  // The runs that the filters leave, in the order that is asked for.
  rows() {
    const {state} = this, down = state.sort.startsWith("-"), by = state.sort.replace(/^-/, "");
    const text = (state.text ?? "").toLowerCase();
    return this.runs
      .filter((run) => FILTERS.every((name) => !state[name] || String(run[name]) === state[name]) && run.run.toLowerCase().includes(text))
      .sort((a, b) => compare(a[by], b[by], down));
  }

  update() {
    const rows = this.rows(), {state} = this;
    this.count.textContent = `${rows.length} of ${this.runs.length} runs`;
    const columns = ["run", ...FILTERS, ...this.picked.filter((name) => !FILTERS.includes(name))];
    const heads = columns.map((name) => {
      const sorted = state.sort.replace(/^-/, "") === name, down = state.sort.startsWith("-");
      const head = button(`${this.title(name)}${sorted ? (down ? " ↓" : " ↑") : ""}`, () => {
        this.set({sort: sorted && !down ? `-${name}` : name});
        this.update();
        this.frame.querySelector(`[data-column="${name}"]`)?.focus();
      }, {"data-column": name, title: this.measures[name]?.description ?? ""});
      return make("th", {scope: "col", "aria-sort": sorted ? (down ? "descending" : "ascending") : "none"}, head);
    });
    const body = rows.slice(0, this.all ? undefined : ROWS).map((run) => make("tr", {}, ...columns.map((name) => (
      name === "run" ? make("th", {scope: "row"}, button(run.run, () => this.show(run.run, true)))
                     : make("td", {}, this.shown(name, run[name]))))));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
    const more = rows.length > body.length ? [button(`Show all ${rows.length} runs`, () => { this.all = true; this.update(); })] : [];
    this.frame.replaceChildren(table, ...more);
    this.plot();
    if (state.run && this.runs.some(({run}) => run === state.run)) this.show(state.run);
  }

  async plot() {
    const {x, y, log = ""} = this.state, scale = (name) => this.measures[name]?.scale ?? 1;
    const values = this.rows().filter((run) => typeof run[x] === "number" && typeof run[y] === "number")
      .map((run) => ({run: run.run, name: String(run.model), x: scale(x) * run[x], y: scale(y) * run[y]}))
      .filter((point) => (!log.includes("x") || point.x > 0) && (!log.includes("y") || point.y > 0));
    const turn = this.turn = {};
    if (!values.length) {
      this.figure.replaceChildren(make("p", {}, `No run has both ${this.title(x)} and ${this.title(y)}.`));
      return;
    }
    const names = unique(values.map(({name}) => name)), own = {field: "name", type: "nominal", title: null};
    const name = {color: {...own, scale: {domain: names, range: names.map((_, i) => COLOURS[i % COLOURS.length])}},
                  shape: {...own, scale: {domain: names, range: names.map((_, i) => SHAPES[(i + Math.floor(i / COLOURS.length)) % SHAPES.length])}}};
    const tooltip = [{field: "run", type: "nominal"}, ...["x", "y"].map((axis) => (
      {field: axis, type: "quantitative", title: this.title(this.state[axis]), format: ".5~g"}))];
    const view = panel(this.title(x), this.title(y), "point", {log: [...log], tooltip, name});
    await tryDraw(this.figure, specification([view], values, 1), {
      alt: `A point for each of ${values.length} runs: ${this.title(y)} against ${this.title(x)}. The table has their values.`,
      pick: (datum) => { if (turn === this.turn && datum.run) this.show(datum.run, true); }});
  }

  async show(name, moved = false) {
    this.set({run: name});
    const run = this.runs.find((each) => each.run === name), {suite} = this.state;
    const known = Object.keys(run).filter((key) => this.measures[key]);
    const settings = Object.keys(run).filter((key) => !this.measures[key] && key !== "run" && key !== "seconds");
    const own = settings.filter((key) => !key.startsWith("environment."));
    const list = (keys) => make("dl", {}, ...keys.map((key) => make("div", {title: this.measures[key]?.description ?? ""},
      make("dt", {}, this.title(key.replace("environment.", ""))), make("dd", {}, this.shown(key, run[key])))));
    const command = ["sparse-vae train", ...own.filter((key) => !["device", "precision", "channels_last"].includes(key))
      .map((key) => `${key}=${run[key]}`)].join(" ");
    const curves = make("div", {class: "plot-frame"});
    this.opened.hidden = false;
    this.opened.replaceChildren(
      make("h3", {}, name), button("Close", () => { this.opened.hidden = true; this.set({run: undefined}); }),
      make("h4", {}, "Measures"), list(known), make("h4", {}, "Training"), curves,
      make("h4", {}, "Settings"), list(own), make("h4", {}, "Where it ran"),
      list([...settings.filter((key) => key.startsWith("environment.")), "seconds"]),
      make("p", {}, "To train it again, alone (in JupyterLab: the notebook ", make("code", {}, "train"), "):"),
      make("pre", {tabIndex: 0}, make("code", {}, command)));
    if (moved) {
      this.opened.scrollIntoView({block: "start"});
      this.opened.focus({preventScroll: true});
    }
    const [head, ...lines] = (await get(`${suite}/histories.csv`)).split("\n");
    const histories = readTable([head, ...lines.filter((line) => line.startsWith(`${name},`))].join("\n"));
    if (this.state.run !== name) return;
    const parts = ["train", "validation", "test"];
    const terms = Object.keys(TERMS).filter((term) => parts.some((part) => histories.some((row) => `${part}_${term}` in row)));
    const values = histories.flatMap((row) => terms.flatMap((term) => parts.filter((part) => `${part}_${term}` in row).map((part) => (
      {panel: TERMS[term], name: part, x: row.epoch, y: row[`${part}_${term}`]}))));
    if (!values.length) {
      curves.append(make("p", {}, "It was fitted at once, without epochs."));
      return;
    }
    const names = parts.filter((part) => values.some((point) => point.name === part));
    const colour = {color: {field: "name", type: "nominal", title: null, scale: {domain: names, range: COLOURS.slice(0, names.length)}}};
    const tooltip = [{field: "name", type: "nominal"}, {field: "x", type: "quantitative", title: "epoch"},
                     {field: "y", type: "quantitative", title: "value", format: ".5~g"}];
    const views = terms.map((term, place) => {
      const view = panel("epoch", "", "line", {title: TERMS[term], tooltip, name: colour});
      if (place) view.layer[1].params.pop(); // which names are shown, the first panel says for all
      return {...view, transform: [{filter: `datum.panel === ${JSON.stringify(TERMS[term])}`}, ...view.transform]};
    });
    await tryDraw(curves, specification(views, values, 2), {alt: `Training of ${name} by epoch: ${terms.map((term) => TERMS[term]).join(", ")}.`});
  }
}

customElements.define("all-results", AllResults);
