// The page: opened files, thresholds, what was found. Boxes always come from the program, which runs the very
// suppression that detect.py runs; moving a threshold asks for it anew on candidates that the program has kept.

import { drawPicture, drawThumbnail, inPicture, onScreen, scaleFor } from "./draw.js";
import { make, showRouting } from "./routing.js";
import { ask, forgetVideo, runVideo } from "./video.js";

const at = (id) => document.getElementById(id);
const VIDEO_NAME = /\.(mp4|m4v|mov|webm|mkv|avi|mpe?g|wmv|asf|ts|flv)$/i;
const MOST_ROWS = 300; // in the table; the JSON has all
const MOST_BITMAPS = 6; // decoded pictures that are kept
const DIALS = ["conf", "iou", "max_det"];

let model = null;
let items = []; // {kind: "picture" | "video", file, name, ...}
let current = null;
let generation = 0; // counts the changes of the thresholds
let working = false;
let chosen = -1; // the row of the table under the mouse or the keyboard
let previewing = false;

// --- thresholds ------------------------------------------------------------------------------------------------------

function query() {
  const values = new URLSearchParams();
  for (const id of DIALS) values.set(id, at(id).dataset.value);
  if (at("agnostic").checked) values.set("agnostic", "1");
  const boxes = [...at("classes").querySelectorAll("input")];
  const kept = boxes.filter((box) => box.checked);
  if (kept.length < boxes.length) values.set("classes", kept.map((box) => box.value).join(","));
  return values.toString();
}

function setDial(id, value) {
  at(id).dataset.value = value;
  at(id).value = value;
  at(`${id}-number`).value = value;
}

function wireDial(id) {
  const [slider, number] = [at(id), at(`${id}-number`)];
  slider.addEventListener("input", () => {
    setDial(id, slider.value);
    thresholdsChanged();
  });
  number.addEventListener("change", () => {
    const value = Math.min(Math.max(+number.value || 0, +number.min), +number.max);
    setDial(id, number.step === "1" ? Math.round(value) : value);
    thresholdsChanged();
  });
}

function thresholdsChanged() {
  generation += 1;
  const boxes = [...at("classes").querySelectorAll("input")];
  const kept = boxes.filter((box) => box.checked).length;
  at("class-count").textContent = kept === boxes.length ? `all ${kept}` : `${kept} of ${boxes.length}`;
  if (current?.kind === "video") show();
  work();
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
      complain(`${file.name}: more than ${model.max_upload / 1e6} MB, which is what --max-upload allows.`);
      continue;
    }
    const video = file.type.startsWith("video/") || VIDEO_NAME.test(file.name);
    const item = { kind: video ? "video" : "picture", file, name: file.name, generation: -1 };
    items.push(item);
    addButton(item);
    if (video) startVideo(item);
  }
  if (items.length > before) select(items[before]);
  work();
}

function videoQuery() {
  return `${query()}&stride=${Math.min(Math.max(Math.round(+at("stride").value) || 1, 1), 10000)}`;
}

function startVideo(item) {
  if (item.id) forgetVideo(item);
  runVideo(item, videoQuery(), () => {
    if (item.state.status === "failed") complain(`${item.name}: ${item.state.detail}`);
    showButton(item);
    if (item === current) show();
  });
}

function addButton(item) {
  item.button = make("button");
  item.button.type = "button";
  item.thumbnail = make("canvas");
  Object.assign(item.thumbnail, { width: 192, height: 128 });
  item.label = make("span");
  item.button.append(item.thumbnail, make("span", "name", item.name), item.label);
  item.button.title = item.name;
  item.button.addEventListener("click", () => select(item));
  item.entry = make("li");
  item.entry.append(item.button);
  at("items").append(item.entry);
  at("items").hidden = false;
  showButton(item);
}

function showButton(item) {
  const states = { sending: "sending …", running: "working …", done: "video", cancelled: "cancelled", failed: "failed" };
  const bad = item.problem || item.state?.status === "failed";
  const picture = item.boxes ? `${item.boxes.length} found` : "waiting …";
  item.label.textContent = bad ? "failed" : item.kind === "video" ? states[item.state?.status] || "" : picture;
  item.label.classList.toggle("bad", Boolean(bad));
}

