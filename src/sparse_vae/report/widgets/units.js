// All units of a model: what each adds, how often it is on, what it stands for; each opens, and has an address.

import {makePad, strokesToPicture} from "./draw.js";
import {button, choice, COLOURS, drawBars, drawChange, drawObservation, isPicture, labelled, make, onFrame, opener, percent,
        readSheet, shortNumber} from "./page.js";
import {readBytes} from "./runtime.js";

const ORDERS = {
  "use": ({rate}, j) => -rate[j],
  "selectivity": ({selectivity}, j) => -selectivity[j],
  "KL": ({kl}, j) => -kl[j],
  "extent": ({extent}, j) => extent[j],
  "number": ({unit}, j) => unit[j],
};
const NEEDS = {"use": "rate", "selectivity": "selectivity", "KL": "kl", "extent": "extent", "number": "unit"};

const bars = (values, name, properties) => {
  const canvas = make("canvas", {role: "img", className: "widget-bars", ariaLabel: name});
  requestAnimationFrame(() => drawBars(canvas, values, properties));
  return canvas;
};

const titled = (title, ...children) => make("div", {}, make("p", {className: "widget-title"}, title), ...children);

export const units = async (root, data, base, address) => {
  const {models, shape, limits, classes, frame} = data, open = opener(models, base), asked = address.read();
  let number = Math.max(models.findIndex(({title}) => title === asked.model), 0);
  let table, responses, pictures, place, order = "use", wanted = -1;

  const grid = make("div", {className: "widget-units"}), panel = make("div", {className: "widget-unit", role: "group", hidden: true});
  const counted = make("p", {className: "widget-note", role: "status"}), tools = make("div", {className: "widget-controls"});
  const change = (j, name) => {
    const canvas = make("canvas", name ? {role: "img", ariaLabel: name} : {});
    drawChange(canvas, responses[j], shape);
    return canvas;
  };
  const observed = (row, name) => {
    const canvas = make("canvas", {role: "img", ariaLabel: name});
    drawObservation(canvas, pictures[row], shape, limits);
    return canvas;
  };
  const facts = (j) => [
    `on for ${percent(table.rate[j])}`,
    ...(table.selectivity ? [`selectivity ${shortNumber(table.selectivity[j])}, most for ${classes[table.preferred[j]]}`] : []),
    ...(table.kl ? [`KL ${shortNumber(table.kl[j])} nats`] : []),
    ...(table.extent?.[j] ? [`90% of what it adds lies in ${percent(table.extent[j])} of the picture`] : [])];

  const list = () => {
    const shown = table.unit.filter((j) => wanted < 0 || table.preferred[j] === wanted);
    shown.sort((a, b) => ORDERS[order](table, a) - ORDERS[order](table, b) || a - b);
    grid.replaceChildren(...shown.map((j) => button(make("span", {}, change(j), `z${j}`), () => show(j), {
      title: facts(j).join("; "), "data-unit": j})));
    const used = table.rate.filter((rate) => rate >= 0.01).length;
    counted.textContent = `${shown.length} of ${table.unit.length} units; ${used} are on for at least 1% of the test data.`;
  };

  const show = (j, scroll = true) => {
    const {title, latentDim} = models[number], link = make("a", {href: "#"}, "address of this unit");
    address.write({model: title, unit: j});
    link.href = location.href;
    const parts = [make("p", {className: "widget-title", tabIndex: -1}, `Unit ${j} of ${latentDim}, ${title}`),
                   make("p", {}, `${facts(j).join("; ")}. `, link),
                   titled("What it adds", change(j, "what the unit adds: blue is more, orange is less"))];
    const strongest = (table.strongest[j] ?? []).filter((index) => place.has(index));
    if (strongest.length) {
      parts.push(titled("Where it is strongest", make("div", {className: "widget-strip"}, ...strongest.map((index) => (
        observed(place.get(index), `test observation ${index}`))))));
    }
    if (Number.isFinite(table.low?.[j]) && table.histogram?.[j]) { // else it never is on
      const [low, high] = [table.low[j], table.high[j]].map(shortNumber);
      parts.push(titled(`Its values where it is on, ${low} to ${high}`,
                        bars(table.histogram[j], `a histogram of its values from ${low} to ${high}`)));
    }
    const shares = table.classes?.[j] ?? table.meansOfClasses?.[j];
    if (shares) {
      const of = table.classes ? "Of the observations that turn it on, per cent of each class" : "Its mean size in each class";
      parts.push(titled(of, bars(shares, `${of}: ${classes.map((name, i) => `${name} ${shares[i]}`).join(", ")}`, {
        colours: (i) => COLOURS[i % COLOURS.length], low: 0}),
        make("p", {className: "widget-key"}, ...classes.map((name, i) => (
          make("span", {style: `--colour: ${COLOURS[i % COLOURS.length]}`}, name))))));
    }
    if (table.nearest?.[j]) {
      parts.push(titled("Units that add the most similar", make("div", {className: "widget-strip"}, ...table.nearest[j].map(
        (other, i) => button(make("span", {}, change(other), `z${other}, ${table.cosines[j][i]}%`), () => show(other), {
          title: "open it; the cosine of what the two add, in per cent"})))));
    }
    const own = make("div", {});
    parts.push(titled("In an observation, or in your drawing", own),
               button("Close", () => { panel.hidden = true; address.write({model: title}); }, {className: "widget-button"}));
    panel.replaceChildren(...parts);
    panel.hidden = false;
    panel.ariaLabel = `unit ${j}`;
    if (scroll) { panel.scrollIntoView({block: "nearest"}); panel.firstChild.focus(); }
    inDrawing(own, j, strongest);
  };

  // The unit at any value, in what the reader draws or else in the observation for which it is strongest.
  const inDrawing = async (node, j, strongest) => {
    node.textContent = "loading the model …";
    const model = await open(number), canDraw = isPicture(shape) && shape[0] === 1;
    const [without, withIt] = ["without it", "with it"].map((name) => make("canvas", {role: "img", ariaLabel: name}));
    const low = Math.min(table.low?.[j] ?? 0, 0), high = Math.max(table.high?.[j] ?? 0, 0);
    const reach = low < high ? [low, high] : [0, table.magnitude?.[j] || 1];
    const slider = make("input", {type: "range", min: reach[0], max: reach[1], step: (reach[1] - reach[0]) / 100});
    const value = make("output");
    let z;
    const draw = () => {
      const amount = Number(slider.value), at = (size) => z.map((entry, i) => (i === j ? size : entry));
      drawObservation(without, model.decode(at(0)), shape, limits);
      drawObservation(withIt, model.decode(at(amount)), shape, limits);
      value.textContent = shortNumber(amount);
    };
    const take = (x) => {
      z = model.encode(x).code;
      Object.assign(slider, {min: Math.min(slider.min, z[j]), max: Math.max(slider.max, z[j])});
      slider.value = z[j] || (Math.abs(reach[1]) > Math.abs(reach[0]) ? reach[1] : reach[0]);
      told.textContent = z[j] ? `here it is ${shortNumber(z[j])}` : "here it is off; the slider switches it on";
      draw();
    };
    const told = make("p", {role: "status"});
    slider.oninput = draw;
    const soon = onFrame(() => take(strokesToPicture(pad.strokes, shape, frame).map(
      (ink) => limits[0] + (limits[1] - limits[0]) * ink)));
    const pad = makePad(frame.fill, (strokes) => { if (strokes.length) soon(); });
    const pictured = make("div", {className: "widget-strip"},
                          make("figure", {}, without, make("figcaption", {}, "without it")),
                          make("figure", {}, withIt, make("figcaption", {}, "with it")));
    node.replaceChildren(make("div", {className: "widget-inputs"},
      ...(canDraw ? [make("div", {}, pad.canvas, button("Clear", () => pad.set([]), {className: "widget-button"}))] : []),
      make("div", {}, pictured, labelled("its value: ", slider), value, told)));
    take(strongest.length ? pictures[place.get(strongest[0])] : new Float32Array(shape.reduce((a, b) => a * b, 1)));
  };

  const choose = async (index) => {
    number = index;
    counted.textContent = "loading …";
    const own = models[index].units;
    const [bytes, ...sheets] = await Promise.all([readBytes(own.table, base), readSheet(own.responses, base),
                                                  readSheet(own.pictures, base)]);
    table = JSON.parse(new TextDecoder().decode(bytes));
    [responses, pictures] = sheets;
    place = new Map(own.rows.map((row, at) => [row, at]));
    const orders = Object.keys(ORDERS).filter((name) => table[NEEDS[name]]);
    if (!orders.includes(order)) order = "use";
    const sorter = choice(orders, (at) => { order = orders[at]; list(); });
    sorter.value = orders.indexOf(order);
    const classed = table.preferred ? [labelled("most for: ", choice(["any class", ...classes], (at) => {
      wanted = at - 1;
      list();
    }))] : [];
    wanted = -1;
    tools.replaceChildren(labelled("Model: ", select), labelled("sorted by: ", sorter), ...classed);
    panel.hidden = true;
    list();
  };
  const select = choice(models.map(({title}) => title), async (index) => {
    await choose(index);
    address.write({model: models[index].title});
  });
  select.value = number;
  root.replaceChildren(tools, counted, panel, grid);
  await choose(number);
  if (asked.unit && responses[asked.unit]) show(Number(asked.unit), false);
};
