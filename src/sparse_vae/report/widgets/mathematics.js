// The mathematics of the small machines (machines.js): one spike and its estimators, Gamma samples at a small k, one
// dimension of a linear-Gaussian VAE. Numbers in, numbers out; checked against the package in tests/test_machines.py.

import {randomFrom} from "./page.js";

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));
export const logit = (p) => Math.log(p / (1 - p));
const LOWER = -0.1, UPPER = 1.1; // ends of the stretched interval of the hard concrete

// --- a spike: the loss is f(s) = −s + c s²/2 + d s³/3, l the logit of γ

export const loss = (s, c, d) => -s + (c * s * s) / 2 + (d * s ** 3) / 3;
const slope = (s, c, d) => -1 + c * s + d * s * s;

// The derivative of E[f(s)] with respect to l.
export const trueGradient = (gamma, c, d) => gamma * (1 - gamma) * (loss(1, c, d) - loss(0, c, d));

// What an estimator makes of l, of uniform noise and of τ: the spike, and its derivative with respect to l; as
// distributions/spike_slab.py does it.
const concrete = (l, eta, tau) => {
  const s = sigmoid((l + logit(eta)) / tau);
  return [s, (s * (1 - s)) / tau];
};
export const ESTIMATORS = {
  "scaled sigmoid": (l, eta, tau) => {
    const gamma = sigmoid(l), s = sigmoid((eta - 1 + gamma) / tau);
    return [s, (s * (1 - s) * gamma * (1 - gamma)) / tau];
  },
  "concrete": concrete,
  "hard concrete": (l, eta, tau) => {
    const [s, ds] = concrete(l + tau * Math.log(-LOWER / UPPER), eta, tau);
    const stretched = LOWER + (UPPER - LOWER) * s;
    return [Math.min(Math.max(stretched, 0), 1), stretched > 0 && stretched < 1 ? (UPPER - LOWER) * ds : 0];
  },
  "straight-through": (l, eta, tau) => [logit(eta) > -l ? 1 : 0, concrete(l, eta, tau)[1]],
  "ReinMax": (l, eta) => {
    const gamma = sigmoid(l);
    return logit(eta) > -l ? [1, (1 - gamma) / 2] : [0, gamma / 2];
  },
  "plain Bernoulli": (l, eta) => [logit(eta) > -l ? 1 : 0, 0],
};

// Mean and standard deviation of an estimator's gradient over its noise, by the midpoint rule.
export const estimate = (name, gamma, tau, c, d, n = 8000) => {
  const l = logit(gamma);
  let sum = 0, squares = 0;
  for (let i = 0; i < n; i++) {
    const [s, ds] = ESTIMATORS[name](l, (i + 0.5) / n, tau), gradient = slope(s, c, d) * ds;
    sum += gradient;
    squares += gradient * gradient;
  }
  return {mean: sum / n, sd: Math.sqrt(Math.max(squares / n - (sum / n) ** 2, 0))};
};

// --- the Gamma distribution

// ψ and ψ′ of x > 0: up to x ≥ 10 by recurrence, then their asymptotic series.
export const digamma = (x) => {
  let sum = 0;
  for (; x < 10; x++) sum -= 1 / x;
  const y = 1 / (x * x);
  return sum + Math.log(x) - 0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))));
};
export const trigamma = (x) => {
  let sum = 0;
  for (; x < 10; x++) sum += 1 / (x * x);
  const y = 1 / (x * x);
  return sum + 1 / x + y / 2 + (y / x) * (1 / 6 - y * (1 / 30 - y * (1 / 42 - y * (1 / 30 - (y * 5) / 66))));
};

// ∂ ln z/∂k of a sample of Gamma(k, 1), by the implicit function theorem, from ln z:
// (1/k) Σₙ zⁿ/(k + 1)ₙ (ψ(k + 1 + n) − ln z).
export const logGradient = (logZ, k) => {
  const z = Math.exp(logZ);
  let term = 1, psi = digamma(k + 1), sum = psi - logZ;
  for (let n = 1; n < 400 && term > 1e-17; n++) {
    psi += 1 / (k + n);
    term *= z / (k + n);
    sum += term * (psi - logZ);
  }
  return sum / k;
};

export const SMALLEST = {float32: Math.log(2 ** -126), float64: Math.log(2 ** -1022)}; // ln of a normal number

// ln z of n samples: ln G + ln U/k with G of Gamma(k + 1) (Marsaglia & Tsang 2000); each U from a part of (0, 1) of its
// own, so that means are steadier than those of independent samples.
export const logSamples = (k, n, seed) => {
  const random = randomFrom(seed), next = () => random() + 2 ** -33; // never 0
  const d = k + 1 - 1 / 3, c = 1 / Math.sqrt(9 * d);
  const normal = () => Math.sqrt(-2 * Math.log(next())) * Math.cos(2 * Math.PI * next());
  return Float64Array.from({length: n}, (_, i) => {
    for (;;) {
      const x = normal(), v = (1 + c * x) ** 3;
      if (v > 0 && Math.log(next()) < (x * x) / 2 + d - d * v + d * Math.log(v)) {
        return Math.log(d * v) + Math.log((i + next()) / n) / k;
      }
    }
  });
};

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// What becomes of samples kept as ln z, and of those that float32 raises to its smallest normal number.
export const gammaStudy = (k, n, seed) => {
  const samples = logSamples(k, n, seed), raised = samples.map((value) => Math.max(value, SMALLEST.float32));
  const below = (limit) => samples.filter((value) => value < limit).length / n;
  return {samples, float32: below(SMALLEST.float32), float64: below(SMALLEST.float64),
    mean: {truth: digamma(k), here: mean(samples), raised: mean(raised)},
    gradient: {truth: trigamma(k), here: mean(samples.map((value) => logGradient(value, k))),
      raised: mean(raised.map((value) => logGradient(value, k)))}};
};

// --- a dimension of a linear VAE: x ~ N(0, v), p(x|z) = N(wz, n), q(z|x) = N(ax, σ²), loss = reconstruction + β KL

// The decoder for which a σ ≤ 1 is best, the best encoder of it, and what the dimension then pays and earns, in nats for
// an observation. With t = w²/(βn): σ² = 1/(1 + t), a = w/(w² + βn).
export const dimensionAt = (sigma, variance, noise, beta) => {
  const t = 1 / sigma ** 2 - 1, w = Math.sqrt(t * beta * noise), a = w / (w * w + beta * noise);
  const kl = (a * a * variance + sigma ** 2 - 1 - 2 * Math.log(sigma)) / 2;
  const earns = (variance - variance * (1 - a * w) ** 2 - (w * sigma) ** 2) / (2 * noise);
  return {sigma, w, a, kl, pays: beta * kl, earns, gain: earns - beta * kl};
};

// The best of all: 1 + t = v/(βn) where that is above 1, else the dimension is off.
export const bestDimension = (variance, noise, beta) =>
  dimensionAt(Math.min(1, Math.sqrt((beta * noise) / variance)), variance, noise, beta);
