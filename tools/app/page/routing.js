// Routing weights of the dynamic layers: a bar per layer, and for a video its course in time.

const COLORS = 8; // classes k0 ... k7 of the style sheet; then they repeat

/** Make an element with a class name and a text. */
export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/**
 * Show the weights of the kernels.
 * @param {HTMLElement} place is emptied first
 * @param {{name: string, kind: string, temperature: ?number, sums_to_one: boolean}[]} layers of the model
 * @param {Object<string, number[]>} weights of each kernel by the name of the layer
 * @param {Object<string, number[][]>} course the same at points in time, for a video
 */
export function showRouting(place, layers, weights, course = {}) {
  place.replaceChildren();
  const shown = layers.filter((layer) => layer.name in weights);
  if (!shown.length) return;
  place.append(legend(Math.max(...shown.map((layer) => weights[layer.name].length))));
  const list = make("ol", "layers");
  for (const layer of shown) list.append(row(layer, weights[layer.name], course[layer.name]));
  place.append(list);
  for (const strip of place.querySelectorAll("canvas")) paintCourse(strip, course[strip.dataset.layer]);
}

function legend(kernels) {
  const line = make("p", "legend");
  for (let k = 0; k < kernels; k += 1) {
    const item = make("span");
    item.append(make("span", `swatch k${k % COLORS}`), `kernel ${k}`);
    line.append(item);
  }
  return line;
}

function row(layer, weights, course) {
  const item = make("li", "layer");
  item.dataset.layer = layer.name;
  const title = make("div", "layer-title");
  const temperature = layer.temperature ? `, temperature ${+layer.temperature.toPrecision(4)}` : "";
  const rule = layer.sums_to_one ? `softmax${temperature}` : "sigmoid, each kernel by itself";
  title.append(make("b", "", `Layer ${layer.name}`), make("span", "", `${layer.kind} · ${rule}`));
  title.append(make("span", "strongest", strongest(weights)));
  const bar = layer.sums_to_one ? stack(weights) : meters(weights);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", weights.map((weight, k) => `kernel ${k}: ${weight.toFixed(3)}`).join(", "));
  item.append(title, bar);
  if (course && course.length > 1) {
    const strip = make("canvas", "course");
    strip.dataset.layer = layer.name;
    strip.title = "over the video, from its beginning to its end";
    item.append(strip);
  }
  return item;
}

function strongest(weights) {
  const most = Math.max(...weights);
  if (weights.length > 1 && most - Math.min(...weights) < 0.005) return "all kernels alike";
  return `most: kernel ${weights.indexOf(most)}`;
}

/** One bar of weights that sum to one, side by side. */
function stack(weights) {
  const bar = make("div", "stack");
  weights.forEach((weight, k) => {
    const part = make("span", `k${k % COLORS}`, weight >= 0.07 ? weight.toFixed(2) : "");
    part.style.width = `${100 * weight}%`;
    bar.append(withWeight(part, weight, k));
  });
  return bar;
}

/** One meter for each of the independent weights from 0 to 1. */
function meters(weights) {
  const bar = make("div", "meters");
  weights.forEach((weight, k) => {
    const [part, fill] = [make("div"), make("i", `k${k % COLORS}`)];
    fill.style.width = `${100 * Math.min(1, weight)}%`;
    part.append(fill, make("em", "", weight.toFixed(2)));
    bar.append(withWeight(part, weight, k));
  });
  return bar;
}

function withWeight(part, weight, k) {
  part.title = `kernel ${k}: ${weight.toFixed(4)}`;
  part.dataset.weight = weight;
  return part;
}

/** Paint stacked shares from left (the beginning) to right. */
function paintCourse(strip, course) {
  const ratio = window.devicePixelRatio || 1;
  strip.width = Math.max(course.length, Math.round(strip.clientWidth * ratio));
  strip.height = Math.round(34 * ratio);
  const context = strip.getContext("2d");
  const colors = course[0].map((_, k) => colorOf(k));
  course.forEach((weights, index) => {
    const from = Math.floor((index * strip.width) / course.length);
    const to = Math.floor(((index + 1) * strip.width) / course.length);
    const sum = weights.reduce((total, weight) => total + weight, 0) || 1;
    let y = 0;
    weights.forEach((weight, k) => {
      const height = (weight / sum) * strip.height;
      context.fillStyle = colors[k];
      context.fillRect(from, y, to - from, height + 0.5);
      y += height;
    });
  });
}

function colorOf(kernel) {
  const sample = make("span", `k${kernel % COLORS}`);
  document.body.append(sample);
  const color = getComputedStyle(sample).backgroundColor;
  sample.remove();
  return color;
}
