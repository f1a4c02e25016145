// Put something in: a drawing or a test picture, with noise, into several models at once; their codes and what they
// make of them, side by side.

import {button, choice, COLOURS, drawBars, drawObservation, isPicture, labelled, make, onFrame, opener, randomFrom,
        readSheet, shortNumber, walkable} from "./page.js";
import {makePlane} from "./plane.js";
import {normalDraw} from "./runtime.js";

const SHOWN = 4, FEWER = 3; // models at first, on their page and where it is small
const PAD = 280, FINE = 4, PEN = 0.075; // of the side of a picture
const NOISES = {
  none: () => (value) => value,
  gaussian: (level, [low, high], random) => (value) => (
    Math.min(Math.max(value + level * (high - low) * normalDraw(random), low), high)),
  "salt and pepper": (level, [low, high], random) => (value) => {
    const hit = random() < level, up = random() < 0.5; // both are drawn, so that more noise adds to less
    return hit ? (up ? high : low) : value;
  },
  masking: (level, _, random) => (value) => (random() < level ? 0 : value),
};

// --- a pad to draw on

// What strokes look like as an observation of the data set: `frame` says how large its pictures fill it, whether their
// centre of mass or of their box is in the middle, and whether outlines are filled. Points are in shares of the pad.
export const strokesToPicture = (strokes, [, height, width], {box, mass, fill}) => {
  const points = strokes.flat(), side = Math.max(height, width), pen = PEN * side;
  const out = new Float32Array(height * width);
  if (!points.length) return out;
  const [left, right, top, bottom] = [
    Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x)),
    Math.min(...points.map(([, y]) => y)), Math.max(...points.map(([, y]) => y))];
  const scale = box ? (box - pen) / Math.max(right - left, bottom - top, 0.15) : side - pen;
  const middle = box ? [(left + right) / 2, (top + bottom) / 2] : [0.5, 0.5];
  const render = (dx, dy) => {
    const canvas = make("canvas", {width: width * FINE, height: height * FINE});
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.scale(FINE, FINE);
    trace(context, strokes.map((stroke) => stroke.map(([x, y]) => [
      width / 2 + dx + scale * (x - middle[0]), height / 2 + dy + scale * (y - middle[1])])), pen, fill);
    const {data} = context.getImageData(0, 0, canvas.width, canvas.height), made = new Float32Array(height * width);
    for (let y = 0, i = 3; y < canvas.height; y++) {
      const row = width * Math.floor(y / FINE);
      for (let x = 0; x < width; x++) for (let n = 0; n < FINE; n++, i += 4) made[row + x] += data[i] / (255 * FINE * FINE);
    }
    return made;
  };
  const first = render(0, 0);
  if (!mass) return first;
  let total = 0, x = 0, y = 0;
  first.forEach((value, i) => { total += value; x += value * (i % width); y += value * Math.floor(i / width); });
  return render(Math.round(width / 2 - x / total), Math.round(height / 2 - y / total));
};

const trace = (context, strokes, pen, fill) => {
  Object.assign(context, {lineWidth: pen, lineCap: "round", lineJoin: "round", strokeStyle: "#000"});
  for (const stroke of strokes) {
    context.beginPath();
    stroke.forEach(([x, y]) => context.lineTo(x, y));
    if (stroke.length === 1) context.lineTo(stroke[0][0] + 0.01, stroke[0][1]);
    if (fill && stroke.length > 2) {
      context.fillStyle = "rgb(0 0 0 / 60%)";
      context.fill();
    }
    context.stroke();
  }
};

// `onchange(strokes)` hears of every change. With the keyboard: arrows move the pen, the space bar sets and lifts it.
export const makePad = (fill, onchange) => {
  const canvas = make("canvas", {width: 2 * PAD, height: 2 * PAD, className: "widget-pad", tabindex: 0,
                                 role: "application", "aria-label": "a pad to draw on: with a pointer, or with the " +
                                 "arrow keys, which move the pen, and the space bar, which sets it down and lifts it"});
  let strokes = [], cursor = null, down = false, box;
  const draw = () => {
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, 2 * PAD, 2 * PAD);
    trace(context, strokes.map((stroke) => stroke.map(([x, y]) => [2 * PAD * x, 2 * PAD * y])), 2 * PAD * PEN, fill);
    if (cursor) {
      Object.assign(context, {lineWidth: 3, strokeStyle: down ? "#0072B2" : "#777"});
      context.strokeRect(2 * PAD * cursor[0] - 14, 2 * PAD * cursor[1] - 14, 28, 28);
    }
  };
  const set = (made) => { strokes = made; draw(); onchange(strokes); };
  const place = ({clientX, clientY}) => {
    const {left, top, width, height} = box;
    return [(clientX - left) / width, (clientY - top) / height].map((share) => Math.min(Math.max(share, 0), 1));
  };
  const add = (point) => set([...strokes.slice(0, -1), [...strokes[strokes.length - 1], point]]);
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    box = canvas.getBoundingClientRect(); // once for a stroke: it makes the browser lay out the page
    set([...strokes, [place(event)]]);
  };
  canvas.onpointermove = (event) => {
    if (!event.buttons || !strokes.length) return;
    const several = event.getCoalescedEvents?.() ?? []; // some browsers give none
    for (const each of several.length ? several : [event]) add(place(each));
  };
  canvas.onkeydown = (event) => {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!way && event.key !== " ") return;
    event.preventDefault();
    cursor ??= [0.5, 0.5];
    if (way) cursor = cursor.map((value, axis) => Math.min(Math.max(value + 0.04 * way[axis], 0), 1));
    else down = !down;
    if (!way && down) set([...strokes, [cursor]]);
    else if (down) add(cursor);
    else draw();
  };
  canvas.onblur = () => { cursor = null; down = false; draw(); };
  draw();
  return {canvas, set, get strokes() { return strokes; }};
};

