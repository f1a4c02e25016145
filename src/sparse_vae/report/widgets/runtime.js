// Trained models in a page: reads their weights and computes what PyTorch would, one observation at a time.
//
// A model comes as a description, see export.py: layers of the encoder and the decoder, how a code comes out of the
// encoder's numbers, and the prior. Its tensors lie in a safetensors file in half precision, or in 8 bits with a scale
// for each row. What goes in and comes out are Float32Arrays, every map is in PyTorch's order, (channels, height, width).

// --- bytes and tensors

// What {gzip: base64} holds or {src: address} leads to.
export const readBytes = async (blob, base) => {
  if (blob.gzip !== undefined) {
    const packed = new Blob([Uint8Array.from(atob(blob.gzip), (character) => character.charCodeAt(0))]);
    return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }
  const answer = await fetch(new URL(blob.src, base));
  if (!answer.ok) throw new Error(`${blob.src}: ${answer.status}`);
  return answer.arrayBuffer();
};

export const fromHalf = (bits) => {
  const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
  if (exponent === 31) return fraction ? NaN : bits & 0x8000 ? -Infinity : Infinity;
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction;
  return bits & 0x8000 ? -size : size;
};

let halves; // every number of half precision
const unpackHalf = (buffer, start, end) => {
  halves ??= Float32Array.from({length: 65536}, (_, bits) => fromHalf(bits));
  return new Float32Array(new Uint16Array(buffer.slice(start, end))).map((bits) => halves[bits]);
};

const DTYPES = {
  F16: unpackHalf,
  F32: (buffer, start, end) => new Float32Array(buffer.slice(start, end)),
  I8: (buffer, start, end) => Float32Array.from(new Int8Array(buffer.slice(start, end))),
};

// A safetensors file as a function: name → {shape, values}.
export const readTensors = (buffer) => {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const read = (name) => {
    const {dtype, shape, data_offsets: [from, to]} = header[name];
    return {shape, values: DTYPES[dtype](buffer, start + from, start + to)};
  };
  return (name) => {
    const tensor = read(name);
    if (header[name].dtype === "I8") {
      const scale = read(`${name}.scale`).values, columns = tensor.values.length / scale.length;
      tensor.values.forEach((value, i) => { tensor.values[i] = value * scale[Math.floor(i / columns)]; });
    }
    return tensor;
  };
};

// --- layers: what each makes of {values, shape}

const sigmoid = (value) => 1 / (1 + Math.exp(-value));
const softplus = (value) => Math.max(value, 0) + Math.log1p(Math.exp(-Math.abs(value)));
const relu = (value) => Math.max(value, 0);
const pointwise = (f) => () => ({values, shape}) => {
  const out = new Float64Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = f(values[i]);
  return {values: out, shape};
};

// Every column divided by its norm.
const withUnitColumns = ({shape, values}) => {
  const [rows, columns] = shape, squares = new Float64Array(columns);
  values.forEach((value, i) => { squares[i % columns] += value * value; });
  const norms = squares.map((square) => Math.max(Math.sqrt(square), 1e-12));
  return {shape: [rows, columns], values: values.map((value, i) => value / norms[i % columns])};
};

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

// The columns of a matrix, each of norm 1.
const readAtoms = (matrix) => {
  const {shape: [rows, columns], values} = withUnitColumns(matrix), flat = transpose(values, rows, columns);
  return Array.from({length: columns}, (_, j) => flat.subarray(j * rows, (j + 1) * rows));
};

// From the channels of each position, one position after the other, to a map for each channel; and back.
const transpose = (values, rows, columns) => {
  const out = new Float64Array(values.length);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) out[column * rows + row] = values[at++];
  }
  return out;
};