function select(item) {
  current = item;
  chosen = -1;
  for (const other of items) other.button.setAttribute("aria-current", String(other === item));
  show();
  work();
}

function remove(item) {
  const index = items.indexOf(item);
  items.splice(index, 1);
  item.entry.remove();
  item.bitmap?.close();
  if (item.kind === "video") forgetVideo(item);
  else if (item.id) ask(`pictures/${item.id}`, { method: "DELETE" }).catch(() => {});
  at("items").hidden = items.length === 0;
  current = null;
  if (items.length) select(items[Math.min(index, items.length - 1)]);
  else show();
}

// --- boxes -----------------------------------------------------------------------------------------------------------

/** Bring the boxes of all pictures up to date with the thresholds, the one on show first. */
async function work() {
  if (working) return;
  working = true;
  const stale = (item) => item && item.kind === "picture" && !item.problem && item.generation !== generation;
  for (let item; (item = stale(current) ? current : items.find(stale)); ) await update(item);
  working = false;
}

async function update(item) {
  const [asked, limits] = [generation, query()];
  try {
    const path = `pictures${item.id ? `/${item.id}` : ""}?${limits}`;
    const answer = await ask(path, item.id ? {} : { method: "POST", body: item.file });
    Object.assign(item, await answer.json(), { generation: asked, query: limits });
    if (!item.pictured) await thumbnail(item);
  } catch (problem) {
    if (problem.status === 404 && item.id) {
      item.id = null; // the program keeps so many pictures only: send it again
      return;
    }
    item.generation = asked;
    if (problem.status !== 0) item.problem = problem.message;
    complain(`${item.name}: ${problem.message}`);
  }
  showButton(item);
  if (item === current) await show();
}

/** The picture as the model sees it; from the program where the browser cannot read it or reads it otherwise. */
async function bitmapOf(item) {
  if (item.bitmap) return item.bitmap;
  let bitmap = await createImageBitmap(item.file).catch(() => null);
  if (!bitmap || bitmap.width !== item.width || bitmap.height !== item.height) {
    const answer = await ask("png", { method: "POST", body: item.file });
    bitmap = await createImageBitmap(await answer.blob());
  }
  item.bitmap = bitmap;
  const kept = items.filter((other) => other.bitmap && other !== current && other !== item);
  for (const other of kept.slice(0, Math.max(0, kept.length - MOST_BITMAPS))) {
    other.bitmap.close();
    other.bitmap = null;
  }
  return bitmap;
}

async function thumbnail(item) {
  drawThumbnail(item.thumbnail, await bitmapOf(item), item.width, item.height);
  item.pictured = true;
}

// --- showing ---------------------------------------------------------------------------------------------------------

async function show() {
  const item = current;
  document.body.classList.toggle("empty", !item);
  at("stage").hidden = !item || Boolean(item.kind === "picture" && !item.boxes);
  at("save-picture").hidden = item?.kind === "video";
  at("save-json").hidden = item?.kind === "video" && item.state.status !== "done";
  if (item?.kind === "video") showVideo(item);
  else {
    for (const id of ["progress", "video", "save-video", "again"]) at(id).hidden = true;
    at("video").removeAttribute("src");
  }
  const picture = item?.kind === "picture" && item.boxes;
  at("canvas").hidden = !picture;
  showKernels(item);
  showTable(picture ? item : null);
  if (!picture) {
    at("found-note").textContent = !item ? "Nothing opened yet." : item.kind === "video" ? "The boxes of a video are drawn into it; the JSON has them all." : item.problem || "Waiting for the model …";
    if (item?.kind !== "video") at("timing").textContent = at("summary").textContent = "";
    return;
  }
  const stages = Object.entries(item.ms).map(([stage, ms]) => `${stage} ${ms.toFixed(1)} ms`);
  at("timing").textContent = stages.join(" · ");
  at("summary").textContent = `${item.name}: ${item.width} × ${item.height}, ${summary(item.boxes)}`;
  await paint(item);
}

