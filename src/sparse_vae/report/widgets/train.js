// Trains a sparse autoencoder in the page: x̂ = A h + b with atoms of norm 1, h = ReLU(W(x − b) + c), held sparse by a
// penalty λ Σ h or by keeping the k largest; squared error, halved and summed over pixels; Adam.

import {button, choice, COLOURS, drawImage, labelled, make, percent, randomFrom, readSheet, shortNumber} from "./page.js";
import {normalDraw} from "./runtime.js";

const BATCH = 64, RATE = 0.003, BETAS = [0.9, 0.99], TINY = 1e-8;
const BUSY = 12; // milliseconds of work in each picture of the page
const SIZES = [16, 64, 144, 256], SHOWN = 12, EVERY = 10;
const KINDS = ["a penalty, λ", "the k largest"];

// A model and its optimiser. `step(rows, {penalty, k})` takes one step and returns the mean loss of the batch before it.
export const makeLearner = (inputs, units, mean, random) => {
  const atoms = Float32Array.from({length: units * inputs}, () => normalDraw(random));
  const parameters = {atoms, weights: new Float32Array(units * inputs), before: new Float32Array(units),
                      bias: Float32Array.from(mean)};
  const normalise = () => {
    for (let j = 0; j < units; j++) {
      let square = 0;
      for (let i = 0; i < inputs; i++) square += atoms[j * inputs + i] ** 2;
      for (let i = 0; i < inputs; i++) atoms[j * inputs + i] /= Math.sqrt(square) || 1;
    }
  };
  normalise();
  parameters.weights.set(atoms);
  const moments = Object.fromEntries(Object.entries(parameters).map(([name, values]) => (
    [name, [new Float32Array(values.length), new Float32Array(values.length)]])));
  const {weights, before, bias} = parameters;
  let steps = 0;

  // The code of x, 0 where it is not among the k largest.
  const encode = (x, {k}) => {
    const h = new Float32Array(units);
    for (let j = 0; j < units; j++) {
      let sum = before[j];
      for (let i = 0, at = j * inputs; i < inputs; i++, at++) sum += weights[at] * (x[i] - bias[i]);
      h[j] = Math.max(sum, 0);
    }
    if (k < units) {
      const least = Float32Array.from(h).sort()[units - k];
      for (let j = 0; j < units; j++) if (h[j] < least) h[j] = 0;
    }
    return h;
  };
  const decode = (h) => {
    const out = Float32Array.from(bias);
    h.forEach((value, j) => {
      if (value) for (let i = 0, at = j * inputs; i < inputs; i++, at++) out[i] += value * atoms[at];
    });
    return out;
  };

  const step = (rows, held) => {
    const slopes = Object.fromEntries(Object.entries(parameters).map(([name, {length}]) => [name, new Float32Array(length)]));
    const penalty = held.penalty ?? 0, n = rows.length;
    let loss = 0;
    for (const x of rows) {
      const h = encode(x, held), error = decode(h);
      for (let i = 0; i < inputs; i++) {
        error[i] -= x[i];
        loss += error[i] ** 2 / 2;
        slopes.bias[i] += error[i] / n;
      }
      for (let j = 0; j < units; j++) {
        if (!h[j]) continue;
        loss += penalty * h[j];
        let slope = penalty;
        for (let i = 0, at = j * inputs; i < inputs; i++, at++) {
          slope += atoms[at] * error[i];
          slopes.atoms[at] += h[j] * error[i] / n;
        }
        slopes.before[j] += slope / n;
        for (let i = 0, at = j * inputs; i < inputs; i++, at++) {
          slopes.weights[at] += slope * (x[i] - bias[i]) / n;
          slopes.bias[i] -= slope * weights[at] / n;
        }
      }
    }
    steps++;
    const [first, second] = BETAS, sizes = BETAS.map((beta) => 1 - beta ** steps);
    for (const [name, values] of Object.entries(parameters)) {
      const [mean_, square] = moments[name], slope = slopes[name];
      for (let i = 0; i < values.length; i++) {
        mean_[i] = first * mean_[i] + (1 - first) * slope[i];
        square[i] = second * square[i] + (1 - second) * slope[i] ** 2;
        values[i] -= RATE * (mean_[i] / sizes[0]) / (Math.sqrt(square[i] / sizes[1]) + TINY);
      }
    }
    normalise();
    return loss / n;
  };
  return {parameters, encode, decode, step, get steps() { return steps; }};
};

const drawCurve = (canvas, points, height) => {
  const width = 2 * canvas.clientWidth || 600, context = canvas.getContext("2d");
  Object.assign(canvas, {width, height});
  const last = points.length ? points[points.length - 1].step : 1, top = Math.max(...points.map(({error}) => error), 1);
  Object.assign(context, {lineWidth: 4, strokeStyle: COLOURS[0], lineJoin: "round"});
  context.beginPath();
  for (const {step, error} of points) context.lineTo(step / last * width, (1 - error / top) * (height - 6) + 3);
  context.stroke();
};

// Atoms in rows of a square, blue above 0 and orange below; units that are never on are pale.
const drawAtoms = (canvas, atoms, units, side, dead) => {
  const columns = Math.ceil(Math.sqrt(units)), rows = Math.ceil(units / columns), cell = side + 1;
  const [width, height] = [columns * cell - 1, rows * cell - 1], out = new Float32Array(3 * width * height).fill(0.5);
  for (let j = 0; j < units; j++) {
    const atom = atoms.subarray(j * side * side, (j + 1) * side * side), ink = dead[j] ? 0.25 : 1;
    const most = atom.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9);
    atom.forEach((value, i) => {
      const at = (Math.floor(j / columns) * cell + Math.floor(i / side)) * width + (j % columns) * cell + (i % side);
      const part = ink * Math.abs(value) / most, colour = value > 0 ? [1, 0.6, 0.25] : [0.15, 0.63, 1];
      colour.forEach((fade, channel) => { out[channel * width * height + at] = 1 - fade * part; });
    });
  }
  drawImage(canvas, out, [3, height, width], [0, 1]);
};

