// Plots that answer to a reader: a Vega-Lite specification takes the place of its picture when the reader comes near.
// Beside picture.png lie picture.json, the specification, and picture.csv, its data (report/extract.py).

import {make} from "./page.js";

const PANEL = 240; // narrowest panel, in pixels
let library;
const watching = new WeakMap(); // what watches the element that a plot was drawn into

document.head.append(make("link", {rel: "stylesheet", href: new URL("plots.css", import.meta.url)}));

// The library is large: it comes with the first plot.
export const loadVega = () => library ??= import("./vega.js").then(() => globalThis.vegaEmbed);

// The specification in the page's colours, at most so wide.
const fitted = (specification, width, ink) => {
  const {$schema, ...rest} = specification; // the library here is a later one
  const text = JSON.stringify(rest).replaceAll("#000000", ink), spec = JSON.parse(text);
  spec.columns = Math.max(1, Math.min(spec.columns, Math.floor(width / PANEL)));
  for (const panel of spec.concat) panel.width = Math.min(width / spec.columns - 85, 420);
  const quiet = "rgba(128, 128, 128, 0.3)";
  const colours = {labelColor: ink, titleColor: ink};
  return {...spec, background: "transparent", config: {...spec.config, font: "system-ui, sans-serif",
    axis: {...spec.config.axis, ...colours, gridColor: quiet, domainColor: quiet, tickColor: quiet},
    title: {color: ink}, legend: {disable: true}, mark: {aria: false}, aria: false}}; // the picture's words stand for it
};

const swatch = (colour, dash) => {
  const lines = `<svg width="22" height="10" aria-hidden="true"><line x1="1" x2="21" y1="5" y2="5" stroke="${colour}" ` +
    `stroke-width="3" stroke-dasharray="${dash}"/></svg>`;
  return make("span", {}, document.createRange().createContextualFragment(lines));
};

// Draws a specification into an element, with a button for each name. `pick` gets what stands under a click.
export const draw = async (target, specification, {alt, base = document.baseURI, pick}) => {
  const embed = await loadVega(), plot = make("div"); // whose role Vega sets
  const {color, strokeDash} = specification.concat[0].encoding;
  const names = color?.scale.domain ?? [], shown = new Set(names);
  const buttons = make("div", {class: "plot-names", role: "group", "aria-label": "Shown"});
  let view, width;
  const choose = () => view.data("shown_store", shown.size === names.length ? [] : [...shown].map((name) => (
    {unit: "", fields: [{type: "E", field: "name"}], values: [name]}))).runAsync();
  const again = async () => {
    width = target.clientWidth;
    const ink = getComputedStyle(target).color;
    view?.finalize();
    ({view} = await embed(plot, fitted(specification, width, ink), {actions: false, renderer: "svg", mode: "vega-lite",
      loader: {baseURL: new URL(".", base).href}, tooltip: {theme: document.body.matches(".quarto-dark") ? "dark" : ""}}));
    buttons.replaceChildren(...(names.length < 2 ? [] : names.map((name, i) => make("button", {
      type: "button", "aria-pressed": shown.has(name), onclick: (event) => {
        if (!shown.delete(name)) shown.add(name);
        if (!shown.size) names.forEach((each) => shown.add(each));
        [...buttons.children].forEach((button, j) => button.setAttribute("aria-pressed", shown.has(names[j])));
        choose();
      }}, swatch(color.scale.range[i].replace("#000000", ink), strokeDash?.scale.range[i] ?? "3 3"), name))));
    if (pick) view.addEventListener("click", (_, item) => { if (item?.datum) pick(item.datum.datum ?? item.datum); });
    if (shown.size < names.length) await choose();
  };
  target.replaceChildren(make("div", {class: "plot-view", role: "img", "aria-label": alt}, plot), buttons);
  await again();
  const ifSeen = (act) => () => { if (target.clientWidth) act(); }; // not when it was taken out, or is hidden
  const size = new ResizeObserver(ifSeen(() => { if (Math.abs(target.clientWidth - width) > 8) again(); }));
  const scheme = new MutationObserver(ifSeen(again));
  watching.get(target)?.forEach((observer) => observer.disconnect()); // of the plot that was here before
  watching.set(target, [size, scheme]);
  size.observe(target);
  scheme.observe(document.body, {attributeFilter: ["class"]});
};

const comeAlive = async (picture) => {
  const address = picture.src.replace(/\.\w+$/, ".json"), frame = picture.closest("a.lightbox") ?? picture;
  try {
    const [answer] = await Promise.all([fetch(address), loadVega()]);
    if (!answer.ok) return;
    const target = make("div", {class: "plot-frame"});
    target.style.minHeight = `${frame.getBoundingClientRect().height}px`;
    frame.replaceWith(target);
    try {
      await draw(target, await answer.json(), {alt: picture.alt, base: address});
    } catch (error) {
      target.replaceWith(frame);
      throw error;
    }
    target.style.minHeight = "";
  } catch (error) {
    console.warn(`${address}: the plot stays a picture`, error);
  }
};

const near = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    comeAlive(target);
  }
}, {rootMargin: "300px"});
if (location.protocol !== "file:") document.querySelectorAll("img.plot").forEach((picture) => near.observe(picture));