// --- one model's answer

const makeCard = (model, data, onkeep) => {
  const {shape, limits} = data, off = new Set();
  const picture = make("canvas", {role: "img", className: "widget-answer", ariaLabel: "what a model answers"});
  const bars = make("canvas", {className: "widget-bars"}), told = make("p", {className: "widget-told"});
  const summary = make("p", {className: "widget-summary"});
  let found, x, mark, m = Infinity, plane;

  const sizes = () => found.code.map((value, j) => Math.abs(value) * (model.effects?.[j] ?? 1));
  // The code that is decoded: what is switched off is 0, and of the others the m largest are kept.
  const kept = () => {
    const size = sizes(), open = Array.from(found.code.keys()).filter((j) => !off.has(j) && found.code[j] !== 0);
    const chosen = new Set(open.sort((a, b) => size[b] - size[a]).slice(0, m));
    return found.code.map((value, j) => (chosen.has(j) ? value : 0));
  };
  const isOn = (j) => (found.active ? found.active[j] > 0 : found.code[j] !== 0);
  const describe = (j) => {
    const parts = Object.entries(found.parts).map(([name, values]) => `${name} ${shortNumber(values[j])}`);
    return [`z${j} = ${shortNumber(found.code[j])}`, isOn(j) ? "on" : "off", ...parts,
            ...(off.has(j) ? ["switched off here"] : [])].join(", ");
  };
  const draw = (z = kept()) => {
    const made = model.decode(z);
    drawObservation(picture, made, shape, limits);
    const error = made.reduce((sum, value, i) => sum + (value - x[i]) ** 2, 0), on = found.code.filter((_, j) => isOn(j));
    picture.ariaLabel = `what ${model.title} makes of it`;
    const decoded = z.filter((value) => value !== 0).length;
    const words = `${on.length} of ${z.length} on` + (decoded < on.length ? `, ${decoded} decoded` : "") +
      `; squared error ${shortNumber(error)}`;
    queueMicrotask(() => { summary.textContent = words; }); // after the bars of all cards, which ask for a layout
    if (plane) return plane.show(z);
    drawBars(bars, z, {ghosts: found.shadow ?? found.code, mark, colours: (j) => COLOURS[z[j] < 0 ? 1 : 0]});
  };
  const point = (j) => { mark = j; told.textContent = describe(j); draw(); };
  walkable(bars, () => found.code.length, `code of ${model.title}: arrow keys go from one dimension to the next, Enter ` +
           "switches it off and on", {onpoint: point, describe,
    onpick: (j) => { if (!off.delete(j)) off.add(j); point(j); }});
  if (model.plane) {
    plane = makePlane(model, {codes: model.plane, labels: data.planeLabels, classes: data.classes}, limits, draw);
  }
  const node = make("div", {className: "widget-card", role: "group", ariaLabel: model.title},
                    make("p", {className: "widget-title"}, model.title), picture, plane ? plane.node : bars, summary, told);
  return {node, answer: (observation, keep) => {
    x = observation;
    m = keep;
    found = model.encode(x);
    if (mark !== undefined) told.textContent = describe(mark);
    draw();
  }, code: () => found};
};

// --- the widget

