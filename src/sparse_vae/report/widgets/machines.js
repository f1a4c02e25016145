// Three small machines in the chapters: <spike-machine>, <gamma-machine>, <collapse-machine>. What stands in the element
// is for readers without JavaScript. Their mathematics: mathematics.js.

import {ESTIMATORS, SMALLEST, bestDimension, dimensionAt, estimate, gammaStudy, loss, trueGradient} from "./mathematics.js";
import {make} from "./page.js";

document.head.append(make("link", {rel: "stylesheet", href: new URL("machines.css", import.meta.url)}));

const shown = (value, digits = 3) => {
  if (!Number.isFinite(value)) return "—";
  const size = Math.abs(value);
  const text = size && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : Number(value.toPrecision(digits)).toString();
  return text.replaceAll("-", "−");
};
const percent = (share) => `${shown(100 * share, 2)}%`;

// A picture in the units of its viewBox, from 0 to 100 across and 0 to height down; it says nothing that the text does not.
const svg = (height, inside) => `<svg viewBox="0 0 100 ${height}" preserveAspectRatio="none" aria-hidden="true">${inside}</svg>`;
const line = (points, kind) => `<polyline class="${kind}" points="${points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join(" ")}"/>`;
const range = (n, from, to) => Array.from({length: n}, (_, i) => from + ((to - from) * i) / (n - 1));

// A machine: sliders above, what they make below. A slider that is logarithmic moves in powers of ten.
class Machine extends HTMLElement {
  connectedCallback() {
    this.classList.add("machine");
    this.setAttribute("role", "group");
    this.setAttribute("aria-label", this.constructor.title);
    const values = {};
    const sliders = Object.entries(this.constructor.sliders).map(([name, {label, low, high, step, start, log}]) => {
      const input = make("input", {type: "range", min: low, max: high, step, value: start}), output = make("output");
      const read = () => {
        values[name] = log ? 10 ** input.valueAsNumber : input.valueAsNumber;
        output.textContent = shown(values[name], 2);
        input.setAttribute("aria-valuetext", output.textContent);
      };
      input.addEventListener("input", () => { read(); this.update(values); });
      read();
      return make("label", {}, make("span", {}, label), input, output); // which names the first of the two
    });
    this.view = make("div", {class: "machine-view"});
    this.replaceChildren(make("p", {class: "machine-title"}, this.constructor.title),
      make("div", {class: "machine-sliders"}, ...sliders), this.view);
    this.update(values);
  }
}

class SpikeMachine extends Machine {
  static title = "A spike and the estimators of its gradient";
  static sliders = {
    gamma: {label: "γ, how often the spike is on", low: 0.01, high: 0.99, step: 0.01, start: 0.2},
    tau: {label: "τ, temperature", low: -1.5, high: 0.5, step: 0.05, start: -0.3, log: true},
    c: {label: "c, curvature of the loss", low: -4, high: 4, step: 0.1, start: 1.5},
    d: {label: "d, its change (0: a quadratic loss)", low: -4, high: 4, step: 0.1, start: 0},
  };

  update({gamma, tau, c, d}) {
    const truth = trueGradient(gamma, c, d);
    const rows = Object.keys(ESTIMATORS).map((name) => ({name, ...estimate(name, gamma, tau, c, d)}));
    const ends = [0, truth, ...rows.flatMap(({mean, sd}) => [mean - sd, mean + sd])];
    const low = Math.min(...ends), width = Math.max(...ends) - low || 1, at = (value) => 4 + (92 * (value - low)) / width;
    const picture = ({mean, sd}) => svg(10, line([[at(0), 0], [at(0), 10]], "quiet") + line([[at(mean - sd), 5], [at(mean + sd), 5]], "spread") +
      line([[at(truth), 0], [at(truth), 10]], "truth") + line([[at(mean), 1.5], [at(mean), 8.5]], "mean"));
    const f = range(50, 0, 1).map((s) => loss(s, c, d)), bottom = Math.min(...f), tall = Math.max(...f) - bottom || 1;
    const point = (s) => [4 + 92 * s, 36 - (32 * (loss(s, c, d) - bottom)) / tall];
    this.view.innerHTML = `<figure>${svg(40, line(range(50, 0, 1).map(point), "curve") + line([point(0), point(1)], "truth"))}
      <figcaption>The loss f(s) = −s + cs²/2 + ds³/3 between s = 0 and s = 1. The truth asks only for the rise of the
      dashed chord; estimators look at slopes. ∂E[f]/∂ logit γ = γ(1 − γ)(f(1) − f(0)) = <b>${shown(truth)}</b></figcaption></figure>
      <table><thead><tr><th scope="col">estimator</th><th scope="col">mean</th><th scope="col">bias</th><th scope="col">spread</th>
      <th scope="col" class="wide">mean ± spread; dashed: the truth</th></tr></thead><tbody>${rows.map((row) =>
        `<tr><th scope="row">${row.name}</th><td>${shown(row.mean)}</td><td>${shown(Math.abs(row.mean - truth) < 1e-4 ? 0 : row.mean - truth, 2)}</td>
        <td>${shown(row.sd)}</td><td class="wide">${picture(row)}</td></tr>`).join("")}</tbody></table>`;
  }
}

