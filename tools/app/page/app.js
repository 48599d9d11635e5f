// The page: opened files, thresholds, detections. Boxes always come from the program, which runs the same NMS as
// detect.py; after a change of the thresholds the page requests them again, from candidates that the program keeps.

import { drawBoxes, drawThumbnail, scaleFor, styleForFile, styleForScreen } from "./draw.js";
import { make, showRouting } from "./routing.js";
import { cancelVideo, request, runVideo } from "./video.js";

const at = (id) => document.getElementById(id);
const VIDEO_NAME = /\.(mp4|m4v|mov|webm|mkv|avi|mpe?g|wmv|asf|ts|flv)$/i;
const MAX_ROWS = 300; // in the table; the JSON has all
const MAX_BITMAPS = 6; // decoded images that are kept
const SLIDERS = ["conf", "iou", "max_det"];

let model = null;
let items = []; // {kind: "image" | "video", file, name, ...}
let current = null;
let generation = 0; // counts the changes of the thresholds
let updating = false;
let chosen = -1; // the row of the table under the mouse or the keyboard
let loadingPreview = false;

// --- thresholds ------------------------------------------------------------------------------------------------------

const classBoxes = () => [...at("classes").querySelectorAll("input")];

function query() {
  const values = new URLSearchParams();
  for (const id of SLIDERS) values.set(id, at(id).dataset.value);
  if (at("agnostic").checked) values.set("agnostic", "1");
  const kept = classBoxes().filter((box) => box.checked);
  if (kept.length < model.classes.length) values.set("classes", kept.map((box) => box.value).join(","));
  return values.toString();
}

function setSlider(id, value) {
  at(id).dataset.value = value;
  at(id).value = value;
  at(`${id}-number`).value = value;
}

function addSliderListeners(id) {
  const [slider, number] = [at(id), at(`${id}-number`)];
  slider.addEventListener("input", () => {
    setSlider(id, slider.value);
    thresholdsChanged();
  });
  number.addEventListener("change", () => {
    const value = Math.min(Math.max(+number.value || 0, +number.min), +number.max);
    setSlider(id, number.step === "1" ? Math.round(value) : value);
    thresholdsChanged();
  });
}

function thresholdsChanged() {
  generation += 1;
  const [all, kept] = [model.classes.length, classBoxes().filter((box) => box.checked).length];
  at("class-count").textContent = kept === all ? `all ${kept}` : `${kept} of ${all}`;
  if (current?.kind === "video") show();
  updateBoxes();
}

function fillClasses() {
  for (const [index, entry] of model.classes.entries()) {
    const [item, label, box, swatch] = [make("li"), make("label"), make("input"), make("span", "swatch")];
    Object.assign(box, { type: "checkbox", checked: true, value: index });
    box.addEventListener("change", thresholdsChanged);
    swatch.style.background = entry.color;
    label.append(box, swatch, entry.name);
    item.append(label);
    at("classes").append(item);
  }
  const checkAll = (checked) => () => {
    for (const item of at("classes").children) if (!item.hidden) item.querySelector("input").checked = checked;
    thresholdsChanged();
  };
  at("class-all").addEventListener("click", checkAll(true));
  at("class-none").addEventListener("click", checkAll(false));
  at("class-search").addEventListener("input", () => {
    const word = at("class-search").value.trim().toLowerCase();
    for (const item of at("classes").children) item.hidden = !item.textContent.toLowerCase().includes(word);
  });
}

// --- opening files ---------------------------------------------------------------------------------------------------

function open(files) {
  const before = items.length;
  for (const file of files) {
    if (file.size > model.max_upload) {
      showProblem(`${file.name}: more than ${model.max_upload / 1e6} MB, which is what --max-upload allows.`);
      continue;
    }
    const video = file.type.startsWith("video/") || VIDEO_NAME.test(file.name);
    const item = { kind: video ? "video" : "image", file, name: file.name, generation: -1 };
    items.push(item);
    addButton(item);
    if (video) startVideo(item);
  }
  if (items.length > before) select(items[before]);
  updateBoxes();
}

function videoQuery() {
  return `${query()}&stride=${Math.min(Math.max(Math.round(+at("stride").value) || 1, 1), 10000)}`;
}

function startVideo(item) {
  if (item.id) cancelVideo(item);
  runVideo(item, videoQuery(), () => {
    if (item.state.status === "failed") showProblem(`${item.name}: ${item.state.detail}`);
    showButton(item);
    if (item === current) show();
  });
}