// The products of each row of one matrix with each row of another: four rows with two at once, so that a number that
// was read is used more than once. At the ends a row is taken twice. Doubles are faster: nothing is converted.
const multiply = (a, rows, b, columns, size) => {
  const out = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row += 4) {
    const [second, third, fourth] = [1, 2, 3].map((next) => Math.min(row + next, rows - 1));
    for (let column = 0; column < columns; column += 2) {
      const other = Math.min(column + 1, columns - 1);
      let a1 = row * size, a2 = second * size, a3 = third * size, a4 = fourth * size;
      let s1 = 0, s2 = 0, s3 = 0, s4 = 0, t1 = 0, t2 = 0, t3 = 0, t4 = 0;
      for (let left = column * size, right = other * size, end = left + size; left < end; left++, right++) {
        const s = b[left], t = b[right], x1 = a[a1++], x2 = a[a2++], x3 = a[a3++], x4 = a[a4++];
        s1 += x1 * s; s2 += x2 * s; s3 += x3 * s; s4 += x4 * s;
        t1 += x1 * t; t2 += x2 * t; t3 += x3 * t; t4 += x4 * t;
      }
      out[row * columns + column] = s1; out[row * columns + other] = t1;
      out[second * columns + column] = s2; out[second * columns + other] = t2;
      out[third * columns + column] = s3; out[third * columns + other] = t3;
      out[fourth * columns + column] = s4; out[fourth * columns + other] = t4;
    }
  }
  return out;
};

// For each position of the small side of a convolution, where each weight of a kernel meets the large side, channel by
// channel; outside it is one beyond the end.
const meetings = (channels, tall, wide, [height, width], [rows, columns], stride, padding) => {
  const end = channels * height * width, out = new Int32Array(rows * columns * channels * tall * wide).fill(end);
  let at = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let channel = 0; channel < channels; channel++) {
        for (let ky = 0; ky < tall; ky++) {
          for (let kx = 0; kx < wide; kx++, at++) {
            const y = row * stride[0] - padding[0] + ky, x = column * stride[1] - padding[1] + kx;
            if (y >= 0 && y < height && x >= 0 && x < width) out[at] = (channel * height + y) * width + x;
          }
        }
      }
    }
  }
  return out;
};

const LAYERS = {
  relu: pointwise(relu),
  sigmoid: pointwise(sigmoid),
  flatten: () => ({values, shape: [channels, height, width]}) => (
    {values: transpose(values, channels, height * width), shape: [values.length]}),
  unflatten: ({shape}) => ({values}) => ({values: transpose(values, shape[1] * shape[2], shape[0]), shape}),

  linear: ({weight, bias, unit}, tensor) => {
    const {shape: [rows, columns], values: w} = unit ? withUnitColumns(tensor(weight)) : tensor(weight);
    const b = tensor(bias).values, wide = Float64Array.from(w);
    return ({values}) => ({values: withBias(multiply(wide, rows, values, 1, columns), b), shape: [rows]});
  },

  // Of each atom, a column of norm 1, with what is left of an observation when the bias is taken off.
  products: ({weight, bias}, tensor) => {
    const atoms = readAtoms(tensor(weight)), b = tensor(bias).values;
    return ({values}) => {
      const centred = values.map((value, i) => value - b[i]);
      return {values: Float32Array.from(atoms, (atom) => dot(atom, centred)), shape: [atoms.length]};
    };
  },

  convolution: ({weight, bias, stride, padding}, tensor) => {
    const {shape: [outputs, inputs, tall, wide], values} = tensor(weight), b = tensor(bias).values;
    const size = inputs * tall * wide, w = Float64Array.from(values);
    let from; // the same for every observation
    return ({values, shape: [, height, width]}) => {
      const rows = Math.floor((height + 2 * padding[0] - tall) / stride[0]) + 1;
      const columns = Math.floor((width + 2 * padding[1] - wide) / stride[1]) + 1;
      from ??= meetings(inputs, tall, wide, [height, width], [rows, columns], stride, padding);
      const met = new Float64Array(from.length);
      for (let i = 0; i < met.length; i++) met[i] = from[i] < values.length ? values[from[i]] : 0;
      const out = multiply(w, outputs, met, rows * columns, size);
      return {values: withBias(out, b), shape: [outputs, rows, columns]};
    };
  },

  deconvolution: ({weight, bias, stride, padding, outputPadding}, tensor) => {
    const {shape: [inputs, outputs, tall, wide], values} = tensor(weight), b = tensor(bias).values;
    const taps = outputs * tall * wide, w = transpose(values, inputs, taps);
    let to;
    return ({values, shape: [, height, width]}) => {
      const rows = (height - 1) * stride[0] - 2 * padding[0] + tall + outputPadding[0];
      const columns = (width - 1) * stride[1] - 2 * padding[1] + wide + outputPadding[1];
      // Seen from what comes out, it is the convolution above read from right to left.
      to ??= meetings(outputs, tall, wide, [rows, columns], [height, width], stride, padding);
      const given = multiply(transpose(values, inputs, height * width), height * width, w, taps, inputs);
      const out = new Float64Array(outputs * rows * columns);
      for (let i = 0; i < given.length; i++) if (to[i] < out.length) out[to[i]] += given[i];
      return {values: withBias(out, b), shape: [outputs, rows, columns]};
    };
  },
};