async function paint(item) {
  await bitmapOf(item);
  if (item !== current || !item.bitmap) return;
  const room = { width: at("stage").clientWidth - 34, height: window.innerHeight * 0.64 };
  const scale = scaleFor(item.width, item.height, room);
  drawPicture(at("canvas"), item, model.classes, { scale, ...onScreen(), labels: at("labels").checked, chosen });
  at("canvas").style.width = `${Math.round(at("canvas").width / (window.devicePixelRatio || 1))}px`;
  at("canvas").setAttribute("aria-label", `picture with ${summary(item.boxes)}`);
  at("canvas").dataset.scale = scale;
}

function summary(boxes) {
  const counts = new Map();
  for (const box of [...boxes].sort((a, b) => a[5] - b[5])) counts.set(box[5], (counts.get(box[5]) || 0) + 1);
  return [...counts].map(([kind, n]) => `${n} ${model.classes[kind].name}`).join(", ") || "nothing found";
}

function showTable(item) {
  const boxes = item?.boxes || [];
  at("found").hidden = !boxes.length;
  at("count").textContent = item ? `(${boxes.length})` : "";
  at("count").dataset.count = boxes.length;
  const over = boxes.length > MOST_ROWS ? `The first ${MOST_ROWS} of ${boxes.length}; the JSON has all.` : "";
  at("found-note").textContent = item ? over || (boxes.length ? "" : "Nothing at these thresholds.") : "";
  at("found").tBodies[0].replaceChildren(...boxes.slice(0, MOST_ROWS).map((box, index) => tableRow(box, index)));
}

function tableRow([x1, y1, x2, y2, confidence, kind], index) {
  const row = make("tr");
  const swatch = make("span", "swatch");
  swatch.style.background = model.classes[kind].color;
  const name = make("td");
  name.append(swatch, model.classes[kind].name);
  row.append(name, make("td", "", confidence.toFixed(3)));
  row.append(make("td", "", [x1, y1, x2, y2].map((value) => value.toFixed(0)).join(", ")));
  row.tabIndex = 0;
  const choose = (which) => () => {
    chosen = which;
    if (current?.kind === "picture") paint(current);
  };
  for (const event of ["mouseenter", "focus"]) row.addEventListener(event, choose(index));
  for (const event of ["mouseleave", "blur"]) row.addEventListener(event, choose(-1));
  return row;
}

function showKernels(item) {
  const routing = item?.routing || {};
  const shown = Object.keys(routing).length > 0;
  const waiting = "Open a picture to see how much of each kernel its dynamic layers take.";
  const means = item?.kind === "video" && shown ? "Mean over the frames; below each bar the course over the video." : "";
  at("kernels-note").textContent = model.why_no_routing || (shown ? means : waiting);
  showRouting(at("kernels"), model.layers, routing, item?.state?.course);
}

function showVideo(item) {
  const { status, frames, total, objects, note, detail } = item.state;
  const busy = status === "sending" || status === "running";
  at("progress").hidden = !busy;
  at("video").hidden = status !== "done";
  at("save-video").hidden = status !== "done";
  at("again").hidden = busy || (status === "done" && item.query === videoQuery());
  if (busy) {
    if (total) Object.assign(at("bar"), { max: total, value: frames });
    else at("bar").removeAttribute("value");
    const of = total ? ` of ${total}` : "";
    at("progress-text").textContent = status === "sending" ? "sending …" : `frame ${frames}${of}, ${objects} objects`;
    showPreview(item);
  }
  const address = `api/videos/${item.id}/result`;
  if (status === "done" && at("video").getAttribute("src") !== address) at("video").src = address;
  if (status !== "done") at("video").removeAttribute("src");
  if (status === "done") {
    at("save-video").href = address;
    at("save-video").download = `${stem(item.name)}-boxes`;
  }
  const sentences = { cancelled: "cancelled", failed: detail, done: `${frames} frames, ${objects} objects. ${note || ""}` };
  at("summary").textContent = `${item.name}: ${busy ? "working …" : sentences[status]}`;
  at("timing").textContent = "";
}