function addButton(item) {
  item.button = make("button");
  Object.assign(item.button, { type: "button", title: item.name });
  item.thumbnail = make("canvas");
  Object.assign(item.thumbnail, { width: 192, height: 128 });
  item.label = make("span");
  item.button.append(item.thumbnail, make("span", "name", item.name), item.label);
  item.button.addEventListener("click", () => select(item));
  item.entry = make("li");
  item.entry.append(item.button);
  at("items").append(item.entry);
  at("items").hidden = false;
  showButton(item);
}

function showButton(item) {
  const states = { sending: "sending …", running: "running …", done: "video", cancelled: "cancelled", failed: "failed" };
  const bad = item.problem || item.state?.status === "failed";
  const count = item.boxes ? `${item.boxes.length} objects` : "waiting …";
  item.label.textContent = bad ? "failed" : item.kind === "video" ? states[item.state?.status] || "" : count;
  item.label.classList.toggle("bad", Boolean(bad));
}

function select(item) {
  current = item;
  chosen = -1;
  for (const other of items) other.button.setAttribute("aria-current", String(other === item));
  show();
  updateBoxes();
}

function remove(item) {
  const index = items.indexOf(item);
  items.splice(index, 1);
  item.entry.remove();
  item.bitmap?.close();
  if (item.kind === "video") cancelVideo(item);
  else if (item.id) request(`images/${item.id}`, { method: "DELETE" }).catch(() => {});
  at("items").hidden = items.length === 0;
  current = null;
  if (items.length) select(items[Math.min(index, items.length - 1)]);
  else show();
}

// --- boxes -----------------------------------------------------------------------------------------------------------

/** Update the boxes of all images to the thresholds, the current one first. */
async function updateBoxes() {
  if (updating) return;
  updating = true;
  const stale = (item) => item && item.kind === "image" && !item.problem && item.generation !== generation;
  for (let item; (item = stale(current) ? current : items.find(stale)); ) await update(item);
  updating = false;
}

async function update(item) {
  const [requested, thresholds] = [generation, query()];
  try {
    const path = `images${item.id ? `/${item.id}` : ""}?${thresholds}`;
    const answer = await request(path, item.id ? {} : { method: "POST", body: item.file });
    Object.assign(item, await answer.json(), { generation: requested, query: thresholds });
    if (!item.hasThumbnail) {
      drawThumbnail(item.thumbnail, await bitmapOf(item), item.width, item.height);
      item.hasThumbnail = true;
    }
  } catch (problem) {
    if (problem.status === 404 && item.id) {
      item.id = null; // the program keeps a limited number of images: send it again
      return;
    }
    item.generation = requested;
    if (problem.status !== 0) item.problem = problem.message;
    showProblem(`${item.name}: ${problem.message}`);
  }
  showButton(item);
  if (item === current) await show();
}

/** The image as the model reads it; from the program where the browser cannot read it or reads it otherwise. */
async function bitmapOf(item) {
  if (item.bitmap) return item.bitmap;
  let bitmap = await createImageBitmap(item.file).catch(() => null);
  if (!bitmap || bitmap.width !== item.width || bitmap.height !== item.height) {
    const answer = await request("png", { method: "POST", body: item.file });
    bitmap = await createImageBitmap(await answer.blob());
  }
  item.bitmap = bitmap;
  const kept = items.filter((other) => other.bitmap && other !== current && other !== item);
  for (const other of kept.slice(0, Math.max(0, kept.length - MAX_BITMAPS))) {
    other.bitmap.close();
    other.bitmap = null;
  }
  return bitmap;
}

// --- showing ---------------------------------------------------------------------------------------------------------

async function show() {
  const item = current;
  const video = item?.kind === "video";
  const image = item?.kind === "image" && item.boxes ? item : null;
  document.body.classList.toggle("empty", !item);
  at("stage").hidden = !video && !image;
  at("canvas").hidden = !image;
  at("save-image").hidden = video;
  at("save-json").hidden = video && item.state.status !== "done";
  if (video) showVideo(item);
  else {
    for (const id of ["progress", "video", "save-video", "again"]) at(id).hidden = true;
    at("video").removeAttribute("src");
    at("timing").textContent = at("summary").textContent = "";
  }
  showKernels(item);
  showTable(image);
  if (!image) {
    const waiting = item?.problem || (item ? "Waiting for the model …" : "Nothing opened yet.");
    at("detections-note").textContent = video ? "The boxes of a video are drawn into it; the JSON has them all." : waiting;
    return;
  }
  at("timing").textContent = Object.entries(item.ms).map(([stage, ms]) => `${stage} ${ms.toFixed(1)} ms`).join(" · ");
  at("summary").textContent = `${item.name}: ${item.width} × ${item.height}, ${summary(item.boxes)}`;
  await paint(item);
}