const withBias = (out, bias) => {
  const positions = out.length / bias.length;
  for (let channel = 0, at = 0; channel < bias.length; channel++) {
    for (let i = 0; i < positions; i++, at++) out[at] += bias[channel];
  }
  return out;
};

const makeNetwork = (layers, tensor) => {
  const steps = layers.map((layer) => LAYERS[layer.kind](layer, tensor));
  return (values, shape) => Float32Array.from(steps.reduce((state, step) => step(state), {values, shape}).values);
};

// --- codes: what each kind makes of the encoder's numbers, one array for each number per dimension
//
// {code, parts, shadow, active}: the code; what it was made of, by name; what it would be without its gate; which
// dimensions count as active. The last two only where the code does not say it.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const keepLargest = (values, k) => {
  const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
  const kept = new Float32Array(values.length);
  order.slice(0, k).forEach((j) => { kept[j] = values[j]; });
  return kept;
};

const CODES = {
  plain: () => ([a]) => ({code: a, parts: {}}),
  relu: () => ([a]) => ({code: a.map(relu), parts: {"before the ReLU": a}}),
  sigmoid: ({threshold}) => ([a]) => {
    const code = a.map(sigmoid);
    return {code, parts: {}, active: code.map((value) => Number(value > threshold))};
  },
  largest: ({k}) => ([a]) => {
    const shadow = a.map(relu);
    return {code: keepLargest(shadow, k), shadow, parts: {"before the cut": shadow}};
  },
  above: ({threshold, logarithm}, tensor) => {
    const at = tensor(threshold).values.map((value) => (logarithm ? Math.exp(value) : value));
    return ([a]) => {
      const limit = a.map((_, j) => at[j % at.length]), shadow = a.map(relu);
      return {code: a.map((value, j) => (value > limit[j] ? value : 0)), shadow,
              parts: {"before the cut": a, threshold: limit}};
    };
  },
  gated: ({bias, ratio, magnitudeBias}, tensor) => {
    const [b, r, m] = [bias, ratio, magnitudeBias].map((name) => tensor(name).values);
    return ([gate]) => {
      const magnitude = gate.map((value, j) => Math.exp(r[j]) * (value - b[j]) + m[j]), shadow = magnitude.map(relu);
      return {code: shadow.map((value, j) => (gate[j] > 0 ? value : 0)), shadow, parts: {gate, magnitude}};
    };
  },
  // k times: the atom with the largest product takes its part, and the products of the others with what is left follow.
  pursuit: ({k, both, weight}, tensor) => {
    const atoms = readAtoms(tensor(weight)), gram = new Map();
    const row = (j) => {
      if (!gram.has(j)) gram.set(j, Float32Array.from(atoms, (atom) => dot(atom, atoms[j])));
      return gram.get(j);
    };
    return ([products]) => {
      const left = Float32Array.from(products), code = new Float32Array(products.length);
      for (let step = 0; step < k; step++) {
        let pick = 0;
        left.forEach((value, j) => {
          if ((both ? Math.abs(value) : value) > (both ? Math.abs(left[pick]) : left[pick])) pick = j;
        });
        const value = left[pick];
        code[pick] += value;
        row(pick).forEach((product, j) => { left[j] -= value * product; });
      }
      return {code, shadow: products, parts: {"product at first": products}};
    };
  },
  normal: ({activeKL}) => ([mean, logVariance]) => {
    const kl = mean.map((mu, j) => 0.5 * (mu * mu + Math.exp(logVariance[j]) - 1 - logVariance[j]));
    return {code: mean, parts: {"μ": mean, "σ": logVariance.map((value) => Math.exp(value / 2)), KL: kl},
            active: kl.map((value) => Number(value > activeKL))};
  },
  gatedNormal: ({activeKL, firstLogit}) => ([mean, logits]) => {
    const normal = CODES.normal({activeKL})([mean, logits.map((value) => -softplus(-value - firstLogit))]);
    const gate = normal.parts["σ"].map((value) => 1 - value);
    return {...normal, code: mean.map((mu, j) => gate[j] * mu), shadow: mean, parts: {gate, ...normal.parts}};
  },
  spikeSlab: ({largestLogVariance: most}) => ([mean, logVariance, logit]) => {
    const gamma = logit.map(sigmoid);
    return {code: mean.map((mu, j) => (logit[j] > 0 ? gamma[j] * mu : 0)), shadow: mean,
            parts: {"γ": gamma, "μ": mean, "σ": logVariance.map((value) => Math.exp(clamp(value, -most, most) / 2))}};
  },
  signed: ({low, high, firstConcentration, firstScale, smallestScale}) => ([k, theta, negative, positive]) => {
    const concentration = k.map((value) => (
      high === null ? low + softplus(value + firstConcentration) : low + (high - low) * sigmoid(value)));
    const magnitude = theta.map((value, j) => concentration[j] * (smallestScale + softplus(value + firstScale)));
    const most = negative.map((value, j) => Math.max(value, positive[j], 0));
    const minus = negative.map((value, j) => Math.exp(value - most[j]));
    const plus = positive.map((value, j) => Math.exp(value - most[j]));
    const total = minus.map((value, j) => value + plus[j] + Math.exp(-most[j]));
    const presence = total.map((value, j) => (minus[j] + plus[j]) / value);
    const mean = total.map((value, j) => magnitude[j] * (plus[j] - minus[j]) / value);
    return {code: mean.map((value, j) => (presence[j] > 0.5 ? value : 0)),
            shadow: magnitude.map((value, j) => (plus[j] < minus[j] ? -value : value)),
            parts: {"P(δ ≠ 0)": presence, magnitude, k: concentration}};
  },
};