/** The newest frame, as often as the program can send it. */
function showPreview(item) {
  if (item.state.status !== "running" || !item.state.frames) {
    at("preview").hidden = true;
    return;
  }
  if (previewing) return;
  previewing = true;
  const image = new Image();
  const done = () => {
    previewing = false;
    if (item !== current || !image.naturalWidth) return;
    at("preview").src = image.src;
    at("preview").hidden = false;
    if (!item.pictured) drawThumbnail(item.thumbnail, image, image.naturalWidth, image.naturalHeight);
    item.pictured = true;
  };
  image.onload = image.onerror = done;
  image.src = `api/videos/${item.id}/preview?frame=${item.state.frames}`;
}

function complain(text) {
  const [line, close] = [make("div", "problem"), make("button", "", "×")];
  close.type = "button";
  close.setAttribute("aria-label", "Dismiss");
  close.addEventListener("click", () => line.remove());
  line.append(make("span", "", text), close);
  at("problems").append(line);
}

// --- saving ----------------------------------------------------------------------------------------------------------

const stem = (name) => name.replace(/\.[^.]*$/, "") || "picture";

function save(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function savePicture() {
  const item = current;
  const canvas = make("canvas");
  await bitmapOf(item);
  const look = { ...inPicture(item.width, item.height), labels: at("labels").checked };
  drawPicture(canvas, item, model.classes, look);
  canvas.toBlob((blob) => save(blob, `${stem(item.name)}-boxes.png`), "image/png");
}

async function saveJson() {
  const item = current;
  if (item.kind === "video") {
    save(await (await ask(`videos/${item.id}/table`)).blob(), `${stem(item.name)}.json`);
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

// --- beginning -------------------------------------------------------------------------------------------------------

function wire() {
  for (const id of DIALS) wireDial(id);
  at("stride").addEventListener("change", () => current?.kind === "video" && show());
  at("agnostic").addEventListener("change", thresholdsChanged);
  at("labels").addEventListener("change", () => current?.kind === "picture" && paint(current));
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
  const safely = (action) => () => action().catch((problem) => complain(problem.message));
  at("save-picture").addEventListener("click", safely(savePicture));
  at("save-json").addEventListener("click", safely(saveJson));
  at("remove").addEventListener("click", () => remove(current));
  at("again").addEventListener("click", () => startVideo(current));
  at("cancel").addEventListener("click", () => {
    forgetVideo(current);
    showButton(current);
    show();
  });
  window.addEventListener("resize", () => current?.kind === "picture" && current.boxes && paint(current));
  window.addEventListener("pageshow", (event) => event.persisted && location.reload()); // its videos are gone
  window.addEventListener("pagehide", () => items.filter((item) => item.kind === "video").forEach(forgetVideo));
}

async function begin() {
  model = await (await ask("model")).json();
  const [height, width] = model.imgsz;
  const temperatures = [...new Set(model.layers.map((layer) => layer.temperature).filter(Boolean))];
  const dynamic = model.layers.length ? `${model.layers.length} dynamic layer${model.layers.length > 1 ? "s" : ""}` : "";
  const facts = [
    model.model, `${model.classes.length} classes`, `${width} × ${height} px`, model.device + (model.half ? ", half precision" : ""),
    dynamic, temperatures.length ? `temperature ${temperatures.map((t) => +t.toPrecision(4)).join(", ")}` : "",
  ];
  at("about").textContent = facts.filter(Boolean).join(" · ");
  document.title = `${model.model} – Detector`;
  for (const id of ["conf", "conf-number"]) {
    at(id).min = model.floor;
    if (model.floor < 0.01) at(id).step = 0.001;
  }
  at("max_det").max = Math.max(1000, model.start.max_det);
  for (const id of DIALS) setDial(id, model.start[id]);
  fillClasses();
  thresholdsChanged();
  wire();
  showKernels(null);
  document.body.dataset.ready = "yes";
}

begin().catch((problem) => complain(problem.message));
