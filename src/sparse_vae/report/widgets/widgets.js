// Brings every <div class="widget"> to life whose data are near: those inside of it, or the file that data-src names,
// fetched when a reader comes near.

import {draw} from "./draw.js";
import {explorer} from "./explorer.js";
import {make, readAddress, writeAddress} from "./page.js";
import {train} from "./train.js";
import {units} from "./units.js";

const KINDS = {draw, explorer, train, units};
const NEAR = "600px";

const build = async (root) => {
  const {name} = root.dataset;
  const inside = root.querySelector('script[type="application/json"]'), source = root.dataset.src;
  const base = source ? new URL(source, import.meta.url) : document.baseURI;
  const address = {read: () => readAddress(name), write: (values) => name && writeAddress(name, values)};
  try {
    const data = inside ? JSON.parse(inside.textContent) : await (await fetch(base)).json();
    const stage = make("div", {className: `widget-stage ${root.dataset.widget}`});
    root.append(stage);
    await KINDS[root.dataset.widget](stage, data, base, address);
    root.replaceChildren(stage);
    root.dataset.ready = "";
  } catch (error) {
    root.querySelector(".widget-stage")?.remove();
    root.append(make("p", {className: "widget-note", role: "alert"}, `This could not be loaded: ${error.message}`));
    throw error;
  }
};

const watcher = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    build(target);
  }
}, {rootMargin: NEAR});

for (const root of document.querySelectorAll(".widget:not([data-found])")) {
  root.dataset.found = "";
  if (Object.keys(readAddress(root.dataset.name)).length) root.scrollIntoView(); // that it is near
  watcher.observe(root);
}