// --- priors: a code drawn at random; `random` gives uniform numbers in [0, 1)

export const normalDraw = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

const PRIORS = {
  normal: () => (random, length) => Float32Array.from({length}, () => normalDraw(random)),
  spikeSlab: ({alpha}) => (random, length) => Float32Array.from(
    {length}, () => (random() < alpha ? normalDraw(random) : 0)),
  pseudoInputs: ({inputs}, tensor, encode) => {
    const {shape: [count], values} = tensor(inputs), size = values.length / count;
    return (random) => {
      const at = Math.floor(random() * count) * size;
      const {parts: {"γ": gamma, "μ": mean, "σ": deviation}} = encode(values.subarray(at, at + size));
      return mean.map((mu, j) => (random() < gamma[j] ? mu + deviation[j] * normalDraw(random) : 0));
    };
  },
};

// --- models

// A description and its weights, fetched: {…description, encode, decode, draw}. `encode` gives what CODES say, `decode`
// the mean of the observation, `draw` a code from the prior where there is one.
export const openModel = async (description, base) => {
  const {encoder, decoder, code, prior, shape, latentDim} = description;
  const tensor = readTensors(await readBytes(description.weights, base));
  const encoded = makeNetwork(encoder, tensor), decoded = makeNetwork(decoder, tensor);
  const codeOf = CODES[code.kind](code, tensor);
  const encode = (x) => {
    const numbers = encoded(x, shape);
    return codeOf(Array.from({length: numbers.length / latentDim},
                             (_, part) => numbers.slice(part * latentDim, (part + 1) * latentDim)));
  };
  const draw = prior && PRIORS[prior.kind](prior, tensor, encode);
  return {...description, encode, decode: (z) => decoded(z, [latentDim]),
          draw: draw && ((random) => draw(random, latentDim))};
};