class GammaMachine extends Machine {
  static title = "Gamma samples at a small k";
  static sliders = {k: {label: "k, shape", low: -3, high: 0.5, step: 0.05, start: -2, log: true}};

  update({k}) {
    const {samples, float32, float64, mean, gradient} = gammaStudy(k, 4000, 1);
    const sorted = samples.slice().sort(), low = sorted[sorted.length / 100], high = Math.max(sorted.at(-1), low + 1);
    const bins = new Array(40).fill(0);
    for (const value of samples) if (value >= low) bins[Math.min(39, Math.floor((40 * (value - low)) / (high - low)))]++;
    const most = Math.max(...bins), limit = (100 * (SMALLEST.float32 - low)) / (high - low);
    const bars = bins.map((count, i) => `<rect class="${low + ((i + 0.5) * (high - low)) / 40 < SMALLEST.float32 ? "lost" : "kept"}"
      x="${2.5 * i + 0.2}" width="2.1" y="${38 - (36 * count) / most}" height="${(36 * count) / most}"/>`).join("");
    const row = (name, {truth, here, raised}) => `<tr><th scope="row">${name}</th><td>${shown(truth)}</td><td>${shown(here)}</td>
      <td>${shown(raised)}</td></tr>`;
    this.view.innerHTML = `<figure>${svg(40, bars + (limit > 0 ? line([[limit, 0], [limit, 40]], "truth") : ""))}
      <figcaption>ln z of 4,000 samples, from ${shown(low)} (a hundredth lie below) to ${shown(high)}${limit > 0
        ? "; dashed: the smallest normal number of float32, below which nothing can be told apart" : ""}. Too small for a
      normal number: <b>${percent(float32)}</b> in float32, <b>${percent(float64)}</b> in float64.</figcaption></figure>
      <table><thead><tr><td></td><th scope="col">truth</th><th scope="col">kept as ln z</th><th scope="col">raised to 2⁻¹²⁶</th></tr></thead>
      <tbody>${row("mean of ln z", mean)}${row("mean of ∂ ln z/∂k", gradient)}</tbody></table>`;
  }
}

class CollapseMachine extends Machine {
  static title = "A dimension that earns its keep, or collapses";
  static sliders = {
    variance: {label: "v, variance of the data in its direction", low: 0.05, high: 4, step: 0.05, start: 2},
    noise: {label: "n, variance of the decoder's noise", low: 0.05, high: 2, step: 0.05, start: 0.5},
    beta: {label: "β, price of a nat", low: 0.1, high: 8, step: 0.1, start: 1},
  };

  update({variance, noise, beta}) {
    const best = bestDimension(variance, noise, beta), isOn = best.sigma < 1 - 1e-9;
    const points = range(120, 0.12, 1).map((sigma) => dimensionAt(sigma, variance, noise, beta));
    const values = points.flatMap(({pays, earns, gain}) => [pays, earns, gain]).concat(0);
    const low = Math.max(Math.min(...values), -1.2 * Math.max(...points.map(({earns}) => earns))), tall = Math.max(...values) - low || 1;
    const place = (sigma, value) => [(100 * (sigma - 0.12)) / 0.88, 48 - (46 * (Math.max(value, low) - low)) / tall];
    const curve = (name) => line(points.map((point) => place(point.sigma, point[name])), name);
    this.view.innerHTML = `<figure>${svg(50, line([place(0.12, 0), place(1, 0)], "quiet") + curve("earns") + curve("pays") + curve("gain") +
      line([[place(best.sigma, 0)[0], 0], [place(best.sigma, 0)[0], 50]], "truth"))}
      <figcaption>Against σ, from 0.12 on the left to 1, the prior's, on the right: what the dimension
      <span class="key earns">earns</span> in reconstruction, what it <span class="key pays">pays</span>, β KL, and its
      <span class="key gain">gain</span>, each with the decoder for which that σ is best. Dashed: the best of all.</figcaption></figure>
      <p><b>${isOn ? "On" : "Off: collapsed"}.</b> v ${isOn ? ">" : "≤"} βn: ${shown(variance)} ${isOn ? ">" : "≤"} ${shown(beta * noise)}.
      At its best σ = ${shown(best.sigma)}, μ = ${shown(best.a)} x, KL = ½ ln(v/βn) = ${shown(best.kl)} nats; it pays ${shown(best.pays)},
      earns ${shown(best.earns)} and gains ${shown(best.gain)} nats for an observation.</p>`;
  }
}

customElements.define("spike-machine", SpikeMachine);
customElements.define("gamma-machine", GammaMachine);
customElements.define("collapse-machine", CollapseMachine);