async function paint(item) {
  await bitmapOf(item);
  if (item !== current || !item.bitmap) return;
  const space = { width: at("stage").clientWidth - 34, height: window.innerHeight * 0.64 };
  const scale = scaleFor(item.width, item.height, space);
  drawBoxes(at("canvas"), item, model.classes, { scale, ...styleForScreen(), labels: at("labels").checked, chosen });
  at("canvas").style.width = `${Math.round(at("canvas").width / (window.devicePixelRatio || 1))}px`;
  at("canvas").setAttribute("aria-label", `image with ${summary(item.boxes)}`);
  at("canvas").dataset.scale = scale;
}

function summary(boxes) {
  const counts = new Map();
  for (const box of [...boxes].sort((a, b) => a[5] - b[5])) counts.set(box[5], (counts.get(box[5]) || 0) + 1);
  return [...counts].map(([kind, n]) => `${n} ${model.classes[kind].name}`).join(", ") || "no objects";
}

function showTable(item) {
  const boxes = item?.boxes || [];
  at("detections").hidden = !boxes.length;
  at("count").textContent = item ? `(${boxes.length})` : "";
  at("count").dataset.count = boxes.length;
  const over = boxes.length > MAX_ROWS ? `The first ${MAX_ROWS} of ${boxes.length}; the JSON has all.` : "";
  at("detections-note").textContent = item ? over || (boxes.length ? "" : "Nothing at these thresholds.") : "";
  at("detections").tBodies[0].replaceChildren(...boxes.slice(0, MAX_ROWS).map((box, index) => tableRow(box, index)));
}

function tableRow([x1, y1, x2, y2, confidence, kind], index) {
  const [row, name, swatch] = [make("tr"), make("td"), make("span", "swatch")];
  swatch.style.background = model.classes[kind].color;
  name.append(swatch, model.classes[kind].name);
  row.append(name, make("td", "", confidence.toFixed(3)));
  row.append(make("td", "", [x1, y1, x2, y2].map((value) => value.toFixed(0)).join(", ")));
  row.tabIndex = 0;
  const choose = (which) => () => {
    chosen = which;
    if (current?.kind === "image") paint(current);
  };
  for (const event of ["mouseenter", "focus"]) row.addEventListener(event, choose(index));
  for (const event of ["mouseleave", "blur"]) row.addEventListener(event, choose(-1));
  return row;
}

function showKernels(item) {
  const routing = item?.routing || {};
  const shown = Object.keys(routing).length > 0;
  const waiting = "Open an image to see how much of each kernel its dynamic layers take.";
  const means = item?.kind === "video" && shown ? "Mean over the frames; below each bar the course over the video." : "";
  at("kernels-note").textContent = model.why_no_routing || (shown ? means : waiting);
  showRouting(at("kernels"), model.layers, routing, item?.state?.course);
}

function showVideo(item) {
  const { status, frames, total, objects, note, detail } = item.state;
  const [busy, done] = [status === "sending" || status === "running", status === "done"];
  at("progress").hidden = !busy;
  at("video").hidden = at("save-video").hidden = !done;
  at("again").hidden = busy || (done && item.query === videoQuery());
  if (busy) {
    if (total) Object.assign(at("bar"), { max: total, value: frames });
    else at("bar").removeAttribute("value");
    const of = total ? ` of ${total}` : "";
    at("progress-text").textContent = status === "sending" ? "sending …" : `frame ${frames}${of}, ${objects} objects`;
    showPreview(item);
  }
  if (done) {
    const address = `api/videos/${item.id}/result`;
    if (at("video").getAttribute("src") !== address) at("video").src = address;
    Object.assign(at("save-video"), { href: address, download: `${stem(item.name)}-boxes` });
  } else at("video").removeAttribute("src");
  const sentences = { cancelled: "cancelled", failed: detail, done: `${frames} frames, ${objects} objects. ${note || ""}` };
  at("summary").textContent = `${item.name}: ${busy ? "running …" : sentences[status]}`;
  at("timing").textContent = "";
}

