// What the widgets share: elements, pictures, bars, random numbers, addresses.

import {openModel, readBytes} from "./runtime.js";

export const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F", "#BCBD22",
                        "#9467BD"];
const CURVE = {width: 320, height: 200};

// --- elements

export const make = (name, properties = {}, ...children) => {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
};

export const button = (text, onclick, properties = {}) => make("button", {type: "button", onclick, ...properties}, text);

export const labelled = (text, control) => make("label", {}, make("span", {}, text), control);

export const choice = (options, onchange, properties = {}) => {
  const select = make("select", properties, ...options.map((text, value) => make("option", {value}, text)));
  select.onchange = () => onchange(Number(select.value));
  return select;
};

export const shortNumber = (value) => {
  const text = Math.abs(value) >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString();
  return text.replace("-", "−").replace(/^(−?)0\./, "$1.");
};

export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.01 ? 1 : 0)}%`;

// Once for many calls before the next picture.
export const onFrame = (act) => {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; act(); });
  };
};

// --- random numbers in [0, 1), the same for the same seed (mulberry32)

export const randomFrom = (seed) => () => {
  seed = (seed + 0x6D2B79F5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};

// --- observations

// The observations of a sheet, see export.py, as an array of Float32Array.
export const readSheet = async (sheet, base) => {
  const image = await createImageBitmap(new Blob([await readBytes(sheet, base)], {type: "image/png"}),
                                        {colorSpaceConversion: "none"});
  const canvas = make("canvas", {width: image.width, height: image.height});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, image.width, image.height), unit = (sheet.high - sheet.low) / 255;
  const {count, width, height} = sheet, across = image.width / width;
  return Array.from({length: count}, (_, index) => {
    const top = Math.floor(index / across) * height, left = (index % across) * width;
    const at = (entry) => (top + Math.floor(entry / width)) * image.width + left + (entry % width);
    return Float32Array.from({length: width * height}, (_, entry) => sheet.low + unit * data[4 * at(entry)]);
  });
};

// A model of a list, opened when it is first asked for.
export const opener = (models, base) => {
  const opened = new Map();
  return (index) => {
    if (!opened.has(index)) opened.set(index, openModel(models[index], base));
    return opened.get(index);
  };
};

// --- pictures

export const isPicture = (shape) => shape.length === 3;

export const drawObservation = (canvas, values, shape, limits) => (
  isPicture(shape) ? drawImage : drawCurves)(canvas, values, shape, limits);

// The ink of an empty canvas of this size: an attribute that is set anew, even to the same, costs a layout.
const clean = (canvas, width, height) => {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
};

export const drawImage = (canvas, values, [channels, height, width], [low, high]) => {
  const context = clean(canvas, width, height), image = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let colour = 0; colour < 3; colour++) {
      const value = values[(channels === 3 ? colour : 0) * width * height + pixel];
      image.data[4 * pixel + colour] = 255 * (value - low) / (high - low); // clamped to 0 … 255
    }
    image.data[4 * pixel + 3] = 255;
  }
  context.putImageData(image, 0, 0);
};

const drawCurves = (canvas, values, shape, [low, high]) => {
  const length = shape[shape.length - 1], context = clean(canvas, CURVE.width, CURVE.height);
  for (let curve = 0; curve < values.length / length; curve++) {
    context.strokeStyle = COLOURS[curve % COLOURS.length];
    context.beginPath();
    for (let i = 0; i < length; i++) {
      context.lineTo(i / Math.max(length - 1, 1) * CURVE.width,
                     (high - values[curve * length + i]) / (high - low) * CURVE.height);
    }
    context.stroke();
  }
};

// What is added and what is taken away: blue above 0, orange below, white where nothing changes.
export const drawChange = (canvas, values, shape) => {
  const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-12);
  if (!isPicture(shape)) return drawCurves(canvas, values, shape, [-most, most]);
  const [channels, height, width] = shape, size = width * height;
  const colour = (value) => (value >= 0 ? [1 - value, 1 - 0.6 * value, 1 - 0.25 * value]
                                        : [1 + 0.15 * value, 1 + 0.63 * value, 1 + value]);
  const mixed = Array.from({length: size}, (_, pixel) => {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) sum += values[channel * size + pixel] / channels;
    return colour(sum / most);
  });
  return drawImage(canvas, Float32Array.from({length: 3 * size}, (_, i) => mixed[i % size][Math.floor(i / size)]),
                   [3, height, width], [0, 1]);
};

// Bars upwards and downwards from a line; `ghosts` stand behind them, hollow. `mark` is one to point out.
export const drawBars = (canvas, values, {ghosts, mark, colours = () => COLOURS[0], low, high} = {}) => {
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  const width = Math.max(box.width, 40), height = Math.max(box.height, 30);
  const context = clean(canvas, Math.round(width * ratio), Math.round(height * ratio));
  context.scale(ratio, ratio);
  const all = [...values, ...(ghosts ?? [])];
  const top = high ?? Math.max(...all, 0), bottom = low ?? Math.min(...all, 0), span = top - bottom || 1;
  const y = (value) => 1 + (top - Math.min(Math.max(value, bottom), top)) / span * (height - 2);
  const step = width / values.length, gap = step > 3 ? 1 : 0;
  context.fillStyle = "rgb(128 128 128 / 60%)";
  context.fillRect(0, y(0) - 0.5, width, 1);
  for (let j = 0; j < values.length; j++) {
    if (j === mark) {
      context.fillStyle = "rgb(128 128 128 / 30%)";
      context.fillRect(j * step, 0, Math.max(step, 2), height);
    }
    if (ghosts) {
      context.fillStyle = "rgb(128 128 128 / 45%)";
      context.fillRect(j * step, Math.min(y(0), y(ghosts[j])), Math.max(step - gap, 0.5), Math.abs(y(ghosts[j]) - y(0)));
    }
    context.fillStyle = colours(j);
    context.fillRect(j * step, Math.min(y(0), y(values[j])), Math.max(step - gap, 0.5), Math.abs(y(values[j]) - y(0)));
  }
};

// A canvas over whose parts one goes with the pointer or the arrow keys: `onpoint(index)`, `onpick(index)`.
export const walkable = (canvas, count, name, {onpoint, onpick, describe}) => {
  let at = 0;
  const point = (index) => {
    at = Math.min(Math.max(index, 0), count() - 1);
    canvas.setAttribute("aria-valuenow", at);
    canvas.setAttribute("aria-valuemax", count() - 1);
    canvas.setAttribute("aria-valuetext", describe(at));
    onpoint(at);
  };
  const under = (event) => {
    const {left, width} = canvas.getBoundingClientRect();
    return Math.floor((event.clientX - left) / width * count());
  };
  for (const [key, value] of Object.entries({role: "slider", tabindex: 0, "aria-label": name, "aria-valuemin": 0,
                                             "aria-valuenow": 0})) canvas.setAttribute(key, value);
  canvas.onpointermove = (event) => point(under(event));
  canvas.onclick = (event) => { point(under(event)); onpick(at); };
  canvas.onkeydown = (event) => {
    const step = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -count(), End: count()}[event.key];
    if (step) point(at + step);
    else if (event.key === "Enter" || event.key === " ") onpick(at);
    else return;
    event.preventDefault();
  };
};

// --- addresses: what a widget shows, after the # of the page's, as name?key=value&…

export const readAddress = (name) => {
  const [own, query] = location.hash.slice(1).split("?");
  return name && own === name ? Object.fromEntries(new URLSearchParams(query)) : {};
};

export const writeAddress = (name, values) => (
  history.replaceState(null, "", `#${name}?${new URLSearchParams(values)}`));