export const draw = async (root, data, base, address) => {
  const {models, shape, limits, frame} = data, small = Boolean(root.closest(".widget-small"));
  const observations = await readSheet(data.observations, base), open = opener(models, base);
  const names = data.names.map((name, i) => `test observation ${i}` + (name && `: ${name}`));
  const asked = address.read(), cards = new Map();
  const canDraw = isPicture(shape) && shape[0] === 1;
  let chosen, noise = "none", level = 0.3, seed = 1, keep = Infinity;

  const seen = make("canvas", {role: "img", className: "widget-seen", ariaLabel: "what the models are given"});
  const list = make("div", {className: "widget-cards"}), status = make("p", {className: "widget-note", role: "status"});
  const given = () => {
    const clean = chosen === null ? strokesToPicture(pad.strokes, shape, frame).map(
      (value) => limits[0] + (limits[1] - limits[0]) * value) : observations[chosen];
    return clean.map(NOISES[noise](level, limits, randomFrom(seed)));
  };
  const answer = () => {
    const x = given();
    drawObservation(seen, x, shape, limits);
    for (const card of cards.values()) card.answer(x, keep);
    root.dataset.answered = Number(root.dataset.answered ?? 0) + 1;
  };
  const soon = onFrame(answer);
  // Where it is small the models come when the reader first puts something in; until then the picture stands there.
  let begun = false;
  const begin = async () => {
    if (begun) return;
    begun = true;
    list.replaceChildren();
    for (const index of first) await setShown(index, true);
  };
  const pad = makePad(frame?.fill, (strokes) => { if (strokes.length) { take(null); soon(); begin(); } });
  const starts = names.map((title, index) => {
    const picture = make("canvas");
    drawObservation(picture, observations[index], shape, limits);
    return button(picture, () => { pad.set([]); take(index); answer(); begin(); }, {title, ariaLabel: `take ${title}`});
  });
  const take = (index) => {
    if (index === chosen) return;
    chosen = index;
    starts.forEach((each, at) => { each.ariaPressed = String(at === index); });
    tell();
  };
  const tell = () => address.write({from: chosen ?? "drawing", models: [...cards.keys()].join(" ")});
  const clear = button("Clear", () => { pad.set([]); take(0); answer(); }, {className: "widget-button"});

  const amount = make("input", {type: "range", min: 0, max: 1, step: 0.05, value: level});
  amount.oninput = () => { level = Number(amount.value); soon(); };
  const kinds = choice(Object.keys(NOISES), (index) => { noise = Object.keys(NOISES)[index]; answer(); });
  const again = button("other noise", () => { seed++; answer(); }, {className: "widget-button"});
  const most = Math.max(...models.map(({latentDim}) => latentDim));
  const count = make("input", {type: "range", min: 0, max: most, step: 1, value: most}), counted = make("output", {}, "all");
  count.oninput = () => {
    keep = Number(count.value) === most ? Infinity : Number(count.value);
    counted.textContent = keep === Infinity ? "all" : keep;
    soon();
  };

  const setShown = async (index, on) => {
    if (!on) cards.delete(index);
    else {
      status.textContent = `loading ${models[index].title} …`;
      cards.set(index, makeCard(await open(index), data));
      status.textContent = "";
    }
    list.replaceChildren(...[...cards.entries()].sort(([a], [b]) => a - b).map(([, {node}]) => node));
    tell();
    answer();
  };
  const boxes = models.map(({title}, index) => {
    const box = make("input", {type: "checkbox", onchange: () => setShown(index, box.checked)});
    return make("label", {}, box, title);
  });
  const first = asked.models ? asked.models.split(" ").map(Number).filter((index) => models[index])
    : models.map((_, index) => index).slice(0, small ? FEWER : SHOWN);
  for (const index of first) boxes[index].firstChild.checked = true;

  const inputs = make("div", {className: "widget-inputs"});
  if (canDraw) inputs.append(make("div", {}, pad.canvas, clear));
  inputs.append(make("div", {className: "widget-choices"},
                     make("p", {className: "widget-hint"}, canDraw ? data.invitation : "Take a test observation:"),
                     make("div", {className: "widget-strip"}, ...starts.slice(0, small ? 6 : starts.length)),
                     make("figure", {}, seen, make("figcaption", {}, "what the models are given"))));
  const controls = make("div", {className: "widget-controls"},
                        labelled("noise: ", kinds), labelled("how much: ", amount), again,
                        make("label", {}, make("span", {}, "entries that are kept, the largest: "), count, counted));
  const chooser = make("details", {className: "widget-models"}, make("summary", {}, "Models"), ...boxes);
  root.replaceChildren(inputs, ...(small ? [] : [controls, chooser]), status, list);
  // The pad keeps what is drawn when the reader goes to the units of a model and back.
  try { if (asked.from === "drawing") pad.set(JSON.parse(sessionStorage.getItem("drawing") ?? "[]")); } catch { /* none */ }
  addEventListener("pagehide", () => { try { sessionStorage.setItem("drawing", JSON.stringify(pad.strokes)); } catch { /**/ } });
  take(pad.strokes.length ? null : names[asked.from] === undefined ? 0 : Number(asked.from));
  answer();
  if (!small) await begin();
  else list.append(root.parentNode.querySelector(".widget-first"));
};