/** The newest frame, as often as the program can send it. */
function showPreview(item) {
  if (item.state.status !== "running" || !item.state.frames) {
    at("preview").hidden = true;
    return;
  }
  if (loadingPreview) return;
  loadingPreview = true;
  const image = new Image();
  image.onload = image.onerror = () => {
    loadingPreview = false;
    if (item !== current || !image.naturalWidth) return;
    at("preview").src = image.src;
    at("preview").hidden = false;
    if (!item.hasThumbnail) drawThumbnail(item.thumbnail, image, image.naturalWidth, image.naturalHeight);
    item.hasThumbnail = true;
  };
  image.src = `api/videos/${item.id}/preview?frame=${item.state.frames}`;
}

function showProblem(text) {
  const [line, close] = [make("div", "problem"), make("button", "", "×")];
  close.type = "button";
  close.setAttribute("aria-label", "Dismiss");
  close.addEventListener("click", () => line.remove());
  line.append(make("span", "", text), close);
  at("problems").append(line);
}

// --- saving ----------------------------------------------------------------------------------------------------------

const stem = (name) => name.replace(/\.[^.]*$/, "") || "image";

function save(blob, name) {
  const link = make("a");
  Object.assign(link, { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function saveImage() {
  const item = current;
  const canvas = make("canvas");
  await bitmapOf(item);
  const style = { ...styleForFile(item.width, item.height), labels: at("labels").checked };
  drawBoxes(canvas, item, model.classes, style);
  canvas.toBlob((blob) => save(blob, `${stem(item.name)}-boxes.png`), "image/png");
}

async function saveJson() {
  const item = current;
  if (item.kind === "video") {
    save(await (await request(`videos/${item.id}/table`)).blob(), `${stem(item.name)}.json`);
    return;
  }
  const detections = item.boxes.map(([x1, y1, x2, y2, confidence, kind]) => ({
    class: kind, name: model.classes[kind].name, confidence, box_xyxy: [x1, y1, x2, y2],
  }));
  const thresholds = Object.fromEntries(new URLSearchParams(item.query));
  const { name: file, width, height, routing } = item;
  const content = { file, model: model.model, height, width, thresholds, detections, routing };
  save(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }), `${stem(file)}.json`);
}

// --- start -----------------------------------------------------------------------------------------------------------

function addListeners() {
  for (const id of SLIDERS) addSliderListeners(id);
  at("stride").addEventListener("change", () => current?.kind === "video" && show());
  at("agnostic").addEventListener("change", thresholdsChanged);
  at("labels").addEventListener("change", () => current?.kind === "image" && paint(current));
  at("files").addEventListener("change", () => {
    open([...at("files").files]);
    at("files").value = "";
  });
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    dragging(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || dragging(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(false);
    open([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => open([...(event.clipboardData?.files || [])]));
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !current || event.target.closest("input, video, .scroll")) return;
    const next = items[items.indexOf(current) + step];
    if (next) select(next);
  });
  const safely = (action) => () => action().catch((problem) => showProblem(problem.message));
  at("save-image").addEventListener("click", safely(saveImage));
  at("save-json").addEventListener("click", safely(saveJson));
  at("remove").addEventListener("click", () => remove(current));
  at("again").addEventListener("click", () => startVideo(current));
  at("cancel").addEventListener("click", () => {
    cancelVideo(current);
    showButton(current);
    show();
  });
  window.addEventListener("resize", () => current?.kind === "image" && current.boxes && paint(current));
  window.addEventListener("pageshow", (event) => event.persisted && location.reload()); // its videos were deleted
  window.addEventListener("pagehide", () => items.filter((item) => item.kind === "video").forEach(cancelVideo));
}

async function start() {
  model = await (await request("model")).json();
  const [height, width] = model.imgsz;
  const temperatures = [...new Set(model.layers.map((layer) => layer.temperature).filter(Boolean))];
  const layers = model.layers.length;
  const facts = [
    model.model, `${model.classes.length} classes`, `${width} × ${height} px`, model.device + (model.half ? ", half precision" : ""),
    layers ? `${layers} dynamic layer${layers > 1 ? "s" : ""}` : "",
    temperatures.length ? `temperature ${temperatures.map((t) => +t.toPrecision(4)).join(", ")}` : "",
  ];
  at("about").textContent = facts.filter(Boolean).join(" · ");
  document.title = `${model.model} – Detector`;
  for (const id of ["conf", "conf-number"]) {
    at(id).min = model.min_conf;
    if (model.min_conf < 0.01) at(id).step = 0.001;
  }
  at("max_det").max = Math.max(1000, model.start.max_det);
  for (const id of SLIDERS) setSlider(id, model.start[id]);
  fillClasses();
  thresholdsChanged();
  addListeners();
  showKernels(null);
  document.body.dataset.ready = "yes";
}

start().catch((problem) => showProblem(problem.message));
