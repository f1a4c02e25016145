// The explorer: decoders with a switch and a slider for each latent dimension, or a plane for two of them.

import {button, choice, drawObservation, labelled, make, opener, readSheet} from "./page.js";
import {makePlane} from "./plane.js";

const ROWS = 12; // dimensions that are shown at once; the others are folded

export const explorer = async (root, data, base, address) => {
  const {models, shape, limits} = data, observations = await readSheet(data.observations, base);
  const open = opener(models, base), names = data.names.map((name, i) => `observation ${i}` + (name && `: ${name}`));
  const asked = address.read();
  let number = Math.max(models.findIndex(({title}) => title === asked.model), 0), chosen = 0, model, z;

  const [decoded, original] = ["what is decoded", "the observation"].map((name) => make("canvas", {role: "img", ariaLabel: name}));
  const note = make("p", {className: "explorer-note"});
  const originalFigure = make("figure", {}, original, make("figcaption", {}, "the observation"));
  const rows = make("div", {className: "explorer-rows"});
  const starts = names.map((title, index) => {
    const picture = make("canvas");
    drawObservation(picture, observations[index], shape, limits);
    return button(picture, () => start(index), {title, ariaLabel: `start from ${title}`});
  });
  const zero = button("all 0", () => start(null), {className: "widget-button"});

  const update = () => {
    drawObservation(decoded, model.decode(z), shape, limits);
    const on = z.filter((value) => value !== 0).length;
    decoded.ariaLabel = `what ${model.title} decodes from a code with ${on} of ${z.length} not zero`;
    note.textContent = `${on} of ${z.length} dimensions are not 0. Beside each: the share of the test data for ` +
      `which it is active, which means here: ${model.activeMeans}.`;
  };

  const makeRow = ({index, low, high, usual, rate}) => {
    let kept = z[index] || usual;
    const toggle = make("input", {type: "checkbox", ariaLabel: `dimension ${index} on`});
    const slider = make("input", {type: "range", min: low, max: high, step: (high - low) / 100,
                                  ariaLabel: `value of dimension ${index}`});
    const value = make("output");
    const set = (amount) => {
      z[index] = amount;
      toggle.checked = amount !== 0;
      value.textContent = amount === 0 ? "0" : amount.toFixed(2).replace("-", "−");
    };
    slider.oninput = () => { set(Number(slider.value)); kept = z[index] || kept; update(); };
    toggle.onchange = () => { slider.value = toggle.checked ? kept : 0; set(toggle.checked ? kept : 0); update(); };
    slider.value = z[index];
    set(z[index]);
    const activity = make("small", {}, `${(100 * rate).toFixed(0)}%`);
    return make("div", {className: "explorer-row"}, make("label", {}, toggle, `z${index}`, activity), value, slider);
  };

  const makeRows = () => {
    const made = model.dimensions.map(makeRow);
    if (made.length <= ROWS) return made;
    const more = make("div", {className: "explorer-rows"}, ...made.slice(ROWS));
    return [...made.slice(0, ROWS), make("details", {}, make("summary", {}, `${made.length - ROWS} more`), more)];
  };

  const start = (index) => {
    chosen = index;
    z = index === null ? new Float32Array(model.latentDim) : model.encode(observations[index]).code;
    starts.forEach((each, at) => { each.ariaPressed = String(at === index); });
    zero.ariaPressed = String(index === null);
    originalFigure.hidden = index === null;
    if (index !== null) {
      drawObservation(original, observations[index], shape, limits);
      original.ariaLabel = names[index];
    }
    if (model.plane) {
      const plane = makePlane(model, {codes: model.plane, labels: data.planeLabels, classes: data.classes}, limits,
                              (code) => { z = code; update(); });
      plane.show(z);
      rows.replaceChildren(plane.node);
    } else rows.replaceChildren(...makeRows());
    update();
    address.write({model: model.title, from: index ?? "zero"});
  };

  const choose = async (index) => { model = await open(index); start(chosen); };
  const select = choice(models.map(({title}) => title), choose);
  select.value = number;
  root.replaceChildren(
    make("div", {className: "explorer-start"}, labelled("Model: ", select), ...starts, zero),
    make("div", {className: "explorer-view"},
         make("figure", {}, decoded, make("figcaption", {}, "decoded from the code")), originalFigure),
    rows, note);
  if ("from" in asked) chosen = names[asked.from] ? Number(asked.from) : null;
  await choose(number);
};
