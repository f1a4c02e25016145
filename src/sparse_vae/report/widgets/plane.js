// A model with two latent dimensions: its test codes as points, a place to point at, samples of its prior.

import {COLOURS, button, drawObservation, make, randomFrom, shortNumber} from "./page.js";

const SIZE = 320, STEP = 0.02, SAMPLES = 12, MARGIN = 0.06;
let seed = 1;

// `onmove(z)` hears where the reader points; {node, show(z)} puts the mark there from outside.
export const makePlane = (model, {codes, labels, classes}, limits, onmove) => {
  const canvas = make("canvas", {width: 2 * SIZE, height: 2 * SIZE, className: "widget-plane"});
  const ranges = [0, 1].map((axis) => {
    const values = codes.map((code) => code[axis]), low = Math.min(...values), high = Math.max(...values);
    const margin = MARGIN * (high - low || 1);
    return [low - margin, high + margin];
  });
  const toPixel = (z) => [0, 1].map((axis) => {
    const [low, high] = ranges[axis], share = (z[axis] - low) / (high - low);
    return 2 * SIZE * (axis ? 1 - share : share);
  });
  let z = Float32Array.from(codes[0] ?? [0, 0]);

  const points = make("canvas", {width: 2 * SIZE, height: 2 * SIZE}), ink = points.getContext("2d");
  codes.forEach((code, i) => {
    ink.fillStyle = labels ? COLOURS[labels[i] % COLOURS.length] : COLOURS[0];
    ink.globalAlpha = 0.6;
    const [x, y] = toPixel(code);
    ink.fillRect(x - 3, y - 3, 6, 6);
  });

  const draw = () => {
    const context = canvas.getContext("2d"), [x, y] = toPixel(z);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, 2 * SIZE, 2 * SIZE);
    context.drawImage(points, 0, 0);
    for (const [width, colour] of [[7, "#fff"], [3, "#000"]]) {
      Object.assign(context, {lineWidth: width, strokeStyle: colour});
      context.beginPath();
      context.arc(x, y, 12, 0, 7);
      context.moveTo(x - 22, y);
      context.lineTo(x + 22, y);
      context.moveTo(x, y - 22);
      context.lineTo(x, y + 22);
      context.stroke();
    }
    canvas.setAttribute("aria-valuenow", shortNumber(z[0]).replace("−", "-"));
    canvas.setAttribute("aria-valuetext", `z0 = ${shortNumber(z[0])}, z1 = ${shortNumber(z[1])}`);
  };
  const show = (code) => { z = Float32Array.from(code); draw(); };
  const move = (code) => { show(code); onmove(z); };
  const moveTo = (event) => {
    const {left, top, width, height} = canvas.getBoundingClientRect();
    const shares = [(event.clientX - left) / width, 1 - (event.clientY - top) / height];
    move(ranges.map(([low, high], axis) => low + Math.min(Math.max(shares[axis], 0), 1) * (high - low)));
  };

  for (const [key, value] of Object.entries({
    role: "slider", tabindex: 0, "aria-valuemin": ranges[0][0], "aria-valuemax": ranges[0][1],
    "aria-label": `codes of ${model.title}: a place in the plane, moved with the arrow keys`})) {
    canvas.setAttribute(key, value);
  }
  canvas.onpointerdown = (event) => { canvas.setPointerCapture(event.pointerId); moveTo(event); };
  canvas.onpointermove = (event) => { if (event.buttons) moveTo(event); };
  canvas.onkeydown = (event) => {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
    if (!way) return;
    event.preventDefault();
    move(ranges.map(([low, high], axis) => z[axis] + way[axis] * STEP * (high - low)));
  };

  const key = make("p", {className: "widget-key"}, ...(classes ?? []).map((name, i) => (
    make("span", {style: `--colour: ${COLOURS[i % COLOURS.length]}`}, name))));
  const node = make("div", {}, canvas, key);
  if (model.draw) node.append(sampler(model, limits, move));
  draw();
  return {node, show};
};

// Draws codes of the prior on demand; one that is chosen is where `move` goes.
export const sampler = (model, limits, move) => {
  const drawn = make("div", {className: "widget-strip"});
  const sample = () => {
    const random = randomFrom(seed++);
    drawn.replaceChildren(...Array.from({length: SAMPLES}, (_, i) => {
      const code = model.draw(random), picture = make("canvas");
      drawObservation(picture, model.decode(code), model.shape, limits);
      return button(picture, () => move(code), {ariaLabel: `go to sample ${i + 1} of the prior`});
    }));
  };
  return make("div", {}, button("Draw from the prior", sample, {className: "widget-button"}), drawn);
};
