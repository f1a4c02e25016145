// Trained models in a page: reads their weights and computes what PyTorch would, one observation at a time.
//
// A model comes as a description, see export.py: layers of the encoder and the decoder, how a code comes out of the
// encoder's numbers, and the prior. Its tensors lie in a safetensors file in half precision, or in 8 bits with a scale
// for each row. Every array is a Float32Array, every map is in PyTorch's order, (channels, height, width).

// --- bytes and tensors

// What {data: base64} holds or {src: address} leads to.
export const readBytes = async (blob, base) => {
  if (blob.data !== undefined) return Uint8Array.from(atob(blob.data), (character) => character.charCodeAt(0)).buffer;
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
const pointwise = (f) => () => ({values, shape}) => ({values: values.map(f), shape});

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
  const out = new Float32Array(values.length);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) out[column * rows + row] = values[at++];
  }
  return out;
};

// Where a kernel's tap at k lies inside: the first and the last of the positions from which it meets 0 … size − 1.
const reach = (k, stride, padding, size, count) => [
  Math.max(0, Math.ceil((padding - k) / stride)), Math.min(count - 1, Math.floor((size - 1 + padding - k) / stride))];

const LAYERS = {
  relu: pointwise(relu),
  sigmoid: pointwise(sigmoid),
  flatten: () => ({values, shape: [channels, height, width]}) => (
    {values: transpose(values, channels, height * width), shape: [values.length]}),
  unflatten: ({shape}) => ({values}) => ({values: transpose(values, shape[1] * shape[2], shape[0]), shape}),

  linear: ({weight, bias, unit}, tensor) => {
    const {shape: [rows, columns], values: w} = unit ? withUnitColumns(tensor(weight)) : tensor(weight);
    const b = tensor(bias).values;
    return ({values}) => {
      const out = new Float32Array(rows);
      for (let row = 0, at = 0; row < rows; row++) {
        let sum = b[row], other = 0, column = 0;
        for (; column + 1 < columns; column += 2, at += 2) {
          sum += w[at] * values[column];
          other += w[at + 1] * values[column + 1];
        }
        if (column < columns) sum += w[at++] * values[column];
        out[row] = sum + other;
      }
      return {values: out, shape: [rows]};
    };
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
    const {shape: [outputs, inputs, tall, wide], values: w} = tensor(weight), b = tensor(bias).values;
    return ({values, shape: [, height, width]}) => {
      const rows = Math.floor((height + 2 * padding[0] - tall) / stride[0]) + 1;
      const columns = Math.floor((width + 2 * padding[1] - wide) / stride[1]) + 1;
      const out = new Float32Array(outputs * rows * columns);
      eachTap(w, outputs, inputs, tall, wide, [height, width], [rows, columns], stride, padding,
              (tap, output, input, y, x, row, column, count) => {
                let to = (output * rows + row) * columns + column, from = (input * height + y) * width + x;
                for (let i = 0; i < count; i++, to++, from += stride[1]) out[to] += tap * values[from];
              });
      addBias(out, b, rows * columns);
      return {values: out, shape: [outputs, rows, columns]};
    };
  },

  deconvolution: ({weight, bias, stride, padding, outputPadding}, tensor) => {
    const {shape: [inputs, outputs, tall, wide], values: w} = tensor(weight), b = tensor(bias).values;
    return ({values, shape: [, height, width]}) => {
      const rows = (height - 1) * stride[0] - 2 * padding[0] + tall + outputPadding[0];
      const columns = (width - 1) * stride[1] - 2 * padding[1] + wide + outputPadding[1];
      const out = new Float32Array(outputs * rows * columns);
      // Seen from what comes out, it is the convolution above read from right to left.
      eachTap(w, inputs, outputs, tall, wide, [rows, columns], [height, width], stride, padding,
              (tap, input, output, y, x, row, column, count) => {
                let from = (input * height + row) * width + column, to = (output * rows + y) * columns + x;
                for (let i = 0; i < count; i++, from++, to += stride[1]) out[to] += tap * values[from];
              });
      addBias(out, b, rows * columns);
      return {values: out, shape: [outputs, rows, columns]};
    };
  },
};

// Each weight of a kernel with each line of positions that it connects: (first, second) are channels of the small and
// of the large side, (y, x) is where the line begins on the large side, (row, column) on the small one.
const eachTap = (w, firsts, seconds, tall, wide, large, small, stride, padding, act) => {
  for (let first = 0, at = 0; first < firsts; first++) {
    for (let second = 0; second < seconds; second++) {
      for (let ky = 0; ky < tall; ky++) {
        const [top, bottom] = reach(ky, stride[0], padding[0], large[0], small[0]);
        for (let kx = 0; kx < wide; kx++, at++) {
          const [left, right] = reach(kx, stride[1], padding[1], large[1], small[1]);
          for (let row = top; row <= bottom; row++) {
            act(w[at], first, second, row * stride[0] - padding[0] + ky, left * stride[1] - padding[1] + kx, row, left,
                right - left + 1);
          }
        }
      }
    }
  }
};

const addBias = (out, bias, positions) => {
  for (let channel = 0, at = 0; channel < bias.length; channel++) {
    for (let i = 0; i < positions; i++, at++) out[at] += bias[channel];
  }
};

const makeNetwork = (layers, tensor) => {
  const steps = layers.map((layer) => LAYERS[layer.kind](layer, tensor));
  return (values, shape) => steps.reduce((state, step) => step(state), {values, shape}).values;
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