export const train = async (root, data, base) => {
  const [training, test] = await Promise.all([readSheet(data.training, base), readSheet(data.test, base)]);
  const inputs = training[0].length, side = Math.sqrt(inputs), average = new Float32Array(inputs);
  for (const x of training) x.forEach((value, i) => { average[i] += value / training.length; });
  const variance = test.reduce((sum, x) => sum + x.reduce((part, value, i) => part + (value - average[i]) ** 2, 0), 0);
  let kind = 0, penalty = 0.1, k = 6, units = 64, seed = 1, running = false;
  let learner, random, order, at, points, lastOn, measured;

  const curve = make("canvas", {role: "img", className: "train-curve", ariaLabel: "the loss"}), told = make("p", {className: "train-told"});
  const atoms = make("canvas", {role: "img", className: "train-atoms", ariaLabel: "the features"}), pairs = make("div", {className: "widget-strip"});
  const held = () => (kind ? {k} : {penalty, k: Infinity});

  const measure = () => {
    const codes = test.map((x) => learner.encode(x, held()));
    let error = 0, on = 0;
    codes.forEach((h, row) => {
      learner.decode(h).forEach((value, i) => { error += (value - test[row][i]) ** 2; });
      on += h.reduce((sum, value) => sum + (value > 0), 0);
    });
    const dead = lastOn.map((step) => learner.steps - step > training.length / BATCH);
    measured = {step: learner.steps, error: error / variance, on: on / test.length, dead};
    points.push(measured);
    show(codes);
  };
  const show = (codes) => {
    const {error, on, dead} = measured, silent = dead.filter(Boolean).length;
    drawCurve(curve, points, 200);
    curve.ariaLabel = `unexplained variance of test digits over ${learner.steps} steps: now ${percent(error)}`;
    drawAtoms(atoms, learner.parameters.atoms, units, side, dead);
    atoms.ariaLabel = `the ${units} atoms, ${silent} of them pale because their units were off for an epoch`;
    told.textContent = `Step ${learner.steps}: ${percent(error)} of the variance of test digits is not explained; ` +
      `${shortNumber(on)} of ${units} units are on for a digit; ${silent} are dead.`;
    pairs.querySelectorAll("canvas").forEach((canvas, i) => {
      const row = Math.floor(i / 2);
      drawImage(canvas, i % 2 ? learner.decode(codes[row]) : test[row], [1, side, side], [0, 1]);
    });
    root.dataset.step = learner.steps;
  };
  const again = () => {
    random = randomFrom(seed++);
    learner = makeLearner(inputs, units, average, random);
    [order, at, points, lastOn] = [[], 0, [], new Array(units).fill(0)];
    measure();
  };
  const step = () => {
    if (at + BATCH > order.length) {
      order = training.map((_, i) => [random(), i]).sort(([a], [b]) => a - b).map(([, i]) => i);
      at = 0;
    }
    const rows = order.slice(at, at + BATCH).map((i) => training[i]);
    at += BATCH;
    learner.step(rows, held());
    for (const x of rows) learner.encode(x, held()).forEach((value, j) => { if (value) lastOn[j] = learner.steps; });
    if (learner.steps % EVERY === 0) measure();
  };
  const go = () => {
    if (!running || !root.isConnected) return;
    const start = performance.now();
    while (performance.now() - start < BUSY) step();
    requestAnimationFrame(go);
  };
  const start = button("Train", () => {
    running = !running;
    start.textContent = running ? "Pause" : "Train";
    go();
  }, {className: "widget-button"});

  const slider = (text, value, properties, onchange) => {
    const input = make("input", {type: "range", ...properties}), output = make("output", {}, shortNumber(value));
    input.value = value;
    input.oninput = () => { onchange(Number(input.value)); output.textContent = shortNumber(Number(input.value)); };
    return make("label", {}, make("span", {}, text), input, output);
  };
  const ofPenalty = slider("λ: ", penalty, {min: 0, max: 0.5, step: 0.01}, (value) => { penalty = value; });
  const ofK = slider("k: ", k, {min: 1, max: 32, step: 1}, (value) => { k = value; });
  ofK.hidden = true;
  const kinds = choice(KINDS, (index) => { kind = index; ofPenalty.hidden = kind === 1; ofK.hidden = kind === 0; });
  const sizes = choice(SIZES.map(String), (index) => { units = SIZES[index]; again(); });
  sizes.value = SIZES.indexOf(units);

  for (let i = 0; i < SHOWN; i++) pairs.append(make("span", {className: "train-pair"}, make("canvas"), make("canvas")));
  root.replaceChildren(
    make("div", {className: "widget-controls"}, start, button("Start again", again, {className: "widget-button"}),
         labelled("held sparse by ", kinds), ofPenalty, ofK, labelled("units: ", sizes)),
    told,
    make("div", {className: "train-views"},
         make("figure", {}, atoms, make("figcaption", {}, "what each unit adds")),
         make("div", {}, make("figure", {}, curve, make("figcaption", {}, "variance that is not explained, from all to none")),
              make("figure", {}, pairs, make("figcaption", {}, "test digits, and under them what the model makes of them")))));
  again();
};
