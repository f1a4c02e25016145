// Builds every <div class="explorer"> that is not built yet: runs its decoders here, in the page, and gives each latent
// dimension a switch and a slider. What it shows is the JSON inside of it, see explorer/__init__.py.
(() => {
  "use strict";

  const ROWS = 12; // dimensions that are shown at once; the others are folded
  const CURVE = {width: 320, height: 200};
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"];

  // --- numbers

  const fromHalf = (bits) => {
    const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction;
    return bits & 0x8000 ? -size : size;
  };

  const unpack = ({shape, data}) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const values = Float32Array.from({length: bytes.length / 2}, (_, i) => fromHalf(view.getUint16(2 * i, true)));
    return {shape, values};
  };

  // --- layers: what each makes of {values, shape}

  const pointwise = (f) => () => ({values, shape}) => ({values: values.map(f), shape});

  const LAYERS = {
    relu: pointwise((value) => Math.max(value, 0)),
    sigmoid: pointwise((value) => 1 / (1 + Math.exp(-value))),

    linear: (layer) => {
      const weight = unpack(layer.weight), bias = unpack(layer.bias), [rows, columns] = weight.shape;
      return ({values}) => ({shape: [rows], values: bias.values.map((start, row) => {
        let sum = start;
        for (let column = 0; column < columns; column++) sum += weight.values[row * columns + column] * values[column];
        return sum;
      })});
    },

    // Vectors that name all channels of a position before the next one, to a map for each channel.
    unflatten: ({shape}) => ({values}) => {
      const [channels, height, width] = shape, positions = height * width;
      const value = (i) => values[(i % positions) * channels + Math.floor(i / positions)];
      return {shape, values: values.map((_, i) => value(i))};
    },

    // Every input lays its multiple of the kernel onto the output.
    deconvolution: ({stride, padding, outputPadding, ...layer}) => {
      const weight = unpack(layer.weight), bias = unpack(layer.bias), [, channels, tall, wide] = weight.shape;
      return ({values, shape: [inputs, height, width]}) => {
        const rows = (height - 1) * stride[0] - 2 * padding[0] + tall + outputPadding[0];
        const columns = (width - 1) * stride[1] - 2 * padding[1] + wide + outputPadding[1];
        const out = Float32Array.from({length: channels * rows * columns},
                                      (_, i) => bias.values[Math.floor(i / (rows * columns))]);
        for (let input = 0, at = 0; input < inputs; input++) {
          for (let y = 0; y < height; y++) {
            for (let x = 0; x < width; x++, at++) {
              if (values[at] === 0) continue;
              for (let channel = 0; channel < channels; channel++) {
                for (let ky = 0; ky < tall; ky++) {
                  const row = y * stride[0] - padding[0] + ky;
                  if (row < 0 || row >= rows) continue;
                  for (let kx = 0; kx < wide; kx++) {
                    const column = x * stride[1] - padding[1] + kx;
                    if (column < 0 || column >= columns) continue;
                    out[(channel * rows + row) * columns + column] +=
                      values[at] * weight.values[((input * channels + channel) * tall + ky) * wide + kx];
                  }
                }
              }
            }
          }
        }
        return {values: out, shape: [channels, rows, columns]};
      };
    },
  };

  const makeDecoder = (layers) => {
    const steps = layers.map((layer) => LAYERS[layer.kind](layer));
    return (z) => steps.reduce((state, step) => step(state), {values: z, shape: [z.length]}).values;
  };

  // --- pictures

  const drawImage = (canvas, values, [channels, height, width], [low, high]) => {
    Object.assign(canvas, {width, height});
    const image = new ImageData(width, height);
    for (let pixel = 0; pixel < width * height; pixel++) {
      for (let colour = 0; colour < 3; colour++) {
        const value = values[(channels === 3 ? colour : 0) * width * height + pixel];
        image.data[4 * pixel + colour] = 255 * (value - low) / (high - low); // clamped to 0 … 255
      }
      image.data[4 * pixel + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  };

  const drawCurves = (canvas, values, shape, [low, high]) => {
    Object.assign(canvas, CURVE);
    const length = shape[shape.length - 1], context = canvas.getContext("2d");
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

  // --- the page

  const make = (name, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  };

  const build = (root) => {
    const data = JSON.parse(root.querySelector("script").textContent);
    const observations = unpack(data.observations), size = data.shape.reduce((a, b) => a * b, 1);
    const draw = (canvas, values) => (data.shape.length === 3 ? drawImage : drawCurves)(
      canvas, values, data.shape, data.limits);
    const observation = (index) => observations.values.subarray(index * size, (index + 1) * size);

    const models = data.models.map((model) => {
      let opened; // weights are unpacked when the model is first chosen
      return () => opened ??= {...model, codes: unpack(model.codes).values, decode: makeDecoder(model.layers)};
    });
    let model = models[0](), chosen = 0, z;

    const select = make("select", {}, ...data.models.map(({title}, value) => make("option", {value}, title)));
    const decoded = make("canvas"), original = make("canvas"), note = make("p", {className: "explorer-note"});
    const originalFigure = make("figure", {}, original, make("figcaption", {}, "the observation"));
    const rows = make("div", {className: "explorer-rows"});
    const names = data.names.map((name, index) => `observation ${index}` + (name && `: ${name}`));
    const starts = names.map((title, index) => {
      const picture = make("canvas");
      draw(picture, observation(index));
      return make("button", {type: "button", title, ariaLabel: `start from ${title}`, onclick: () => start(index)},
                  picture);
    });
    const zero = make("button", {type: "button", className: "explorer-zero", onclick: () => start(null)}, "all 0");
    decoded.setAttribute("role", "img");
    original.setAttribute("role", "img");

    const update = () => {
      draw(decoded, model.decode(z));
      const on = z.filter((value) => value !== 0).length;
      decoded.setAttribute("aria-label", `what ${model.title} decodes from a code with ${on} of ${z.length} not zero`);
      note.textContent = `${on} of ${z.length} dimensions are not 0. Beside each: the share of the test data for ` +
        `which it is active, which means here: ${model.activeMeans}.`;
    };

    const makeRow = ({index, low, high, usual, rate}) => {
      let kept = z[index] || usual;
      const toggle = make("input", {type: "checkbox", ariaLabel: `dimension ${index} on`});
      const slider = make("input", {type: "range", min: low, max: high, step: (high - low) / 100,
                                    ariaLabel: `value of dimension ${index}`});
      const value = make("output");
      const set = (number) => {
        z[index] = number;
        toggle.checked = number !== 0;
        value.textContent = number === 0 ? "0" : number.toFixed(2).replace("-", "−");
      };
      slider.oninput = () => { set(Number(slider.value)); kept = z[index] || kept; update(); };
      toggle.onchange = () => { slider.value = toggle.checked ? kept : 0; set(toggle.checked ? kept : 0); update(); };
      slider.value = z[index];
      set(z[index]);
      const activity = make("small", {}, `${(100 * rate).toFixed(0)}%`);
      return make("div", {className: "explorer-row"}, make("label", {}, toggle, `z${index}`, activity), value, slider);
    };

    const start = (index) => {
      chosen = index;
      const length = model.dimensions.length;
      z = index === null ? new Float32Array(length) : model.codes.slice(index * length, (index + 1) * length);
      starts.forEach((button, at) => { button.ariaPressed = String(at === index); });
      zero.ariaPressed = String(index === null);
      originalFigure.hidden = index === null;
      if (index !== null) {
        draw(original, observation(index));
        original.setAttribute("aria-label", names[index]);
      }
      const made = model.dimensions.map(makeRow);
      rows.replaceChildren(...made.slice(0, ROWS));
      if (made.length > ROWS) {
        const more = make("div", {className: "explorer-rows"}, ...made.slice(ROWS));
        rows.append(make("details", {}, make("summary", {}, `${made.length - ROWS} more`), more));
      }
      update();
    };

    select.onchange = () => { model = models[select.value](); start(chosen); };
    root.replaceChildren(
      make("div", {className: "explorer-start"}, make("label", {}, "Model: ", select), ...starts, zero),
      make("div", {className: "explorer-view"},
           make("figure", {}, decoded, make("figcaption", {}, "decoded from the code")), originalFigure),
      rows, note);
    root.dataset.ready = "";
    root.decode = (title, code) => Array.from(
      models[data.models.findIndex((one) => one.title === title)]().decode(Float32Array.from(code)));
    start(0);
  };

  document.querySelectorAll(".explorer:not([data-ready])").forEach(build);
})();
